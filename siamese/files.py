"""Atomic writes, the cache folder, and the files that come with the package."""

import os
from collections.abc import Callable
from pathlib import Path

NETWORK_FILES = ("config.json", "model.safetensors", "metrics.json")
ONNX_FILE = "model.onnx"  # of an imported network
# pairs.png and hardest.png are not published: they show images of the data set.
PLOT_FILES = ("loss.png", "roc.png", "distances.png", "map.png")
LICENSE_FILE = "LICENSE"  # if the weights have one of their own

# The files beside the code that an installed package and a Space need. Every folder that may hold a user's own photos
# is listed by file. hatch_build.py reads this.
BUNDLED = (
    *("app.py", "app.css", "app.js", "requirements.txt", "pyproject.toml", "hatch_build.py", "LICENSE"),
    *("README.md", "docs/*.md", "docs/page.png", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("examples/biden.jpg", "examples/collins.jpg", "examples/hopper.jpg"),
    *("examples/obama-portrait.jpg", "examples/obama-speaking.jpg", "examples/obama-standing.jpg"),
    *("examples/edited/group.jpg", "examples/edited/obama-blurred.jpg"),
    *("examples/CREDITS.md", "examples/siamese.ipynb", "examples/tutorial.ipynb"),
    *("weights/retinaface/model.safetensors", "weights/retinaface/README.md"),
    *(f"weights/att/{name}" for name in (*NETWORK_FILES, *PLOT_FILES, "README.md")),
    *(
        f"weights/{network}/{name}"
        for network in ("faces", "images")
        for name in (*NETWORK_FILES, *PLOT_FILES, "README.md", LICENSE_FILE)
    ),
)
PACKAGE = Path(__file__).parent
# The folder of these files: inside an installed package, else the clone or the Space.
PROJECT = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent


def bundled_weights(name: str) -> Path:
    """Return the folder of the weights that come with the package: "faces", "images", "att" or "retinaface"."""
    return PROJECT / "weights" / name


def cache_folder() -> Path:
    """Return the folder for files that can be downloaded or computed again.

    It is `siamese` inside XDG_CACHE_HOME, or inside ~/.cache if that variable is not set. It may not exist yet.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siamese"
    except RuntimeError as error:
        raise OSError(
            "your home folder is not known; set XDG_CACHE_HOME to a folder for indexes and downloads"
        ) from error


def write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file completely or not at all, through a temporary file beside it that `write` gets the path of.

    If the process is killed, or the disk is full, the previous version of the file stays intact.
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
