"""Download a network from the Hugging Face Hub."""

import re
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants, get_hf_file_metadata, get_token, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

# The files to download. The limits are far above what the networks of this version need.
MAX_FILE_BYTES = {"model.safetensors": 64 << 20, "metrics.json": 4 << 20, "config.json": 1 << 20}

TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, section 2.1


class Download(NamedTuple):
    """A downloaded network.

    Attributes:
        folder: folder in the Hub's cache that holds the files.
        revision: commit of the files.
        note: a sentence if the Hub could not be reached and this is a cached copy; else empty.
    """

    folder: Path
    revision: str
    note: str = ""


def is_repo_id(name: str) -> bool:
    """Return whether `name` is a valid repository id on the Hub, USER/NAME."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def hub_id(weights: str) -> str | None:
    """Return the repository id of weights named USER/NAME or USER/NAME@REVISION; None for a folder."""
    name = weights.partition("@")[0]
    # A mistyped result folder looks like USER/NAME.
    return name if is_repo_id(name) and not name.startswith(("runs/", "weights/")) else None


def check_token() -> str | None:
    """Return the Hub's token of this user; None if there is none.

    Raises:
        ValueError: if it was copied together with characters that do not belong to it. The message does not show it.
    """
    token = get_token()
    if token and not TOKEN.fullmatch(token):
        raise ValueError(
            "the Hugging Face token has characters that do not belong to it, such as quotes or spaces; set HF_TOKEN "
            "again without them, or run `hf auth login`"
        )
    return token


def download(name: str, revision: str | None = None) -> Download:
    """Download a network. If the Hub cannot be reached, use the copy that an earlier call cached.

    Args:
        name: USER/NAME.
        revision: branch, tag or commit; None for the main branch.

    Raises:
        FileNotFoundError: if there is no such repository or revision, or a file is missing in it.
        PermissionError: if the Hub denies access.
        ValueError: if a file is too large, which is not downloaded then, or the token is malformed.
        ConnectionError: if the Hub cannot be reached and there is no cached copy.
    """
    try:
        return _download(name, revision)
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} has no branch, tag or commit {revision}") from error
    except GatedRepoError as error:
        raise PermissionError(f"{name} is gated: request access at {constants.ENDPOINT}/{name}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no repository {name} on the Hub; if it is private, run `hf auth login` or set HF_TOKEN"
        ) from error
    except RemoteEntryNotFoundError as error:
        missing = error.response.url.path.rpartition("/")[2]
        raise FileNotFoundError(f"{name} holds no trained network: {missing} is missing") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status < 500 and status != 429:
            reason = "the token is not valid" if status == 401 else f"status {status}"
            raise PermissionError(f"the Hub denies access to {name}: {reason}") from error
        problem = f"the Hub answered with status {status}"
    except OfflineModeIsEnabled:
        problem = "HF_HUB_OFFLINE is set"
    except (HTTPError, LocalEntryNotFoundError):
        problem = "the Hub cannot be reached"
    except (OSError, RuntimeError) as error:  # for example, of the Hub's transfer protocol for large files (Xet)
        problem = f"the download failed ({str(error).strip().splitlines()[0]})"
    try:
        files = [Path(hf_hub_download(name, file, revision=revision, local_files_only=True)) for file in MAX_FILE_BYTES]
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"cannot load {name}: {problem}, and there is no cached copy") from error
    folder = files[0].parent
    return Download(folder, folder.name, f"Using the cached copy of {name}: {problem}.")


def _download(name: str, revision: str | None) -> Download:
    check_token()
    commit = revision
    for file, limit in MAX_FILE_BYTES.items():
        metadata = get_hf_file_metadata(hf_hub_url(name, file, revision=commit))
        if metadata.size is None or metadata.size > limit:
            raise ValueError(f"{name}: {file} has {metadata.size or 0:,} bytes, the limit is {limit:,}; not downloaded")
        commit = metadata.commit_hash  # so that all files are of the same commit
    files = [Path(hf_hub_download(name, file, revision=commit)) for file in MAX_FILE_BYTES]
    # This call points the cached branch at the commit. It comes last, so that the branch never points at a commit that
    # is only partly cached.
    hf_hub_download(name, "config.json", revision=revision)
    return Download(files[0].parent, files[0].parent.name)
