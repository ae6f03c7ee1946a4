"""Upload a network to the Hugging Face Hub."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, RepoCard
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RemoteEntryNotFoundError
from yaml import YAMLError

from siamese.checkpoint import check_token, find_weights, is_repo_id, load, public_name
from siamese.files import LICENSE_FILE, NETWORK_FILES, ONNX_FILE, PLOT_FILES
from siamese.hub.card import TAG, imported_card, model_card
from siamese.model import Model

STATUS_REASONS = {
    401: "the token is not valid",
    402: "the account's plan does not include this hardware",
    403: "the token has no write access",
}


def check_upload(repo_id: str) -> None:
    """Check the name of a repository and the token, for example before a long training run."""
    if not is_repo_id(repo_id):
        raise ValueError(f"a repository on the Hub is named USER/NAME, got {repo_id!r}")
    if not check_token():
        raise ValueError("no Hugging Face token: run `hf auth login`, or set HF_TOKEN to a token with write access")


def upload(
    folder: Path, repo_id: str, private: bool = False, revision: str | None = None, create_pr: bool = False
) -> str:
    """Upload a result folder in one commit, and return the URL of the model or of the pull request.

    The repository and the branch `revision` are created if necessary. This is safe to repeat.
    """
    if revision and create_pr:
        raise ValueError("a pull request creates its own branch: use either revision or create_pr")
    check_upload(repo_id)
    model = load(folder, device="cpu")  # raises if the network is broken
    operations = [CommitOperationAdd(name, content) for name, content in published_files(model, repo_id).items()]
    api = HfApi()
    with hub_errors(repo_id, f"run `siamese push {folder} {repo_id}` again"):
        url = str(api.create_repo(repo_id, private=private or None, exist_ok=True))
        check_repository_is_ours(api, repo_id, "model", private)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
            url += f"/tree/{revision}"
        commit = api.create_commit(
            repo_id, operations, commit_message="Upload Siamese network", revision=revision, create_pr=create_pr
        )
    return commit.pr_url or url


def published_files(model: Model, weights: str) -> dict[str, Path | bytes]:
    """Return the name and the path or content of each file to publish, without names of people and local paths.

    The README.md of a trained or imported network is written again from its anonymised record; converted weights keep
    their own. Raises a ValueError if a file is a link, or the license or source of an imported network is not stated.
    """
    folder, record = find_weights(model.name), model.record
    record = record.anonymise(public_name(record.settings.init) if record.settings and record.settings.init else "")
    network_files = (*NETWORK_FILES, *((ONNX_FILE,) if model.network.onnx else ()))
    names = [name for name in (*network_files, *PLOT_FILES, LICENSE_FILE) if os.path.lexists(folder / name)]
    card: Path | bytes = folder / "README.md"
    if record.settings:
        card = model_card(model, record, weights).encode()
    elif model.network.onnx:
        if not (record.source and record.source.license and record.source.package):
            raise ValueError(
                f"{folder} does not state the license and the source of the imported network: add "
                '"license" and "package" to "source" in its metrics.json'
            )
        card = imported_card(model, record, weights).encode()
    files: dict[str, Path | bytes] = {name: folder / name for name in names}
    return without_links(files | {"metrics.json": record.to_json().encode(), "README.md": card})


def without_links(files: Mapping[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Return files by their name, if they are regular ones in regular folders. What a link leads to is not published.

    Raises:
        ValueError: if one is something else.
    """
    for name, file in files.items():
        if isinstance(file, Path):
            folders = [*file.parents][: name.count("/")]
            if any(map(Path.is_symlink, (file, *folders))) or not file.is_file():
                raise ValueError(f"{file} is missing, a link or no regular file, which is not published; copy the file")
    return dict(files)


def check_repository_is_ours(api: HfApi, repo_id: str, repo_type: str, private: bool) -> None:
    """Check that an upload overwrites nothing else and publishes nothing private."""
    if private and not api.repo_info(repo_id, repo_type=repo_type).private:
        raise ValueError(f"{repo_id} already exists and is public: first make it private in its settings")
    files = set(api.list_repo_files(repo_id, repo_type=repo_type))
    if not files - {".gitattributes"}:
        return
    try:
        card = RepoCard.load(repo_id, repo_type=repo_type, ignore_metadata_errors=True)
        tags, text = card.data.to_dict().get("tags"), card.text.strip()
    except (RemoteEntryNotFoundError, ValueError, YAMLError):
        tags, text = None, "unreadable"
    is_ours = isinstance(tags, list) and TAG in tags
    # The Hub itself writes a README.md into a new repository.
    is_new = not files - {".gitattributes", "README.md"} and (not text or "spaces-config-reference" in text)
    if not (is_ours or is_new):
        raise ValueError(f"{repo_id} has other content: its card has no tag {TAG!r}. Use another name, or empty it")


@contextmanager
def hub_errors(repo_id: str, advice: str) -> Iterator[None]:
    """Turn the exceptions of the Hub's client into a ConnectionError: what is wrong, and then the advice."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ConnectionError("HF_HUB_OFFLINE is set; unset it to write to the Hub") from error
    except (HTTPError, OSError, RuntimeError) as error:  # the Hub's protocol for large files raises the last two
        cause = error if isinstance(error, HTTPError) else error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            problem = f"the Hub denied writing to {repo_id}: {STATUS_REASONS.get(status, f'status {status}')}"
        else:
            problem = f"the Hub cannot be reached ({str(cause).strip().splitlines()[0]})"
        raise ConnectionError(f"{problem}. Fix this, then {advice}") from error
