"""Uploads of visitors. They are read in other processes, so that no file can stop or fill the process of the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from PIL import Image

from siamese.images import ADVICE, shorten

PROCESSES = 2


@dataclass(frozen=True)
class Upload:
    """An upload, which can be used like any other image, see `siamese.images.read`.

    Attributes:
        path: of the file. Gradio keeps each upload in a folder whose name is a hash of its content.
    """

    path: str

    @property
    def name(self) -> str:
        """The name that the visitor gave to the file."""
        return Path(self.path).name

    @property
    def key(self) -> str:
        """A hash of the content."""
        return Path(self.path).parent.name

    def read_reduced(self, min_long_side: int | None) -> tuple[Image.Image, int]:
        """Read the photo in another process, see `siamese.images.read_reduced`.

        Raises:
            FileNotFoundError: if it was deleted.
            ValueError: if it cannot be read within the limits of `upload_reader`.
        """
        reader = _idle.get()
        try:
            if reader is None or reader.has_ended:
                reader = _Reader()
            return reader.read(self, min_long_side)
        finally:
            _idle.put(reader)


@dataclass(frozen=True)
class ReadPhoto:
    """A photo that was read, which can be used like any other image.

    Attributes:
        image: the photo at a reduced size.
        factor: by how much each side of the original is longer.
    """

    image: Image.Image
    factor: int

    def read_reduced(self, min_long_side: int | None) -> tuple[Image.Image, int]:
        """Return it at a reduced size, see `siamese.images.read_reduced`."""
        factor = max(1, max(self.image.size) // min_long_side) if min_long_side else 1
        return self.image if factor == 1 else self.image.reduce(factor), self.factor * factor


def read_together(uploads: Sequence[Upload], min_long_side: int | None) -> list[ReadPhoto]:
    """Read several uploads at the same time.

    Raises:
        FileNotFoundError, ValueError: see `Upload.read_reduced`.
    """
    with ThreadPoolExecutor(PROCESSES) as pool:
        return [ReadPhoto(*read) for read in pool.map(lambda upload: upload.read_reduced(min_long_side), uploads)]


class _Reader:
    """A process that reads one upload at a time. It ends when this process ends."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "siamese.page.upload_reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin
        assert self._process.stdout
        self._requests, self._answers = self._process.stdin, self._process.stdout

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def read(self, upload: Upload, min_long_side: int | None) -> tuple[Image.Image, int]:
        complete = False
        try:
            self._requests.write(json.dumps([upload.path, min_long_side]).encode() + b"\n")
            self._requests.flush()
            answer = json.loads(self._answers.readline())
            if "error" in answer:
                complete = True
                raise (FileNotFoundError if answer["error"] == "FileNotFoundError" else ValueError)(answer["message"])
            size = tuple(answer["size"])
            pixels = self._answers.read(3 * size[0] * size[1])
            image = Image.frombytes("RGB", size, pixels)
            complete = True
            return image, answer["factor"]
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise ValueError(f"{shorten(upload.name)} takes too much time or memory to read; {ADVICE}") from error
        finally:
            if not complete:
                self._process.kill()
                self._process.communicate()


def _reset() -> None:
    global _idle
    _idle = SimpleQueue()
    for _ in range(PROCESSES):
        _idle.put(None)


_idle: SimpleQueue[_Reader | None]
_reset()
if hasattr(os, "register_at_fork"):  # a forked process cannot share them
    os.register_at_fork(after_in_child=_reset)
