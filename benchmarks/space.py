"""Measure what a Space installs and how long the page takes to start.

    python benchmarks/space.py --json benchmarks/results/space.json

Takes the files of `siamese deploy` and installs only their requirements, with uv and its cache, for the running Python.
The first start compiles bytecode, as in a new container.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import common

from siamese.hub import space

CUDA_PACKAGES = ("nvidia", "triton", "cuda")


def main() -> None:
    args = common.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app, env = Path(folder, "app"), Path(folder, "env")
        for name, content in space.plan("USER/SPACE").files.items():
            (app / name).parent.mkdir(parents=True, exist_ok=True)
            (app / name).write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        uv, python = Path(sys.executable).with_name("uv"), env / "bin" / "python"
        requirements = app / "requirements.txt"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, env], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", requirements], check=True)
        packages = next(env.glob("lib/python*/site-packages"))
        starts = [start(app, python) for _ in range(2)]
        result = {
            "uploaded_mb": round(megabytes(app), 1),
            "installed_mb": round(megabytes(packages)),
            "of_which_for_cuda_mb": round(sum(megabytes(packages / name) for name in CUDA_PACKAGES)),
            "packages": len(list(packages.glob("*.dist-info"))),
            "first_start_s": round(starts[0], 1),
            "second_start_s": round(starts[1], 1),
        }
    common.finish(result, args.json, common.two_cores(args.json))


def megabytes(folder: Path) -> float:
    """Return the size of the files in a folder, without bytecode."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return sum(file.stat().st_size for file in files) / 1e6


def start(app: Path, python: Path) -> float:
    """Start the page as a Space does. Returns the seconds until it answers."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(app.parent),
        "SYSTEM": "spaces",
        "SPACE_ID": "USER/SPACE",
        "GRADIO_SERVER_NAME": "0.0.0.0",
    }
    with common.running_page(python, app, environment) as (_, _, seconds):
        return seconds


if __name__ == "__main__":
    main()
