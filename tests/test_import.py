"""Face networks from ONNX files: what is found out about them, what is refused, and what works with the result."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import ImageEnhance, ImageOps

import siamese as package
from siamese import checkpoint, export, images
from siamese.evaluation import degraded, face_network, import_onnx
from siamese.faces.face import TEMPLATE
from siamese.hub import space
from siamese.hub.upload import upload
from siamese.network import SiameseNetwork
from siamese.onnx_backbone import OnnxBackbone, open_session, read_signature
from siamese.record import Record
from siamese.saliency import saliency_maps

from .conftest import EXAMPLES
from .hub_server import Hub
from .test_export import small_model

TOKEN = "hf_planted_secret_token"
SIZE, CELLS = 64, 8
PAIR = EXAMPLES / "obama-portrait.jpg", EXAMPLES / "obama-speaking.jpg"


def write_network(
    file: Path,
    batch: int | str = "batch",
    channels: int = 3,
    sides: tuple[int | str, int | str] = (SIZE, SIZE),
    channels_last: bool = False,
    inputs: int = 1,
    flat: bool = True,
    twice: bool = False,
    domain: str = "",
    external: bool = False,
) -> Path:
    """Write a network that averages over cells, and returns how far its third channel is from 0: (B, 64)."""
    weight = np.zeros((1, channels, CELLS, CELLS), np.float32)
    weight[0, -1] = 1 / CELLS**2
    kernel = numpy_helper.from_array(weight, "kernel")
    if external:
        (file.parent / "kernel.bin").write_bytes(kernel.raw_data)
        kernel.ClearField("raw_data")
        kernel.data_location = TensorProto.EXTERNAL
        kernel.external_data.add(key="location", value="kernel.bin")
    shape = [batch, *sides, channels] if channels_last else [batch, channels, *sides]
    start = "x0"
    nodes = []
    if channels_last:
        nodes.append(helper.make_node("Transpose", [start], ["first"], perm=[0, 3, 1, 2]))
        start = "first"
    nodes += [
        helper.make_node("Conv", [start, "kernel"], ["cells"], strides=[CELLS, CELLS]),
        helper.make_node("Abs", ["cells"], ["far"], domain=domain),
        helper.make_node("Flatten" if flat else "Identity", ["far"], ["z"]),
    ]
    kind = TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("z", kind, None)]
    if twice:
        nodes.append(helper.make_node("Neg", ["z"], ["w"]))
        outputs.append(helper.make_tensor_value_info("w", kind, None))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(f"x{k}", kind, shape) for k in range(inputs)], outputs, [kernel]
    )
    opsets = [
        helper.make_opsetid(name, version) for name, version in ({"": 17} | ({domain: 1} if domain else {})).items()
    ]
    file.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return file


@pytest.fixture(scope="module")
def lfw(tmp_path_factory) -> Path:
    """A data set in the format of LFW: eight people with two photos each, made of four portraits."""
    folder = tmp_path_factory.mktemp("lfw")
    photos = folder / "lfw-deepfunneled"
    people = []
    for name in ("biden", "collins", "hopper", "obama-portrait"):
        photo = images.read(EXAMPLES / f"{name}.jpg")
        photo.thumbnail((250, 250))
        for person, image in ((name, photo), (f"{name}-mirrored", ImageOps.mirror(photo))):
            people.append(person)
            (photos / person).mkdir(parents=True)
            for number, version in enumerate((image, ImageEnhance.Brightness(image).enhance(0.8)), 1):
                version.save(photos / person / f"{person}_{number:04d}.jpg")
    genuine = [f"{person}\t1\t2" for person in people]
    impostor = [f"{people[k]}\t1\t{people[k ^ 2]}\t2" for k in range(8)]  # within the first four, and the last four
    (folder / "pairsDevTrain.txt").write_text("\n".join(["8", *genuine, *impostor]))
    (folder / "pairsDevTest.txt").write_text("0")
    folds = [line for k in (0, 4) for line in (*genuine[k : k + 4], *impostor[k : k + 4])]
    (folder / "pairs.txt").write_text("\n".join(["2\t4", *folds]))
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_degradations():
    kept = {name: degraded.DEGRADATIONS[name] for name in ("20 pixels", "gray")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(degraded, "DEGRADATIONS", kept)
        patch.setattr(import_onnx, "IMPORT_STEP", 1)
        yield


@pytest.fixture(scope="module")
def imported(lfw, tmp_path_factory) -> Path:
    """The result folder of an imported network, with its license and source."""
    folder = tmp_path_factory.mktemp("imported")
    file = write_network(folder / "network.onnx")
    lines = []
    rights = {"license": "Somebody's license", "source": "https://example.org/network.onnx"}
    import_onnx.import_onnx(file, lfw, folder / "result", **rights, log=lines.append)
    assert lines
    return folder / "result"


@pytest.fixture
def server(monkeypatch, tmp_path):
    server = Hub(TOKEN, "USER")
    server.connect(monkeypatch, tmp_path / "cache")
    return server


@pytest.fixture
def copy(imported, tmp_path) -> Path:
    return Path(shutil.copytree(imported, tmp_path / "copy"))


def open_backbone(file: Path, size: int = SIZE, output: str | None = None) -> OnnxBackbone:
    session = open_session(file)
    return import_onnx.open_backbone(file, session, read_signature(session), size, output)


# --- what is found out


@pytest.mark.parametrize(("order", "last"), [("RGB", 0), ("BGR", 2)])
def test_proposal_finds_the_planted_channels_scaling_and_length(tmp_path, monkeypatch, order, last):
    """People differ by how far one channel is from 127.5, with random signs and contrast; the others are noise."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 4)
    levels = rng.uniform(2, 14, (12, CELLS, CELLS))[people]
    contrast = rng.uniform(0.6, 1.6, (len(people), 1, 1))
    cells = rng.uniform(0, 255, (len(people), 3, CELLS, CELLS))
    channel = 2 if order == "RGB" else 0  # the network looks at the last one of its input
    cells[:, channel] = 127.5 + levels * contrast * rng.choice([-1, 1], levels.shape)
    crops = torch.from_numpy(cells.repeat(CELLS, 2).repeat(CELLS, 3)).round().to(torch.uint8)
    monkeypatch.setattr(import_onnx, "proposal_crops", lambda *_: (crops, people[:, None] == people))
    backbone = open_backbone(write_network(tmp_path / "n.onnx"))
    proposed, unit = import_onnx.propose(
        backbone, None, TEMPLATE, ["RGB", "BGR"], import_onnx.SCALINGS, None, lambda _: None
    )
    assert (proposed.channels, proposed.mean, unit) == (order, (127.5, 127.5, 127.5), True)
    given, unit = import_onnx.propose(backbone, None, TEMPLATE, ["RGB"], {"x": import_onnx.SCALINGS["x"]}, False, print)
    assert (given.channels, given.mean, unit) == ("RGB", (0, 0, 0), False)


def test_separation_does_not_depend_on_the_scale():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(10), 3)
    z = torch.from_numpy(rng.normal(size=(10, 8))[people] + 0.3 * rng.normal(size=(30, 8)))
    same = people[:, None] == people
    near = import_onnx.separation(z, same)
    assert import_onnx.separation(100 * z, same) == pytest.approx(near)
    assert near > import_onnx.separation(z + torch.from_numpy(rng.normal(size=z.shape)), same)
    assert import_onnx.separation(z * torch.nan, same) == (-np.inf, 0.5)
    assert import_onnx.separation(0 * z, same) == (-np.inf, 0.5)


@pytest.mark.parametrize("batch", [1, 2, "batch"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_backbone_feeds_the_network_as_it_was_told(tmp_path, batch, channels_last, order):
    backbone = open_backbone(write_network(tmp_path / "n.onnx", batch=batch, channels_last=channels_last))
    assert backbone.settings.batch == (None if batch == "batch" else batch)
    told = backbone.with_input(channels=order, mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 4.0))
    x = torch.randint(256, (5, 3, SIZE, SIZE), dtype=torch.uint8)
    channel, mean, std = (2, 30, 4) if order == "RGB" else (0, 10, 1)
    cells = (x[:, channel].double() - mean) / std
    expected = cells.unfold(1, CELLS, CELLS).unfold(2, CELLS, CELLS).mean((3, 4)).abs().flatten(1)  # (5, 64)
    torch.testing.assert_close(told(x / 255).double(), expected, atol=1e-3, rtol=1e-4)
    assert told(torch.empty(0, 3, SIZE, SIZE)).shape == (0, 64)


def test_size_is_read_or_told(tmp_path):
    free = write_network(tmp_path / "free.onnx", sides=("height", "width"))
    assert read_signature(open_session(free)).size is None
    assert open_backbone(free, 32).embedding_dim == 16
    assert read_signature(open_session(write_network(tmp_path / "n.onnx"))).size == SIZE


def test_output_is_found_or_told(tmp_path):
    twice = write_network(tmp_path / "twice.onnx", twice=True)
    with pytest.raises(ValueError, match=r"--output"):
        open_backbone(twice)
    assert open_backbone(twice, output="w").settings.output == "w"
    with pytest.raises(ValueError, match=r"other"):
        open_backbone(twice, output="other")


def test_template_in_pixels_or_sides(tmp_path):
    pixels = [[112 * x, 112 * y] for x, y in TEMPLATE]
    (tmp_path / "template.json").write_text(json.dumps(pixels))
    for template in (TEMPLATE, pixels, json.dumps(pixels), str(tmp_path / "template.json")):
        np.testing.assert_allclose(import_onnx.read_template(template, 112), TEMPLATE)
    for wrong in ("[[1, 2]]", "no.json", [[0, 0]] * 4, [["a", 0]] * 5):
        with pytest.raises(ValueError, match="five points"):
            import_onnx.read_template(wrong, 112)


# --- what is refused


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ({"channels": 1}, "three color channels"),
        ({"channels": 4, "channels_last": True}, "three color channels"),
        ({"inputs": 2}, "2 inputs"),
        ({"sides": (64, 32)}, "square"),
        ({"sides": ("height", "width")}, "--size"),
        ({"flat": False}, "no output"),
        ({"domain": "my.operators"}, "not part of ONNX"),
        ({"external": True}, "another file"),
    ],
)
def test_unsuitable_files_are_refused(lfw, tmp_path, monkeypatch, siamese, network, reason):
    monkeypatch.chdir(tmp_path)  # which holds the external data
    file = write_network(tmp_path / "network.onnx", **network)
    run = siamese("import", file, "--data", lfw, "--out", tmp_path / "out")
    assert (run.returncode, reason in run.stderr) == (2, True), run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert {path.suffix for path in tmp_path.iterdir()} <= {".onnx", ".bin"}


def test_wrong_arguments_are_refused(lfw, tmp_path, siamese, monkeypatch):
    file = write_network(tmp_path / "network.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    for network, out, options, reason in (
        (file, "full", [], "not empty"),
        (tmp_path / "junk.onnx", "out", [], "cannot run"),
        (tmp_path / "none.onnx", "out", [], "none.onnx"),
        (file, "out", ["--mean", 1, 2], "one or three"),
        (file, "out", ["--mean", 1, "--std", 0], "std above 0"),
        (file, "out", ["--template", "[]"], "five points"),
        (file, "out", ["--size", 32], "--size"),
        (file, "out", ["--data", tmp_path], "LFW"),
    ):
        run = siamese("import", network, "--data", lfw, "--out", tmp_path / out, *options)
        assert (run.returncode, reason in run.stderr) == (2, True), run.stderr
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run = siamese("import", file, "--data", lfw, "--out", tmp_path / "out")
    assert (run.returncode, "pip install 'siamese-faces[onnx]'" in run.stderr) == (2, True)
    assert sorted(tmp_path.rglob("*")) == before


def test_interruption_leaves_nothing(tmp_path):
    def write(stop: bool) -> None:
        with import_onnx.new_folder(tmp_path / "runs" / "out") as folder:
            (folder / "file").touch()
            if stop:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(stop=True)
    assert not list((tmp_path / "runs").iterdir())
    (tmp_path / "runs" / "out").mkdir()
    write(stop=False)
    assert [path.name for path in (tmp_path / "runs").rglob("*")] == ["out", "file"]


# --- the result folder


def test_result_folder_compares(imported):
    assert {"README.md", "config.json", "metrics.json", "model.onnx", "model.safetensors", "roc.png"} == {
        path.name for path in imported.iterdir()
    }
    assert (imported / "model.onnx").read_bytes() == (imported.parent / "network.onnx").read_bytes()
    model = checkpoint.load(imported, device="cpu")
    answer = model.compare(PAIR[0], PAIR[0])
    assert answer.dissimilarity < 1e-3
    assert answer.probability > 0.5
    assert model.compare(*PAIR).dissimilarity > 0.01
    assert model.record.lfw.images == 16
    assert model.record.people.seen is None
    assert model.record.source.license == "Somebody's license"
    front = yaml.safe_load((imported / "README.md").read_text().split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "somebody-s-license")


def test_folder_is_searched(imported, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for name in ("biden", "collins", "obama-portrait"):
        shutil.copy(EXAMPLES / f"{name}.jpg", tmp_path / "photos")
    model = checkpoint.load(imported, device="cpu")
    found = package.find(EXAMPLES / "biden.jpg", tmp_path / "photos", model=model)
    assert found.ranked[0].photo == "biden.jpg"
    assert package.group(tmp_path / "photos", model=model).faces == 3


def test_quality_is_used_if_the_length_tells_something(imported):
    """A folder without quality scores has no nuisances, one with them has both."""
    model = checkpoint.load(imported, device="cpu")
    fitted = model.calibration
    assert bool(fitted.poor_slope) == (model.network.reference_norm is not None) == (model.network.nuisance is not None)


@pytest.mark.parametrize("informative", [True, False])
def test_quality_needs_a_length_that_falls_with_the_degradation(informative):
    """Degraded features are noisy. If their norm says so, quality scores improve the probabilities."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(60, 16))
    features = {}
    for name in ("none", *degraded.DEGRADATIONS):
        noise, length = (0.3, 1.0) if name == "none" else (1.5, 0.4)
        rows = {}
        for k, n in np.ndindex(60, 2):
            row = people[k] + noise * rng.normal(size=16)
            scale = (length if informative else 1.0) / np.linalg.norm(row) * rng.uniform(0.9, 1.1)
            changes = np.full(2, np.inf, np.float32)
            rows[f"P{k}/P{k}_{n}.jpg"] = degraded.Features((scale * row).astype(np.float32), changes)
        features[name] = rows
    pairs = [degraded.LfwPair(f"P{k}/P{k}_0.jpg", f"P{j}/P{j}_1.jpg", k == j) for k, j in np.ndindex(60, 60)]
    network = SiameseNetwork("tutorial", 16, unit=True).eval()
    scored = face_network.add_quality(network, features)
    assert face_network.quality_helps(network, scored, features, pairs) == informative
    same_norm = {
        name: {file: row._replace(embedding=row[0] / np.linalg.norm(row[0])) for file, row in rows.items()}
        for name, rows in features.items()
    }
    assert not face_network.quality_helps(network, scored, same_norm, pairs)


def test_fingerprint_depends_on_the_file_and_its_input(imported, tmp_path):
    model = checkpoint.load(imported, device="cpu")
    first = model.fingerprint()
    assert checkpoint.load(imported, device="cpu").fingerprint() == first
    settings = model.network.onnx
    for changed in (
        replace(settings, sha256="0"),
        replace(settings, channels="RGB" if settings.channels == "BGR" else "BGR"),
    ):
        model.network.onnx = changed
        assert model.fingerprint() != first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_network_runs_in_a_forked_process(imported):
    """As on ZeroGPU. The threads of onnxruntime do not exist there."""
    model = checkpoint.load(imported, device="cpu")
    x = torch.randint(256, (2, *model.network.input_shape), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model.network.embed(x)
        if (child := os.fork()) == 0:
            signal.alarm(30)  # ends a child that waits for a thread
            os._exit(0 if torch.equal(model.network.embed(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_damaged_file_is_not_loaded(copy):
    file = copy / "model.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(copy)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.onnx is missing"):
        checkpoint.load(copy)


def test_what_an_imported_network_cannot_do(imported, tmp_path, siamese, digits):
    model = checkpoint.load(imported, device="cpu")
    assert saliency_maps(model, model.compare(*PAIR)) is None
    run = siamese("export", imported, "--onnx", tmp_path / "again.onnx")
    assert (run.returncode, "imported" in run.stderr) == (2, True)
    run = siamese("train", "--data", digits, "--init", imported, "--out", tmp_path / "out")
    assert (run.returncode, "imported" in run.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_exported_network_is_imported_with_what_it_states(lfw, tmp_path):
    """It takes uint8 pixels and has quality scores as a second output."""
    model = small_model()
    model.template = tuple((x, y + 0.01) for x, y in TEMPLATE)
    model.network = SiameseNetwork("small", 16, unit=True, reference_norm=1.0).eval()
    export.to_onnx(model, tmp_path / "n.onnx")
    lines = []
    made = import_onnx.import_onnx(
        tmp_path / "n.onnx", lfw, tmp_path / "out", mirror=False, unit=True, log=lines.append
    )
    assert (made.network.onnx.output, made.network.onnx.channels, made.template) == (
        "embeddings",
        "RGB",
        model.template,
    )
    assert (made.network.reference_norm, made.network.nuisance) == (None, None)  # all lengths are 1
    x = torch.randint(256, (3, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(made.network.embed(x), model.network.embed(x), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match='"license"'):
        space.plan("USER/SPACE", tmp_path / "out")


# --- the Hub


def test_pushed_network_gives_the_same_answer(server, imported):
    upload(imported, "USER/NAME")
    assert "model.onnx" in server.files("models/USER/NAME")
    here, there = (checkpoint.load(name, device="cpu").compare(*PAIR).to_dict() for name in (imported, "USER/NAME"))
    assert (here.pop("model"), there.pop("model").partition("@")[0]) == ("result", "USER/NAME")
    assert here == there
    files = space.plan("USER/SPACE", "USER/NAME").files
    assert space.ONNX_REQUIREMENT in files["requirements.txt"].decode().splitlines()


def test_deployed_network_brings_onnxruntime(server, imported):
    planned = space.plan("USER/SPACE", imported)
    assert planned.files["runs/result/model.onnx"] == imported / "model.onnx"
    assert space.ONNX_REQUIREMENT in planned.files["requirements.txt"].decode().splitlines()
    space.deploy("USER/SPACE", imported, log=lambda _: None)
    for weights, needed in ((None, True), ("weights/faces", False), (None, False)):
        space.deploy("USER/SPACE", weights, log=lambda _: None)
        text = server.files("spaces/USER/SPACE")["requirements.txt"].decode()
        assert (space.ONNX_REQUIREMENT in text) == needed
        assert ("runs/result/model.onnx" in server.files("spaces/USER/SPACE")) == needed


@pytest.mark.parametrize("missing", ["license", "package"])
def test_network_without_license_or_source_is_not_published(server, copy, missing):
    record = Record.from_json((copy / "metrics.json").read_bytes())
    (copy / "metrics.json").write_text(replace(record, source=replace(record.source, **{missing: ""})).to_json())
    for publish in (lambda: upload(copy, "USER/NAME"), lambda: space.plan("USER/SPACE", copy)):
        with pytest.raises(ValueError, match=f'"{missing}"'):
            publish()
    assert not server.repositories


def test_requirement_is_that_of_the_extra():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert space.ONNX_REQUIREMENT in extras["onnx"]
