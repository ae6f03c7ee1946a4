"""What the benchmarks share: arguments, timing, the page, and the result as JSON."""

import argparse
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGE_TIMEOUT = 120  # seconds


def parser(description: str | None, data: bool = False, view: int | None = None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark, with its docstring as help.

    Args:
        description: the docstring.
        data: whether it needs `--data`.
        view: the default of `--view`, 0 for both; None if there is no such option.
    """
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        result.add_argument("--data", metavar="DIR", type=Path, required=True, help="folder of the data, see above")
    if view is not None:
        text = "1: the data that settings are chosen on, 2: the data that judges them; see above"
        result.add_argument("--view", type=int, choices=(1, 2), default=view, help=text)
    result.add_argument("--json", metavar="FILE", type=Path, help="write the result to this file")
    return result


def results(name: str) -> dict:
    """Return the committed result of another benchmark."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def two_cores(file: Path | None) -> dict[str, bool]:
    """Return the promise that a result for the documents was measured on two CPU cores, as they say."""
    return {"measured on two CPU cores": os.cpu_count() == 2} if file else {}


def finish(result: dict, file: Path | None, promises: Mapping[str, bool]) -> None:
    """Print a result. If there is a file, write it there, with the facts of the machine.

    Args:
        result: what was measured.
        file: of `--json`.
        promises: what the project promises about the result → whether it holds.

    Raises:
        SystemExit: if a promise does not hold.
    """
    print(json.dumps(result, indent=1, ensure_ascii=False))
    if file:
        versions = {"python": platform.python_version(), "torch": version("torch")}
        machine = {"cores": os.cpu_count(), "processor": platform.machine(), **versions}
        text = json.dumps({**result, "machine": machine}, indent=1, ensure_ascii=False)
        file.write_text(f"{text}\n", "utf-8")
    if broken := [promise for promise, holds in promises.items() if not holds]:
        raise SystemExit(f"broken promises: {'; '.join(broken)}")


def timed(do: Callable[..., T], *arguments: object) -> tuple[float, T]:
    """Call a function. Returns the seconds that it took, and what it returned."""
    began = time.perf_counter()
    returned = do(*arguments)
    return time.perf_counter() - began, returned


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def serving(process: subprocess.Popen, port: int) -> str:
    """Wait until a process serves the page at this port. Returns its address."""
    address, began = f"http://127.0.0.1:{port}", time.monotonic()
    while time.monotonic() - began < PAGE_TIMEOUT:
        assert process.poll() is None, "app.py ended before it served the page"
        with contextlib.suppress(OSError), urllib.request.urlopen(address):
            return address
        time.sleep(0.02)
    raise TimeoutError(f"app.py did not serve the page within {PAGE_TIMEOUT} seconds")


@contextlib.contextmanager
def running_page(
    python: str | Path = sys.executable, folder: Path = ROOT, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen, str, float]]:
    """Run `app.py`. Yields the process, the address, and the seconds until the page answered.

    Args:
        python: the interpreter.
        folder: the folder of app.py.
        environment: all environment variables; by default those of this process.
    """
    port = free_port()
    variables = {**(os.environ if environment is None else environment), "GRADIO_SERVER_PORT": str(port)}
    began = time.perf_counter()
    server = subprocess.Popen([python, "app.py"], cwd=folder, env=variables, stdout=subprocess.DEVNULL)
    try:
        address = serving(server, port)
        yield server, address, time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()
