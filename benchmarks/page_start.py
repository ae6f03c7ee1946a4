"""Time how long the page takes to start, for the other benchmarks."""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.request
from pathlib import Path


def start_page(python: str | Path, folder: Path, environment: dict[str, str]) -> float:
    """Run `app.py` until it answers a request.

    Args:
        python: the interpreter.
        folder: the folder of app.py.
        environment: all environment variables, with GRADIO_SERVER_PORT.

    Returns:
        The seconds from the start of the process to the answer.
    """
    address = f"http://127.0.0.1:{environment['GRADIO_SERVER_PORT']}"
    began = time.perf_counter()
    with subprocess.Popen([python, "app.py"], cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(address):
                seconds = time.perf_counter() - began
                process.terminate()
                return seconds
            time.sleep(0.02)
    raise RuntimeError("app.py ended before it served the page")
