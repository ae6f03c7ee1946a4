"""A network on the Hugging Face Hub → its files here, all of one commit."""

from pathlib import Path
from typing import NamedTuple

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.constants import ENDPOINT
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

# What is fetched, and how many bytes each may have: no network that this version knows comes near.
MOST = {"model.safetensors": 64 << 20, "metrics.json": 4 << 20, "config.json": 1 << 20}


class Download(NamedTuple):
    """A network's files.

    Attributes:
        folder: where they lie, in the Hub's cache.
        revision: the commit that they are of.
        note: a sentence where the Hub could not be asked, so that there may be newer ones; else empty.
    """

    folder: Path
    revision: str
    note: str = ""


def is_id(name: str) -> bool:
    """Whether a repository on the Hub may be named like this: USER/NAME."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def download(name: str, revision: str | None = None) -> Download:
    """Fetch a network, or where the Hub cannot be reached, find the copy that an earlier call kept.

    Args:
        name: USER/NAME.
        revision: a branch, tag or commit; None for the main branch.

    Raises:
        FileNotFoundError: where there is no such repository or revision, or it holds no network.
        PermissionError: where the Hub refuses it to this token.
        ValueError: where a file is larger than it can be; it is not fetched.
        ConnectionError: where the Hub cannot be reached, and no copy is here.
    """
    try:
        return _fetch(name, revision)
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{name} has no branch, tag or commit {revision}") from error
    except GatedRepoError as error:
        raise PermissionError(f"{name} asks its readers to agree to something first: see {ENDPOINT}/{name}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no {name} on the Hub, or it is private: then run `hf auth login`, or set HF_TOKEN"
        ) from error
    except RemoteEntryNotFoundError as error:
        missing = error.response.url.path.rpartition("/")[2]
        raise FileNotFoundError(f"{name} holds no trained network: {missing} is missing there") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status < 500 and status != 429:
            why = "the token is not valid" if status == 401 else f"it answered {status}"
            raise PermissionError(f"the Hub does not give {name}: {why}") from error
        why = f"the Hub answered {status}"
    except OfflineModeIsEnabled:
        why = "the Hub is not to be asked (HF_HUB_OFFLINE)"
    except (HTTPError, LocalEntryNotFoundError):
        why = "the Hub cannot be reached"
    except (OSError, RuntimeError) as error:  # such as those of the Hub's own protocol for large files
        why = f"fetching it failed ({str(error).strip().splitlines()[0]})"
    try:
        files = [Path(hf_hub_download(name, file, revision=revision, local_files_only=True)) for file in MOST]
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"{name} is no folder here, {why}, and no copy was kept") from error
    folder = files[0].parent
    return Download(folder, folder.name, f"{why[0].upper()}{why[1:]}; this is the copy of {name} that was kept.")


def _fetch(name: str, revision: str | None) -> Download:
    commit = revision
    for file, most in MOST.items():
        found = get_hf_file_metadata(hf_hub_url(name, file, revision=commit))
        if found.size is None or found.size > most:
            raise ValueError(
                f"{name}: {file} has {found.size or 0:,} bytes, and that of a network at most {most:,}; it was not "
                "fetched"
            )
        commit = found.commit_hash
    files = [Path(hf_hub_download(name, file, revision=commit)) for file in MOST]
    # By this the cache learns where the branch now points: when all is there, so that it never points at half of it.
    hf_hub_download(name, "config.json", revision=revision)
    return Download(files[0].parent, commit)
