"""Uploads and downloads with the real client, against a Hub on localhost."""

import contextlib
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

from siamese import SiameseNetwork, checkpoint
from siamese.hub.card import TAG, model_card
from siamese.hub.upload import published_files, upload
from siamese.names import markdown_text
from siamese.record import Confusion, People, Record, Settings, Source

from .conftest import EXAMPLES, ROOT
from .hub_server import Fault, Hub

TOKEN = "hf_planted_secret_token"
ATT = ROOT / "weights" / "att"
FILES = [
    *(
        "README.md",
        "config.json",
        "distances.png",
        "loss.png",
        "map.png",
        "metrics.json",
        "model.safetensors",
        "roc.png",
    )
]
NAME = "someone/network"
REPOSITORY = f"models/{NAME}"
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture
def server():
    return Hub(TOKEN)


@pytest.fixture
def connect(server, monkeypatch, tmp_path):
    """Connect this process to the server; called with other settings, connect again."""

    def connect(cache: str = "cache", **settings) -> None:
        server.connect(monkeypatch, tmp_path / cache, **settings)

    connect()
    return connect


@pytest.fixture
def folder(tmp_path) -> Path:
    """A result folder as training writes it, with pictures that must not be published."""
    folder = tmp_path / "network"
    shutil.copytree(ATT, folder)
    for name in ("pairs.png", "hardest.png"):
        (folder / name).write_bytes(b"photos of the data")
    return folder


@pytest.fixture
def uploaded(connect, folder) -> Path:
    upload(folder, NAME)
    return folder


def answer(weights, **settings) -> dict:
    model = checkpoint.load(weights, device="cpu", **settings)
    return model.compare(EXAMPLES / "biden.jpg", EXAMPLES / "collins.jpg").to_dict()


def change_record(folder: Path, **changes) -> Record:
    record = replace(Record.from_json((folder / "metrics.json").read_bytes()), **changes)
    (folder / "metrics.json").write_text(record.to_json())
    return record


def test_uploaded_weights_give_the_same_answer(server, uploaded):
    assert upload(uploaded, NAME) == f"{server.url}/{NAME}"  # again
    repository = server.repositories[REPOSITORY]
    assert repository.changed == [FILES]  # one commit; the second upload changed nothing
    here, there = answer(uploaded), answer(NAME)
    assert here.pop("model") == uploaded.name
    assert there.pop("model") == f"{NAME}@{repository.branches['main']}"
    assert here == there
    card = ModelCard(server.files(REPOSITORY)["README.md"].decode())
    assert f'siamese.load("{NAME}")' in card.text
    assert not [name for name, content in server.files(REPOSITORY).items() if TOKEN.encode() in content]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"offline": True}, None),
        ({"url": UNREACHABLE}, None),
        ({}, Fault("", 500)),
        ({}, Fault("", "drop")),
    ],
)
def test_cached_copy_is_used_if_the_hub_is_unreachable(server, uploaded, connect, settings, fault):
    online = checkpoint.load(NAME)
    connect(**settings)
    server.fault = fault
    model = checkpoint.load(NAME)
    assert (model.id, model.record, online.note) == (online.id, online.record, "")
    assert f"cached copy of {NAME}" in model.note


@pytest.mark.parametrize("broken", ["/large/", "metrics.json", "config.json"])
def test_interrupted_update_keeps_the_cached_copy(server, uploaded, broken):
    before = answer(NAME)
    files = server.files(REPOSITORY)
    config = json.loads(files["config.json"]) | {"weights_sha256": "0"}
    server.put(
        REPOSITORY,
        {
            "model.safetensors": files["model.safetensors"][:-4] + b"\0\0\0\0",
            "metrics.json": b"{}",
            "config.json": json.dumps(config).encode(),
        },
    )
    server.fault = Fault(("GET " if broken == "/large/" else "/") + broken, "drop")
    assert answer(NAME) == before


def test_other_download_errors_use_the_cached_copy(uploaded, connect, monkeypatch):
    """The Hub's protocol for large files (Xet) is not HTTP and raises other exceptions."""
    model = checkpoint.load(NAME)

    def fail(*_, **settings):
        raise RuntimeError("Task error: CAS Client Error")

    monkeypatch.setattr(checkpoint, "hf_hub_download", fail)
    copy = checkpoint.load(NAME)
    assert (copy.id, "CAS Client Error" in copy.note) == (model.id, True)
    connect("empty")
    with pytest.raises(ConnectionError, match="CAS Client Error"):
        checkpoint.load(NAME)


def test_revisions(server, uploaded, connect):
    repository = server.repositories[REPOSITORY]
    first = repository.branches["main"]
    change_record(uploaded, minutes=99)
    assert upload(uploaded, NAME, revision="next") == f"{server.url}/{NAME}/tree/next"
    assert (repository.branches["main"], len(repository.branches)) == (first, 2)
    commit = repository.branches["next"]
    for model in (
        checkpoint.load(f"{NAME}@next"),
        checkpoint.load(NAME, revision="next"),
        checkpoint.load(f"{NAME}@{commit}"),
    ):
        assert (model.id, model.record.minutes) == (f"{NAME}@{commit}", 99)
    connect(offline=True)
    assert checkpoint.load(f"{NAME}@{commit}").revision == commit
    connect()
    assert checkpoint.load(NAME).revision == first
    with pytest.raises(FileNotFoundError, match="no branch, tag or commit nowhere"):
        checkpoint.load(f"{NAME}@nowhere")
    with pytest.raises(ValueError, match="one revision"):
        checkpoint.load(f"{NAME}@next", revision="main")
    with pytest.raises(ValueError, match="no revisions"):
        checkpoint.load(uploaded, revision="main")


def test_pull_request_for_a_repository_of_another_user(server, folder, connect):
    name = "other/network"
    server.create(f"models/{name}")
    with pytest.raises(ConnectionError, match="no write access"):
        upload(folder, name)
    assert upload(folder, name, create_pr=True) == f"{server.url}/{name}/discussions/1"
    assert server.files(f"models/{name}") == {}
    assert sorted(server.files(f"models/{name}", "refs/pr/1")) == FILES
    assert checkpoint.load(f"{name}@refs/pr/1").revision


def test_private_repository(server, folder, connect):
    upload(folder, NAME, private=True)
    assert server.repositories[REPOSITORY].private
    assert checkpoint.load(NAME).revision
    connect("other", token="")
    with pytest.raises(FileNotFoundError, match="private"):
        checkpoint.load(NAME)


def test_published_files_hold_no_names_and_no_paths(folder, tmp_path):
    names = [f"Jane Doe the {name}th" for name in "0123456789"]
    record = change_record(
        folder,
        people=People(names[:2] + names[3:9], [names[2], names[9]], [names[3], "Jane Roe"]),
        confused=[Confusion(names[2], names[9], 0.25, 64)],
    )
    for init, public in (
        (ROOT / "weights" / "faces", "weights/faces"),
        ("weights/faces", "weights/faces"),
        (tmp_path / "gone", "gone"),
        ("runs/gone", "gone"),
        ("who/it@v1", "who/it@v1"),
    ):
        change_record(folder, settings=replace(record.settings, recipe="modern", init=str(init)))
        model = checkpoint.load(folder)
        files = {
            name: content if isinstance(content, bytes) else content.read_bytes()
            for name, content in published_files(model, NAME).items()
        }
        assert sorted(files) == FILES
        for secret in (b"Jane", bytes(ROOT), bytes(tmp_path)):
            assert not [name for name, content in files.items() if secret in content]
        published = Record.from_json(files["metrics.json"])
        assert published.settings.init == public
        card = files["README.md"].decode()
        assert card == model_card(model, published, NAME)
        assert bytes(tmp_path) not in model_card(model, model.record, NAME).encode()
        assert f"--init {public}" in card
        assert "| 2 | 9 | 25% | 64 |" in card
        data = ModelCard(card).data
        assert (data.base_model, data.datasets) == ("who/it" if public == "who/it@v1" else None, None)


def test_adapted_network_carries_license_credit_and_limits(server, connect, tmp_path):
    """Also if somebody starts from the pushed network, and exports it."""
    from siamese.export import _metadata
    from siamese.hub.space import plan

    folder = tmp_path / "adapted"
    shutil.copytree(ROOT / "weights" / "faces", folder)
    settings = Settings("modern", 0, 64, 1e-5, 0.6, 0, init="weights/faces", align="faces")
    record = change_record(folder, settings=settings, people=People(["Ann", "Bob"], ["Cid", "Dee"]), unchanged=True)
    upload(folder, NAME)
    files = server.files(REPOSITORY)
    assert files["LICENSE"] == (ROOT / "weights" / "faces" / "LICENSE").read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.base_model) == ("apache-2.0", None)
    for text in (record.source.credit, record.source.training_data, record.source.limitations, "weights/faces"):
        assert markdown_text(text) in card.text
    connect("another")
    model = checkpoint.load(NAME)
    assert (model.license_text.encode(), model.record.source) == (files["LICENSE"], record.source)
    assert plan("USER/SPACE", folder).files["runs/adapted/LICENSE"].read_bytes() == files["LICENSE"]
    metadata = _metadata(model)
    assert (metadata["license"], metadata["license_text"]) == ("apache-2.0", model.license_text)
    assert metadata["limitations"] == record.source.limitations


@pytest.mark.parametrize(
    ("stated", "license", "name"),
    [("MIT", "mit", None), ("My own license!", "other", "my-own-license"), ("", None, None)],
)
def test_license_of_the_start_is_in_the_front_matter(folder, stated, license, name):
    record = change_record(folder, source=Source("package", "file", "0", license=stated))
    data = ModelCard(model_card(checkpoint.load(folder), record, NAME)).data
    assert (data.license, data.license_name) == (license, name)


def test_base_model_is_an_id_on_the_hub():
    names = ("who/it", "who/it@v1", "weights/faces", "runs/it", "/home/who/it", "it", "")
    assert [checkpoint.hub_id(name) for name in names] == ["who/it", "who/it", None, None, None, None, None]


def test_bundled_networks_can_be_published_from_any_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    att, faces = (published_files(checkpoint.load(f"weights/{name}"), NAME) for name in ("att", "faces"))
    for files in (att, faces):
        assert Record.from_json(files["metrics.json"]).test
    assert f'siamese.load("{NAME}")'.encode() in att["README.md"]
    assert faces["README.md"].samefile(ROOT / "weights" / "faces" / "README.md")


def test_published_network_is_not_evaluated_on_its_training_people(trained, digits, connect, tmp_path, capsys):
    from siamese.evaluation.folder import evaluate_folder

    upload(trained, NAME)
    model = checkpoint.load(NAME)
    assert model.record.people.anonymous
    here, there = evaluate_folder(checkpoint.load(trained), digits), evaluate_folder(model, digits)
    assert (here.names, here.test) == (there.names, there.test)
    assert "note:" not in capsys.readouterr().err
    # With other data, the names of the training people are unknown.
    shutil.copytree(digits, tmp_path / "more")
    shutil.copy(digits / "3" / "0.png", tmp_path / "more" / "3" / "9.png")
    assert len(evaluate_folder(model, tmp_path / "more").names) == 10
    assert capsys.readouterr().err.count("note:") == 1


@pytest.mark.parametrize(
    ("part", "how"), [("/api/repos/create", "drop"), ("/objects/batch", 500), ("/large/", "drop"), ("/commit/", 500)]
)
def test_interrupted_upload_changes_nothing_and_can_be_repeated(server, folder, connect, part, how):
    server.fault = Fault(part, how)
    with pytest.raises(ConnectionError, match=re.escape(f"run `siamese push {folder} {NAME}` again")):
        upload(folder, NAME)
    assert REPOSITORY not in server.repositories or server.files(REPOSITORY) == {}
    server.fault = None
    upload(folder, NAME)
    assert sorted(server.files(REPOSITORY)) == FILES


@pytest.mark.parametrize("how", ["drop", pytest.param("cut", marks=pytest.mark.slow)])
def test_upload_that_loses_the_hub_at_any_request_is_complete_or_changes_nothing(server, folder, connect, how):
    """In a new repository, and in one that has a network. It can be repeated afterwards."""
    server.asked.clear()
    upload(folder, NAME)
    first, requests = server.files(REPOSITORY), len(server.asked)
    change_record(folder, minutes=99)
    for is_new in (True, False):
        for answered in range(requests):
            server.repositories.clear()
            if not is_new:
                server.create(REPOSITORY, first)
            server.asked.clear()
            server.large.clear()
            server.fault = Fault("", how, answered)
            with contextlib.suppress(ConnectionError):
                upload(folder, NAME)
            files = server.files(REPOSITORY) if REPOSITORY in server.repositories else {}
            assert sorted(files) in ([], FILES)
            changed = bool(files) and Record.from_json(files["metrics.json"]).minutes == 99
            assert changed or files == ({} if is_new else first)
    server.fault = None
    upload(folder, NAME)
    assert Record.from_json(server.files(REPOSITORY)["metrics.json"]).minutes == 99


def test_other_content_is_not_overwritten(server, folder, connect):
    weights = {"config.json": b"{}", "model.safetensors": b"cats"}
    for theirs in (
        weights,
        weights | {"README.md": b"---\ntags:\n- cats\n---\n# Cats"},
        weights | {"README.md": b"# Cats"},
        {"README.md": b"# Cats"},
        {"README.md": b"---\ntags: [a\n---\n"} | weights,
        {"README.md": b"---\ntags: 5\n---\n"} | weights,
    ):
        server.create(REPOSITORY, theirs)
        with pytest.raises(ValueError, match=f"{NAME} has other content"):
            upload(folder, NAME)
        assert server.files(REPOSITORY) == theirs
    # The Hub itself writes these files into a new repository.
    server.create(REPOSITORY, {".gitattributes": b"", "README.md": b"---\nlicense: mit\n---\n"})
    upload(folder, NAME)
    with pytest.raises(ValueError, match="is public"):
        upload(folder, NAME, private=True)


def test_broken_network_is_not_uploaded(server, folder, connect):
    record = json.loads((folder / "metrics.json").read_text())
    without_data = json.dumps({key: value for key, value in record.items() if key != "data"}).encode()
    config = json.loads((folder / "config.json").read_text())
    for file, content in (
        ("metrics.json", b"{}"),
        ("metrics.json", b"["),
        ("metrics.json", without_data),
        ("config.json", json.dumps({**config, "align": "eyes"}).encode()),
        ("config.json", json.dumps({**config, "calibration": {}}).encode()),
        ("model.safetensors", b"junk"),
    ):
        good = (folder / file).read_bytes()
        (folder / file).write_bytes(content)
        with pytest.raises(ValueError, match=f"^{re.escape(str(folder))}: {file}"):
            upload(folder, NAME)
        (folder / file).write_bytes(good)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no trained network"):
        upload(folder, NAME)
    assert server.asked == []


def test_upload_refusals(folder, connect):
    for settings, name, error, reason in (
        ({}, "network", ValueError, "USER/NAME"),
        ({}, "some one/network", ValueError, "USER/NAME"),
        ({"token": ""}, NAME, ValueError, "no Hugging Face token"),
        ({"token": "hf_wrong"}, NAME, ConnectionError, "token is not valid"),
        ({}, "else/network", ConnectionError, "no write access"),
        ({"url": UNREACHABLE}, NAME, ConnectionError, "cannot be reached"),
        ({"offline": True}, NAME, ConnectionError, "HF_HUB_OFFLINE"),
    ):
        connect(**settings)
        with pytest.raises(error, match=reason) as refused:
            upload(folder, name)
        assert "hf_" not in str(refused.value)
    with pytest.raises(ValueError, match="revision or create_pr"):
        upload(folder, NAME, revision="a", create_pr=True)


@pytest.mark.parametrize("token", [f'"{TOKEN}"', f"“{TOKEN}”", f"‘{TOKEN}", "hf_planted secret", "hf_planted\tsecret"])
def test_token_with_other_characters_is_refused_and_not_shown(server, folder, connect, token):
    connect(token=token)
    server.asked.clear()
    for use_hub in (lambda: upload(folder, NAME), lambda: checkpoint.load(NAME)):
        with pytest.raises(ValueError, match="such as quotes or spaces") as refused:
            use_hub()
        assert "planted" not in str(refused.value)
    assert server.asked == []


@pytest.mark.parametrize("token", [f" {TOKEN}\n", "hf_oauth_eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln-_"])
def test_well_formed_tokens_are_sent(connect, token):
    connect(token=token)
    assert checkpoint.check_token() == token.strip()


def test_download_refusals(server, connect):
    name = "someone/nothing"
    for settings, fault, error, reason in (
        ({}, None, FileNotFoundError, f"no repository {name}"),
        ({"url": UNREACHABLE}, None, ConnectionError, "cannot be reached, and there is no cached copy"),
        ({"offline": True}, None, ConnectionError, "HF_HUB_OFFLINE is set, and there is no cached copy"),
        ({}, Fault("", 403), PermissionError, "status 403"),
        ({}, Fault("", 451), PermissionError, "status 451"),
    ):
        connect(**settings)
        server.fault = fault
        with pytest.raises(error, match=reason):
            checkpoint.load(name)
    server.asked.clear()
    for weights in ("runs/mistyped", "weights/mistyped", "mistyped", Path("someone/network")):
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            checkpoint.load(weights)
    assert server.asked == []


def test_hostile_repository_is_rejected(server, uploaded, connect, tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoint.NETWORK_FILE_BYTES, "model.safetensors", 64 << 20)  # smaller, for a quick test
    good = server.files(REPOSITORY)
    config = json.loads(good["config.json"])
    pickle = b"cos\nsystem\n(S'touch " + bytes(tmp_path / "owned") + b"'\ntR."
    record = json.loads(good["metrics.json"])
    cases = (
        ({"metrics.json": b" " * (4 << 20) + good["metrics.json"]}, "the limit is 4,194,304"),
        ({"metrics.json": b"\xff\xfe"}, "metrics.json: Invalid JSON"),
        ({"metrics.json": b"9" * 5000}, "metrics.json: Invalid JSON"),
        ({"metrics.json": json.dumps({**record, "people": "all"}).encode()}, "metrics.json: people"),
        ({"model.safetensors": None, "pytorch_model.bin": pickle}, "model.safetensors is missing"),
        ({"model.safetensors": pickle}, "model.safetensors is damaged"),
        ({"model.safetensors": bytes((64 << 20) + 1)}, "the limit is 67,108,864"),
        ({"config.json": b" " * (1 << 20) + good["config.json"]}, "the limit is 1,048,576"),
        ({"config.json": json.dumps({**config, "backbone": "os.system"}).encode()}, "unknown backbone 'os.system'"),
        ({"config.json": json.dumps({**config, "embedding_dim": 10**9}).encode()}, "embedding_dim"),
        ({"config.json": json.dumps({**config, "embedding_dim": "2"}).encode()}, "config.json: embedding_dim"),
        ({"config.json": json.dumps({**config, "trust_remote_code": True}).encode()}, "config.json: trust_remote_code"),
        ({"config.json": b"[" * 100_000}, "config.json: Invalid JSON"),
        ({"model.safetensors": good["model.safetensors"][:-1] + b"?"}, "model.safetensors is damaged"),
    )
    for number, (files, reason) in enumerate(cases):
        connect(str(number))
        server.create(REPOSITORY, {"README.md": b""})
        server.put(REPOSITORY, good | files)
        server.asked.clear()
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            checkpoint.load(NAME)
        if "limit" in reason:
            assert not [asked for asked in server.asked if "GET /someone" in asked]
    assert not (tmp_path / "owned").exists()
    assert not list(tmp_path.rglob("pytorch_model.bin"))


def test_networks_are_loaded_from_the_hub_by_siamese_load_only(uploaded):
    with pytest.raises(FileNotFoundError, match=r"use siamese\.load"):
        SiameseNetwork.from_pretrained(NAME)


def test_damaged_cached_copy_can_be_deleted(uploaded, tmp_path):
    checkpoint.load(NAME)
    (weights,) = (tmp_path / "cache").rglob("model.safetensors")
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:-4] + b"\1\1\1\1")
    with pytest.raises(ValueError, match=re.escape(f"delete {weights.parent} to download it again")):
        checkpoint.load(NAME)
    shutil.rmtree(weights.parent)
    blob.unlink()
    checkpoint.load(NAME)
    assert load_file(weights)


def test_card_of_the_tutorial_network(monkeypatch):
    folder = ROOT / "weights" / "att"
    text, model = (folder / "README.md").read_text("utf-8"), checkpoint.load(folder, device="cpu")
    assert text == model_card(model, model.record, "weights/att")
    monkeypatch.chdir(ROOT)
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL).groups()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue() == output


@pytest.mark.parametrize(("name", "license"), [("att", "mit"), ("faces", "apache-2.0")])
def test_front_matter_of_the_bundled_networks(name, license):
    record = Record.from_json((ROOT / "weights" / name / "metrics.json").read_bytes())
    data = ModelCard.load(ROOT / "weights" / name / "README.md").data
    assert data.license == license
    assert {TAG, "face-verification"} <= set(data.tags)
    values = [result.metric_value for result in data.eval_results]
    assert values[:2] == [round(record.test.auc, 4), round(record.test.eer, 4)]


def test_card_of_the_mixin_agrees_with_ours():
    """`network.push_to_hub` writes a short card; the license of a network is for its author to choose."""
    short, ours = (
        SiameseNetwork().generate_model_card().data,
        ModelCard.load(ROOT / "weights" / "att" / "README.md").data,
    )
    assert (short.library_name, short.pipeline_tag, short.license) == (ours.library_name, ours.pipeline_tag, None)
    assert set(short.tags) <= {*ours.tags, "model_hub_mixin", "pytorch_model_hub_mixin"}


def test_card_of_other_data():
    model = checkpoint.load(ATT, device="cpu")
    record = replace(
        model.record,
        data=replace(model.record.data, name="my digits"),
        confused=[
            Confusion("<b>", "a|b", 0.5, 64),
            Confusion(1, 2, 0.5, 64),
            Confusion("a\n# b\x1b[1m", "![](https://a.example/b)", 0.5, 64),
        ],
        folds=None,
        settings=replace(model.record.settings, recipe="modern", flip=True),
        loss=None,
    )
    card = ModelCard(model_card(model, record, "runs/digits"))
    assert (card.data.license, "face-verification" in card.data.tags) == (None, False)
    assert "siamese train --data 'my digits' --recipe modern" in card.text
    assert "--flip" in card.text
    assert "| &lt;b&gt; | a\\|b | 50% | 64 |\n" in card.text
    assert not re.search(r"^# b|\x1b|!\[\]", card.text, re.MULTILINE)
    assert not re.search(
        r"people|AT&T|Olivetti|loss\.png|\{|\}", card.text.replace("{model.record", "").replace(":.4f}", "")
    )


def test_repository_holds_no_photos_of_the_data():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "weights/att/model.safetensors" in files
    assert not [name for name in files if name.endswith((".pgm", "pairs.png", "hardest.png"))]
