"""The way to a Hugging Face Space: the page, with a network, for everybody."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard, SpaceHardware, constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from siamese import checkpoint as store
from siamese.hub import upload as hub
from siamese.model import Model

VARIABLE = "SIAMESE_WEIGHTS"
FREE = "zero-a10g"
ROOT = Path(__file__).parents[2]
FACES = "weights/faces"
PEOPLE = ("biden", "collins", "obama-portrait", "obama-speaking", "obama-standing")
# The page, and the package as pip installs it. Named one by one, lest somebody's own photographs go with them.
WANTED = (
    *("app.py", "app.css", "requirements.txt", "pyproject.toml", "LICENSE", "docs/page.png", "siamese/**/*.py"),
    *("examples/CREDITS.md", *(f"examples/{name}.jpg" for name in PEOPLE)),
    *("weights/mtcnn/model.safetensors", "weights/mtcnn/README.md"),
    *(f"weights/{name}/{file}" for name in ("att", "faces") for file in (*hub.NEEDED, *hub.PICTURES, "README.md")),
)
OURS = ("examples/", "siamese/", "weights/")  # of these folders a Space keeps no other file
COMING = ("NO_APP_FILE", "BUILDING", "APP_STARTING", "RUNNING_BUILDING", "RUNNING_APP_STARTING")
POLL, PATIENCE = 2, 1200  # seconds
OWN = """
# {title}

Two pictures in, how alike they are out: the Euclidean distance between two embeddings made with the same weights, and
the probability that both show the same. [The card of this network]({card}) says how well it does.

The page comes from a project in which anyone can train such a network on a folder of images: `siamese train`, then
`siamese deploy`. Uploads are deleted within the hour.
"""


class Space(NamedTuple):
    """What a Space consists of.

    Attributes:
        files: path there → file or contents.
        card: the README.md among them, with its front matter.
        weights: what SIAMESE_WEIGHTS is there.
    """

    files: dict[str, Path | bytes]
    card: SpaceCard
    weights: str


def plan(repo_id: str, weights: str | Path | None = None) -> Space:
    """Put together what a Space needs. Nothing is sent.

    Args:
        repo_id: USER/SPACE.
        weights: a result folder, or USER/NAME or USER/NAME@REVISION on the Hub; None for the face network.

    Raises:
        FileNotFoundError: where this is no clone of the project, as an installed package has no page.
        ValueError, OSError: where `weights` is no network, see `store.load`.
    """
    if not (ROOT / "app.py").is_file():
        raise FileNotFoundError("the page is not here: clone the project, and run `siamese deploy` there")
    weights = weights or store.DEFAULT
    model = store.load(weights, device="cpu")
    files = {file.relative_to(ROOT).as_posix(): file for name in WANTED for file in ROOT.glob(name) if file.is_file()}
    card = SpaceCard((ROOT / "README.md").read_text("utf-8"))
    card.data.thumbnail = f"{constants.ENDPOINT}/spaces/{repo_id}/resolve/main/{card.data.thumbnail}"
    place = FACES
    if model.revision:
        place, address = str(weights), f"{constants.ENDPOINT}/{model.name}"
        card.data.models = [model.name]
        _own(card, model, address)
    elif store.find(weights).resolve() != store.DEFAULT.resolve():
        place = f"runs/{model.id}"
        files |= {f"{place}/{name}": content for name, content in hub.published(Path(weights), place).items()}
        _own(card, model, f"{place}/README.md")
    files["README.md"] = str(card).encode()
    return Space(dict(sorted(files.items())), card, place)


def deploy(
    repo_id: str,
    weights: str | Path | None = None,
    hardware: str | None = None,
    private: bool = False,
    tell: Callable[[str], None] = print,
) -> str:
    """Bring the page to a Space, new or there already, and wait until it runs; safe to repeat.

    Args:
        repo_id: USER/SPACE.
        weights: see `plan`; None for the network that the Space has, or the face network for a new one.
        hardware: the Hub's name of a machine, such as "zero-a10g"; None for the one that it has, or the Hub's default,
            or where the account has no right to that, ZeroGPU.
        private: whether a new Space is to be private.
        tell: called with a word on how far it is.

    Returns:
        The address of the Space.

    Raises:
        ValueError, OSError: see `plan`; also where the name, the token or the hardware will not do, or the Space holds
            something else.
        ConnectionError: where the Hub cannot be reached or refuses; it can be run again.
        RuntimeError: where the Space does not come to run.
    """
    hub.check(repo_id)
    if hardware and hardware not in (known := [kind.value for kind in SpaceHardware]):
        raise ValueError(f"the Hub has no hardware {hardware!r}; it has {', '.join(known)}")
    space = plan(repo_id, weights)
    api = HfApi()
    with hub.sentences(repo_id, f"run `siamese deploy {repo_id}` again"):
        for name in space.card.data.models or ():
            if api.model_info(name).private:
                tell(f"{name} is private: the Space can only read it with a secret HF_TOKEN, to be set in its settings")
        url = _create(api, repo_id, hardware, private, tell)
        hub.spare(api, repo_id, "space", private)
        before = api.get_space_runtime(repo_id)
        if hardware and before.requested_hardware != hardware:
            api.request_space_hardware(repo_id, hardware)
        variable = api.get_space_variables(repo_id).get(VARIABLE)
        if weights is None and variable and variable.value != FACES:
            space = _keeping(space, SpaceCard.load(repo_id), variable.value)
        there = api.list_repo_files(repo_id, repo_type="space")
        operations = [CommitOperationAdd(name, content) for name, content in space.files.items()]
        operations += [
            CommitOperationDelete(name) for name in there if name.startswith(OURS) and name not in space.files
        ]
        tell(f"sending {len(space.files)} files")
        commit = api.create_commit(repo_id, operations, repo_type="space", commit_message="Deploy Siamese network")
        # After the files, so that it never names what is not there; what it named before is not deleted.
        if variable is None or variable.value != space.weights:
            api.add_space_variable(repo_id, VARIABLE, space.weights)
        if before.stage not in (*COMING, "RUNNING"):  # paused, asleep or broken, which a commit alone need not end
            api.restart_space(repo_id)
    _wait(api, repo_id, commit.oid, url, tell)
    return url


def _create(api: HfApi, repo_id: str, hardware: str | None, private: bool, tell: Callable[[str], None]) -> str:
    """Create a Space where there is none. Returns its address."""
    settings = {"repo_type": "space", "space_sdk": "gradio", "private": private or None, "exist_ok": True}
    try:
        return str(api.create_repo(repo_id, space_hardware=hardware, **settings))
    except HfHubHTTPError as error:
        if hardware or error.response.status_code != 402:
            raise
        tell(f"the account's plan has no Spaces on a CPU: taking {FREE}")
        return str(api.create_repo(repo_id, space_hardware=FREE, **settings))


def _own(card: SpaceCard, model: Model, address: str) -> None:
    """Make the project's card that of a Space with a network of the user's own."""
    title = f"Siamese network, {model.record['data']['name'] if model.record['recipe'] else 'faces'}"
    card.data.title = title
    card.data.short_description = "Two pictures in, how alike they are out"
    card.data.thumbnail = None  # which shows faces
    if model.align != "faces":
        card.data.tags.remove("face-verification")
    card.text = OWN.format(title=title, card=address)


def _keeping(space: Space, card: SpaceCard, weights: str) -> Space:
    """Return the Space with the network, and the card, that it has; the page and what it runs on are new."""
    card.data.sdk_version, card.data.python_version = space.card.data.sdk_version, space.card.data.python_version
    return Space(space.files | {"README.md": str(card).encode()}, card, weights)


def _wait(api: HfApi, repo_id: str, commit: str, url: str, tell: Callable[[str], None]) -> None:
    """Wait until a commit runs."""
    told, began = None, time.monotonic()
    while time.monotonic() - began < PATIENCE:
        try:
            runtime = api.get_space_runtime(repo_id)
        except HTTPError:  # of hundreds of questions one may fail
            time.sleep(POLL)
            continue
        current = runtime.raw.get("sha") in (None, commit)  # else it still speaks of an earlier one
        if current and runtime.stage != told:
            told = runtime.stage
            tell(told.lower().replace("_", " "))
        if current and told == "RUNNING":
            return
        if current and told not in COMING:
            log = "build" if told in ("BUILD_ERROR", "CONFIG_ERROR") else "container"
            raise RuntimeError(f"the files are there, but the Space does not run ({told}): see {url}?logs={log}")
        time.sleep(POLL)
    raise RuntimeError(f"the files are there, but the Space did not run within {PATIENCE // 60} minutes: see {url}")
