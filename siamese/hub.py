"""The way to the Hugging Face Hub."""

import json
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from siamese.card import model_card

NEEDED = ("config.json", "model.safetensors", "metrics.json")
# Not pairs.png and hardest.png: they show photographs of the data, which may not be the user's to publish.
PICTURES = ("loss.png", "roc.png", "distances.png")


def check(repo_id: str) -> None:
    """Refuse what a push would fail on, before a training begins.

    Raises:
        ValueError: where `repo_id` is not USER/NAME, or no token is there.
    """
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError
    except HFValidationError as error:
        raise ValueError(f"a repository on the Hub is named USER/NAME, got {repo_id!r}") from error
    if not get_token():
        raise ValueError("no Hugging Face token: run `hf auth login`, or set HF_TOKEN to one that may write")


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Push a result folder to the Hub in one commit, creating the repository if need be; safe to repeat.

    What is pushed names no people, and no path of this machine: in its metrics.json people are numbers, their places,
    from 0, among all names in sorted order, and a folder of weights that training began from is its name.

    Args:
        folder: what `train` wrote.
        repo_id: USER/NAME.
        private: whether a new repository is to be private.

    Returns:
        The address of the model.

    Raises:
        ValueError: where the name, the folder or the token will not do.
        ConnectionError: where the Hub cannot be reached or refuses; no file was changed, and it can be run again.
    """
    check(repo_id)
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise ValueError(f"{folder} is not a trained network: {', '.join(missing)} missing; `siamese train` makes them")
    record = _public(json.loads((folder / "metrics.json").read_text()))
    written = {"metrics.json": json.dumps(record, indent=1) + "\n", "README.md": model_card(record, repo_id)}
    files = [folder / name for name in (*NEEDED, *PICTURES) if name not in written]
    operations = [CommitOperationAdd(file.name, file) for file in files if file.is_file()]
    operations += [CommitOperationAdd(name, text.encode()) for name, text in written.items()]
    api, again = HfApi(), f"run `siamese push {folder} {repo_id}`"
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message="Upload Siamese network")
    except OfflineModeIsEnabled as error:
        raise ConnectionError("HF_HUB_OFFLINE is set; unset it to push") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {401: "the token is not valid", 403: "the token may not write there"}.get(status, f"it answered {status}")
        raise ConnectionError(f"the Hub did not take {repo_id}: {why}. Once that is mended, {again}") from error
    except (HTTPError, OSError) as error:  # the client's own, whichever HTTP library it uses
        raise ConnectionError(f"the Hub cannot be reached ({error}). With a network, {again}") from error
    return str(url)


def _public(record: dict) -> dict:
    people, recipe = record["people"], record["recipe"]
    place = {name: number for number, name in enumerate(sorted(people["training"] + people["test"]))}
    record = {**record, "people": {side: [place[name] for name in people[side]] for side in ("training", "test")}}
    if "confused" in record:  # earlier records have none
        record["confused"] = [[place[a], place[b], *numbers] for a, b, *numbers in record["confused"]]
    # What is no folder here and has one slash is the id of a network on the Hub.
    if recipe and (init := recipe.get("init")) and (Path(init).is_dir() or init.count("/") != 1):
        record["recipe"] = {**recipe, "init": Path(init).resolve().name}
    return record
