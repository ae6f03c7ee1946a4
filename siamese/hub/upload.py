"""The way to the Hugging Face Hub."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, RepoCard, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RemoteEntryNotFoundError
from yaml import YAMLError

from siamese.checkpoint import find, load
from siamese.hub.card import TAG, model_card
from siamese.hub.download import is_id

NEEDED = ("config.json", "model.safetensors", "metrics.json")
# Not pairs.png and hardest.png: they show photographs of the data, which may not be the user's to publish.
PICTURES = ("loss.png", "roc.png", "distances.png")
REFUSED = {
    401: "the token is not valid",
    402: "the account's plan does not cover that hardware",
    403: "the token may not write there",
}


def check(repo_id: str) -> None:
    """Refuse what a push would fail on, before a training begins.

    Raises:
        ValueError: where `repo_id` is not USER/NAME, or no token is there.
    """
    if not is_id(repo_id):
        raise ValueError(f"a repository on the Hub is named USER/NAME, got {repo_id!r}")
    if not get_token():
        raise ValueError("no Hugging Face token: run `hf auth login`, or set HF_TOKEN to one that may write")


def upload(
    folder: Path, repo_id: str, private: bool = False, revision: str | None = None, create_pr: bool = False
) -> str:
    """Push a result folder to the Hub in one commit, creating the repository if need be; safe to repeat.

    Args:
        folder: what `train` wrote; of it goes what `published` returns.
        repo_id: USER/NAME.
        private: whether a new repository is to be private.
        revision: the branch to push to, made where it is not there; None for the main branch.
        create_pr: open a pull request instead, for somebody else's repository.

    Returns:
        The address of the model, or of the pull request.

    Raises:
        ValueError: where the name, the folder or the token will not do, or the repository holds something else.
        ConnectionError: where the Hub cannot be reached or refuses; no file was changed, and it can be run again.
    """
    if revision and create_pr:
        raise ValueError("a pull request makes its own branch: leave out one of revision and create_pr")
    check(repo_id)
    load(folder, device="cpu")  # else something broken might be pushed
    operations = [CommitOperationAdd(name, content) for name, content in published(folder, repo_id).items()]
    api = HfApi()
    with sentences(repo_id, f"run `siamese push {folder} {repo_id}` again"):
        url = str(api.create_repo(repo_id, private=private or None, exist_ok=True))
        spare(api, repo_id, "model", private)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
            url += f"/tree/{revision}"
        commit = api.create_commit(
            repo_id, operations, commit_message="Upload Siamese network", revision=revision, create_pr=create_pr
        )
    return commit.pr_url or url


def published(folder: Path, weights: str) -> dict[str, Path | bytes]:
    """Return the files of a result folder as others may have them.

    They name no people, and no path of this machine: in metrics.json people are numbers, their places, from 0, among
    all names in sorted order, those in other data are left out, and a folder of weights that training began from is its
    name.

    Args:
        folder: what `train` wrote, or weights that come with the project, see `store.find`.
        weights: where the reader of the model card is to load the network from.

    Returns:
        Name → file or contents.

    Raises:
        ValueError: where metrics.json lacks what the card tells.
    """
    folder = find(folder)
    try:
        record = _public(json.loads((folder / "metrics.json").read_text("utf-8")))
        card = model_card(record, weights)
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{folder}: metrics.json lacks what `siamese train` writes ({error!r})") from error
    files: dict[str, Path | bytes] = {name: folder / name for name in (*NEEDED, *PICTURES) if (folder / name).is_file()}
    files["metrics.json"] = (json.dumps(record, indent=1) + "\n").encode()
    files["README.md"] = card.encode()
    return files


def spare(api: HfApi, repo_id: str, repo_type: str, private: bool) -> None:
    """Refuse to write over what somebody has put there, or in public what is to be private.

    Raises:
        ValueError: where the repository holds more than the Hub itself puts into a new one, and its card does not say
            that this project wrote it; or where it is public and `private` is true.
    """
    if private and not api.repo_info(repo_id, repo_type=repo_type).private:
        raise ValueError(f"{repo_id} is there already, and public: make it private in its settings first")
    files = set(api.list_repo_files(repo_id, repo_type=repo_type))
    if not files - {".gitattributes"}:
        return
    try:
        card = RepoCard.load(repo_id, repo_type=repo_type, ignore_metadata_errors=True)
        tags, text = card.data.to_dict().get("tags"), card.text.strip()
    except (RemoteEntryNotFoundError, ValueError, YAMLError):
        tags, text = None, "?"
    ours = isinstance(tags, list) and TAG in tags
    new = not files - {".gitattributes", "README.md"} and (not text or "spaces-config-reference" in text)
    if not (ours or new):
        raise ValueError(
            f"{repo_id} holds something else: its card has no tag {TAG!r}. Choose another name, or empty it first"
        )


@contextmanager
def sentences(repo_id: str, again: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one sentence.

    Args:
        repo_id: what is written to.
        again: what to do once the cause is mended.

    Raises:
        ConnectionError: where the Hub cannot be reached or refuses.
    """
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ConnectionError("HF_HUB_OFFLINE is set; unset it to write to the Hub") from error
    except (HTTPError, OSError, RuntimeError) as error:  # the last two from its own protocol for large files, too
        cause = error if isinstance(error, HTTPError) else error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            reason = REFUSED.get(status, f"it answered {status}")
            why = f"the Hub did not take {repo_id}: {reason}. Once that is mended,"
        else:
            why = f"the Hub cannot be reached ({str(cause).strip().splitlines()[0]}). With a network,"
        raise ConnectionError(f"{why} {again}") from error


def _public(record: dict) -> dict:
    people, recipe = record["people"], record["recipe"]
    place = {name: number for number, name in enumerate(sorted(people["training"] + people["test"]))}
    numbers = {side: names and [place[name] for name in names if name in place] for side, names in people.items()}
    record = {**record, "people": numbers}
    if recipe:
        record["confused"] = [[place[a], place[b], *counted] for a, b, *counted in record["confused"]]
    if recipe and (init := recipe.get("init")) and not is_id(init.partition("@")[0]):
        record["recipe"] = {**recipe, "init": Path(init).name}
    return record
