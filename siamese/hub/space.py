"""Deploy the page with a network as a Hugging Face Space."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard, SpaceHardware, constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from siamese.checkpoint import DEFAULT, find_weights, load
from siamese.files import PROJECT, bundled_weights, project_files
from siamese.hub.card import TEMPLATES
from siamese.hub.upload import check_repository_is_ours, check_upload, hub_errors, published_files, without_links
from siamese.model import Model
from siamese.names import markdown_text

WEIGHTS_VARIABLE = "SIAMESE_WEIGHTS"
FACES, IMAGES = "weights/faces", "weights/images"  # which a Space has in any case
FREE_HARDWARE = SpaceHardware.ZERO_A10G
REQUIREMENTS = "requirements.txt"
# Of an imported network, and of one of timm; the extras onnx and timm have the same.
ONNX_REQUIREMENT, TIMM_REQUIREMENT = "onnxruntime>=1.20", "timm>=1.0.15"
OUR_FOLDERS = ("examples/", "runs/", "siamese/", "weights/")  # other files in them are deleted from the Space
STARTING_STAGES = ("NO_APP_FILE", "BUILDING", "APP_STARTING", "RUNNING_BUILDING", "RUNNING_APP_STARTING")
TIMEOUT_MINUTES = 20


class SpacePlan(NamedTuple):
    """The content of a Space."""

    files: dict[str, Path | bytes]  # path in the Space → local file or content
    card: SpaceCard  # the README.md among them
    weights: str  # value of SIAMESE_WEIGHTS, which tells app.py what to load


def plan(repo_id: str, weights: str | Path | None = None) -> SpacePlan:
    """Collect the content of a Space without sending anything. Without `weights`, it has the face network."""
    weights = weights or DEFAULT
    model = load(weights, device="cpu")
    files = without_links(project_files())
    card = SpaceCard((PROJECT / "README.md").read_text("utf-8"))
    card.data["thumbnail"] = f"{constants.ENDPOINT}/spaces/{repo_id}/resolve/main/{card.data['thumbnail']}"
    location = FACES
    if model.revision:
        location = str(weights)
        card.data["models"] = [model.name]
        card = _custom_card(card, model, f"{constants.ENDPOINT}/{model.name}")
    elif find_weights(weights).resolve() == bundled_weights("images").resolve():
        location = IMAGES
        card = _custom_card(card, model, f"{location}/README.md")
    elif find_weights(weights).resolve() != DEFAULT.resolve():
        location = f"runs/{model.id}"
        files |= {f"{location}/{name}": content for name, content in published_files(model, location).items()}
        card = _custom_card(card, model, f"{location}/README.md")
    network = model.network
    needed = {ONNX_REQUIREMENT: network.onnx is not None, TIMM_REQUIREMENT: network.uses_timm}
    files[REQUIREMENTS] = _requirements([requirement for requirement, is_needed in needed.items() if is_needed])
    files["README.md"] = str(card).encode()
    return SpacePlan(dict(sorted(files.items())), card, location)


def deploy(
    repo_id: str,
    weights: str | Path | None = None,
    hardware: str | None = None,
    private: bool = False,
    log: Callable[[str], None] = print,
) -> str:
    """Create or update a Space, wait until it runs, and return its URL. This is safe to repeat.

    Without `weights` or `hardware`, an existing Space keeps what it has. A new one gets the face network, and the Hub's
    default hardware, or ZeroGPU if the account's plan does not include that.
    """
    check_upload(repo_id)
    if hardware and hardware not in (names := [kind.value for kind in SpaceHardware]):
        raise ValueError(f"unknown hardware {hardware!r}; the Hub has {', '.join(names)}")
    space = plan(repo_id, weights)
    api = HfApi()
    with hub_errors(repo_id, f"run `siamese deploy {repo_id}` again"):
        for name in space.card.data.get("models") or ():
            if api.model_info(name).private:
                log(f"{name} is private: add a secret HF_TOKEN in the settings of the Space so that it can read it")
        url = _create(api, repo_id, SpaceHardware(hardware) if hardware else None, private, log)
        check_repository_is_ours(api, repo_id, "space", private)
        before = api.get_space_runtime(repo_id)
        if hardware and before.requested_hardware != hardware:
            api.request_space_hardware(repo_id, SpaceHardware(hardware))
        variable = api.get_space_variables(repo_id).get(WEIGHTS_VARIABLE)
        existing = api.list_repo_files(repo_id, repo_type="space")
        if weights is None and variable and variable.value != FACES:
            space = _keep_network(space, SpaceCard.load(repo_id), variable.value)
            if REQUIREMENTS in existing:
                kept = Path(api.hf_hub_download(repo_id, REQUIREMENTS, repo_type="space")).read_text("utf-8")
                space.files[REQUIREMENTS] = _requirements(
                    [requirement for requirement in (ONNX_REQUIREMENT, TIMM_REQUIREMENT) if requirement in kept]
                )
        operations = [CommitOperationAdd(name, content) for name, content in space.files.items()]
        operations += [
            CommitOperationDelete(name)
            for name in existing
            if name.startswith(OUR_FOLDERS) and name not in space.files and not name.startswith(f"{space.weights}/")
        ]
        log(f"sending {len(space.files)} files")
        commit = api.create_commit(repo_id, operations, repo_type="space", commit_message="Deploy Siamese network")
        # The variable is set while the Space builds the commit. If that fails, the next run sets it.
        if variable is None or variable.value != space.weights:
            api.add_space_variable(repo_id, WEIGHTS_VARIABLE, space.weights)
        if before.stage not in (*STARTING_STAGES, "RUNNING"):  # a commit does not start a paused or failed Space
            api.restart_space(repo_id)
    _wait(api, repo_id, commit.oid, url, log)
    return url


def _create(api: HfApi, repo_id: str, hardware: SpaceHardware | None, private: bool, log: Callable[[str], None]) -> str:
    """Create the Space if it does not exist, and return its URL."""
    settings = {"repo_type": "space", "space_sdk": "gradio", "private": private or None, "exist_ok": True}
    try:
        return str(api.create_repo(repo_id, space_hardware=hardware, **settings))
    except HfHubHTTPError as error:
        if hardware or error.response.status_code != 402:
            raise
        log(f"the account's plan does not include Spaces on a CPU: using {FREE_HARDWARE.value}")
        return str(api.create_repo(repo_id, space_hardware=FREE_HARDWARE, **settings))


def _custom_card(card: SpaceCard, model: Model, card_url: str) -> SpaceCard:
    """Return the project's card, adapted to a network of the user."""
    words = "faces" if model.align == "faces" else "images"
    title = f"Siamese network, {model.record.data.name if model.record.settings else words}"
    card.data["title"] = title
    card.data["short_description"] = "Compare two images with a Siamese network"
    card.data["thumbnail"] = None  # it shows faces
    if model.align != "faces":
        card.data["tags"] = [tag for tag in card.data["tags"] if tag != "face-verification"]
    template = str(TEMPLATES / "card_space.md")
    return SpaceCard.from_template(
        card.data, template_path=template, title=title, card_url=card_url, text=markdown_text
    )


def _requirements(added: list[str]) -> Path | bytes:
    """Return requirements.txt, with what the network needs besides."""
    file = PROJECT / REQUIREMENTS
    return file.read_bytes() + "".join(f"{requirement}\n" for requirement in added).encode() if added else file


def _keep_network(space: SpacePlan, card: SpaceCard, weights: str) -> SpacePlan:
    """Return the plan with the card and network that the Space already has."""
    for key in ("sdk_version", "python_version"):
        card.data[key] = space.card.data[key]
    return SpacePlan(space.files | {"README.md": str(card).encode()}, card, weights)


def _wait(api: HfApi, repo_id: str, commit: str, url: str, log: Callable[[str], None]) -> None:
    """Wait until the Space runs a commit."""
    stage, end = None, time.monotonic() + 60 * TIMEOUT_MINUTES
    while time.monotonic() < end:
        time.sleep(2)
        try:
            runtime = api.get_space_runtime(repo_id)
        except HTTPError:  # a single failed request does not matter
            continue
        if runtime.raw.get("sha") in (None, commit):  # else the answer is about an earlier commit
            if runtime.stage != stage:
                stage = runtime.stage
                log(stage.lower().replace("_", " "))
            if stage == "RUNNING":
                return
            if stage not in STARTING_STAGES:
                logs = "build" if stage in ("BUILD_ERROR", "CONFIG_ERROR") else "container"
                raise RuntimeError(f"the files were sent, but the Space failed to start ({stage}): {url}?logs={logs}")
    raise RuntimeError(f"the files were sent, but the Space did not start within {TIMEOUT_MINUTES} minutes: {url}")
