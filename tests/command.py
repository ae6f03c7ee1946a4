"""Run the command line in a process of its own, forked from one that has imported PyTorch already.

huggingface_hub reads its environment variables when it is imported, so commands with different environments cannot
share a process. This module must not import it.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["torch", "PIL.Image"])


class Run(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(*arguments, **environment: str) -> Run:
    """Run `siamese` with these arguments. `environment` is added to the current environment variables."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        command = [str(argument) for argument in arguments]
        process = forks.Process(target=_main, args=(command, {**os.environ, **environment}, out, err))
        process.start()
        process.join(300)
        return Run(process.exitcode, out.read_text(), err.read_text())


def _main(arguments: list[str], environment: dict[str, str], out: Path, err: Path) -> None:
    for file, stream in ((out, sys.stdout), (err, sys.stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.environ.update(environment)
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.05))  # huggingface_hub waits between retries
    from siamese.cli import main

    sys.exit(main(arguments))
