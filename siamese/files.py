"""Files that are written, the cache folder, and the files that come with the package."""

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from siamese.names import folded

NETWORK_FILES = ("config.json", "model.safetensors", "metrics.json")
ONNX_FILE = "model.onnx"  # of an imported network
# pairs.png and hardest.png are not published: they show images of the data set.
PLOT_FILES = ("loss.png", "roc.png", "distances.png", "map.png")
LICENSE_FILE = "LICENSE"  # if the weights have one of their own
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What PyTorch and the system say without memory.
OUT_OF_MEMORY = ("allocate memory", "out of memory", "bad_alloc", "start new thread")

# All files of an installed package and of a Space. Nothing else is published, such as notes or photos of the user in
# these folders. A module that is not listed is missing in the wheel. hatch_build.py reads this.
CODE = {
    "siamese": "__init__ __main__ backbones calibration checkpoint comparison distributed export files images loss "
    "model names network onnx_backbone record saliency summary timm_backbone wording",
    "siamese/cli": "__init__ common models search train",
    "siamese/data": "__init__ att dataset folders lfw pairs",
    "siamese/evaluation": "__init__ calibrate degraded face_network folder import_onnx labels lfw metrics pairs plots",
    "siamese/faces": "__init__ detection face quality retinaface",
    "siamese/hub": "__init__ card space upload",
    "siamese/page": "__init__ about charts compare find group limits mcp photo server uploads widgets",
    "siamese/search": "__init__ embedding find index output people scan storage update",
    "siamese/training": "__init__ candidates config output recipes run start trainer whitening",
}
PACKAGED = (
    *(f"{folder}/{name}.py" for folder, names in CODE.items() for name in names.split()),
    *("siamese/py.typed", *(f"siamese/hub/templates/card_{kind}.md" for kind in ("imported", "space", "trained"))),
)
BUNDLED = (  # beside the code in a clone, and in siamese/bundled in an installed package
    *("app.py", "app.css", "app.js", "requirements.txt", "pyproject.toml", "hatch_build.py", "LICENSE"),
    *("README.md", "docs/page.png", "CONTRIBUTING.md", "CHANGELOG.md"),
    *(f"docs/{name}.md" for name in ("accuracy", "api", "architecture", "hub")),
    *(f"docs/{name}.md" for name in ("import", "search", "security", "training")),
    *("examples/biden.jpg", "examples/collins.jpg", "examples/hopper.jpg"),
    *("examples/obama-portrait.jpg", "examples/obama-speaking.jpg", "examples/obama-standing.jpg"),
    *("examples/edited/group.jpg", "examples/edited/obama-blurred.jpg"),
    *("examples/CREDITS.md", "examples/siamese.ipynb", "examples/tutorial.ipynb"),
    *("weights/retinaface/model.safetensors", "weights/retinaface/README.md"),
    *(  # those that a network has
        f"weights/{network}/{name}"
        for network in ("att", "faces", "images")
        for name in (*NETWORK_FILES, *PLOT_FILES, "README.md", LICENSE_FILE)
    ),
)
PACKAGE = Path(__file__).parent
# The folder of these files: inside an installed package, else the clone or the Space.
PROJECT = PACKAGE / "bundled" if (PACKAGE / "bundled").is_dir() else PACKAGE.parent


def lacks_memory(error: Exception) -> bool:
    """Return whether an error means that there is not enough memory."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


def project_files() -> dict[str, Path]:
    """Return the files of `PACKAGED` and `BUNDLED` that exist, by their path in a clone."""
    places = {name: PACKAGE.parent / name for name in PACKAGED} | {name: PROJECT / name for name in BUNDLED}
    return {name: file for name, file in places.items() if os.path.lexists(file)}


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


def as_stored(path: Path) -> Path:
    """Resolve a path, with its names as they are on the disk. Many file systems accept others in case and accents."""
    path = path.resolve()
    place = Path(path.anchor)
    for part in path.parts[1:]:
        with suppress(OSError):  # of a folder that cannot be listed
            names = os.listdir(place)
            if part not in names and (place / part).exists():
                alike = [name for name in names if folded(name) == folded(part)]
                part = alike[0] if len(alike) == 1 else part
        place /= part
    return place


def write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file completely or not at all, through a temporary file beside it that `write` gets the path of.

    If the process is killed, the disk is full, or the power is lost, the previous version of the file stays intact.

    Raises:
        OSError: if it cannot be written, see `write_error`.
    """
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        write(part)
        replace_file(part, target)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError):  # from torch.save if the disk is full
            error = OSError(errno.ENOSPC, str(error).splitlines()[0])
        raise write_error(target, error, kept="The previous version is kept." if target.exists() else "") from error
    finally:
        with suppress(OSError):
            part.unlink()


def replace_file(file: Path, target: Path) -> None:
    """Move a new file to the place of another one, when its content is on the disk: a power loss leaves one of both."""
    with file.open("r+b") as content:
        os.fsync(content.fileno())
    os.replace(file, target)


def write_new(file: Path, text: str) -> None:
    """Write a file that must not exist yet, completely or not at all, see `check_new_file`."""
    check_new_file(file)
    write_atomically(file, lambda part: part.write_bytes(text.encode()))


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside a new or empty one, which it replaces at the end. After an error, nothing is left of it."""
    check_new_folder(target)
    target = target.resolve()
    part = target.with_name(f"{target.name[:40]}.part-{secrets.token_hex(4)}")
    try:
        part.mkdir(parents=True)
        yield part
        if target.exists():
            target.rmdir()
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_error(
    place: Path, error: OSError, elsewhere: str = "choose another name or place", kept: str = ""
) -> OSError:
    """Return an error that says why a file or folder cannot be written, and what to do.

    If the disk is full, `kept` is a sentence for the user; else `elsewhere` says what to do.
    """
    advice = f"is the disk full? {kept}".rstrip() if error.errno in FULL_DISK else elsewhere
    return OSError(f"cannot write {place} ({error.strerror or error}); {advice}")


def check_new_file(file: Path | None) -> None:
    """Raise a ValueError if a file that will be written exists, because nothing is overwritten, or has no folder."""
    if file and os.path.lexists(file):
        raise ValueError(f"cannot write {file}, because it exists; delete it, or give another name")
    if file and not file.parent.is_dir():
        raise ValueError(f"cannot write {file}; give the name of a file in an existing folder")


def check_new_folder(folder: Path | None) -> None:
    """Raise a ValueError if a folder that will be written exists and is not empty."""
    if folder and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"cannot write {folder}, because it is not empty; give a new folder")
