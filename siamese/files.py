"""Atomic writes, the cache folder, and the weights that come with the package."""

import os
from collections.abc import Callable
from pathlib import Path

PACKAGE = Path(__file__).parent


def bundled_weights(name: str) -> Path:
    """Return the folder of the weights that come with the project: "faces", "att" or "mtcnn"."""
    repository, package = (folder / "weights" / name for folder in (PACKAGE.parent, PACKAGE))
    return repository if repository.is_dir() else package


def cache_folder() -> Path:
    """Return the folder for files that can be downloaded or computed again.

    It is `siamese` inside XDG_CACHE_HOME, or inside ~/.cache if that variable is not set. It may not exist yet.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siamese"


def write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file completely or not at all.

    If the process is killed, or the disk is full, the previous version of the file stays intact.

    Args:
        target: the file to write, in an existing folder.
        write: writes the content to the path that it gets. This temporary file is in the folder of `target`.

    Raises:
        OSError: if the file cannot be written.
    """
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, target)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError if the disk is full
        kept = "; the previous version is kept" if target.exists() else ""
        raise OSError(f"cannot write {target}{kept}; is the disk full? ({str(error).splitlines()[0]})") from error
    finally:
        part.unlink(missing_ok=True)
