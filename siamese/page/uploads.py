"""Uploads of visitors. They are read in other processes, so that no file can stop or fill the process of the page."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from filelock import FileLock, Timeout
from PIL import Image

from siamese import images
from siamese.images import ADVICE, shorten

PREFIX = "siamese-uploads-"
PROCESSES = 2

# Of one photo. Those of 50 megapixels need up to 3 seconds and 0.6 GB in any format; a JPEG file needs much less.
MAX_SECONDS = 4  # of CPU time
MAX_BYTES = 900_000_000  # of memory


def use_own_uploads_folder() -> Path:
    """Let Gradio keep uploads in a folder of this process, and delete those of pages that were killed.

    A page holds a lock as long as it runs, and deletes the folder when it ends normally. The lock is beside the folder,
    because Windows does not rename or delete a folder with an open file.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for file in parent.glob(f"{PREFIX}*.lock"):
        with suppress(Timeout, OSError), FileLock(file, timeout=0, mode=0o600):
            _delete(file.with_suffix(""), file)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        file = folder.with_name(f"{folder.name}.lock")
        lock = FileLock(file, mode=0o600)
        lock.acquire()
        if folder.is_dir() and file.exists():  # else another page was faster and deleted them
            break
        lock.release()
    atexit.register(_end, lock, folder, os.getpid())
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _end(lock: FileLock, folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a forked process
        _delete(folder, Path(lock.lock_file))
        lock.release()


def _delete(folder: Path, lock: Path) -> None:
    """Delete a folder of uploads, and its lock, which this process holds."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        with suppress(PermissionError):  # on Windows, which deletes it when it is released
            lock.unlink(missing_ok=True)


@dataclass(frozen=True)
class Upload:
    """An upload, which can be used like any other image."""

    path: str

    @property
    def name(self) -> str:
        """The name that the visitor gave to the file."""
        return Path(self.path).name

    @property
    def key(self) -> str:
        """A hash of the content, which Gradio uses as the name of the folder."""
        return Path(self.path).parent.name

    def read_reduced(self, min_long_side: int | None) -> tuple[Image.Image, int]:
        """Read the photo in another process, like `siamese.images.read_reduced`."""
        reader = _idle.get()
        try:
            if reader is None or reader.process.poll() is not None:
                reader = _Reader()
            return reader.read(self, min_long_side)
        finally:
            _idle.put(reader)


@dataclass(frozen=True)
class ReadPhoto:
    """A photo that was read, which can be used like any other image."""

    image: Image.Image  # at a reduced size
    factor: int  # by which each side of the original is longer

    def read_reduced(self, min_long_side: int | None) -> tuple[Image.Image, int]:
        """Return it at a reduced size, like `siamese.images.read_reduced`."""
        factor = max(1, max(self.image.size) // min_long_side) if min_long_side else 1
        return self.image if factor == 1 else self.image.reduce(factor), self.factor * factor


def read_together(uploads: Sequence[Upload], min_long_side: int | None) -> list[ReadPhoto]:
    """Read several uploads at the same time."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        return [ReadPhoto(*read) for read in pool.map(lambda upload: upload.read_reduced(min_long_side), uploads)]


class _Reader:
    """A process that reads one upload at a time. It ends when this process ends."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "siamese.page.uploads"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self.process.stdin
        assert self.process.stdout
        self._requests, self._answers = self.process.stdin, self.process.stdout

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
                self.process.kill()
                self.process.communicate()


def _reset() -> None:
    global _idle
    _idle = SimpleQueue()
    for _ in range(PROCESSES):
        _idle.put(None)


_idle: SimpleQueue[_Reader | None]
_reset()
if hasattr(os, "register_at_fork"):  # a forked process cannot share them
    os.register_at_fork(after_in_child=_reset)


def limit_memory() -> None:
    """Limit the memory of this process, and keep the system from storing it after a crash. Only Linux can do this."""
    if sys.platform != "linux":
        return
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MAX_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time() -> None:
    """Let the system end this process after `MAX_SECONDS` more seconds of CPU time."""
    if sys.platform == "win32":
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + MAX_SECONDS, hard))


def main() -> None:
    """Answer requests until the other process closes the standard input."""
    limit_memory()
    for line in sys.stdin.buffer:
        path, min_long_side = json.loads(line)
        limit_time()
        pixels = b""
        try:
            image, factor = images.read_reduced(path, min_long_side)
            answer = {"size": image.size, "factor": factor}
            pixels = image.tobytes()
        except (FileNotFoundError, ValueError) as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + pixels)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):  # the other process ended
        main()
