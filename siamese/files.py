"""Write files so that an interruption leaves the previous version intact."""

import contextlib
import os
from pathlib import Path


def write_atomically(target: Path, write) -> None:
    """Write a file whole or not at all: a kill at any moment, or a full disk, leaves the one before.

    Raises:
        OSError: where it cannot be written.
    """
    part = target.with_name(target.name + ".part")
    try:
        write(part)
        os.replace(part, target)
    except (OSError, RuntimeError) as error:  # PyTorch raises the latter
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        kept = "; the one before is kept" if target.exists() else ""
        raise OSError(f"{target} cannot be written{kept}: is the disk full? ({str(error).splitlines()[0]})") from error
