"""Uploads of visitors. They are read in other processes, so that no file can stop or fill the process of the page."""

import atexit
import ctypes
import json
import math
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
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
MAX_WAIT = 120  # seconds, also if the process was stopped
MAX_BYTES = 900_000_000  # of memory

PERIOD = 1800  # seconds after which what a visitor sent is deleted
MAX_VISITOR_BYTES = 1_000_000_000  # that a visitor stores in `PERIOD`
MAX_STORED_BYTES = 5_000_000_000  # that all visitors store
FILE_BYTES = 200_000  # that each file counts in addition, as many small ones are work, too


class FullError(ValueError):
    """A visitor stored too much, or all of them together did."""


@dataclass(eq=False)
class Stored:
    """What one request of a visitor stores."""

    visitor: str
    bytes: int = 0
    ended: float = math.inf  # time of the monotonic clock


class UploadFolder:
    """The folder for uploads of this process, and a record of what each request stores in it.

    The process holds a lock as long as it runs, and deletes the folder when it ends. The lock is beside the folder,
    because Windows does not rename or delete a folder with an open file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0, mode=0o600, thread_local=False)
        self._requests: list[Stored] = []
        self._bytes: Counter[str | None] = Counter()  # of each visitor, and None for all
        self._counting = threading.Lock()

    def hold(self) -> None:
        """Create the folder and its lock, unless they are there."""
        while not (self.path.is_dir() and Path(self._lock.lock_file).exists()):
            self._lock.release(force=True)
            with suppress(Timeout):  # another page tries whether it is free
                self._lock.acquire()
                self.path.mkdir(mode=0o700, exist_ok=True)

    def reserve(self, request: Stored, size: int) -> None:
        """Count bytes of a request before they are stored.

        Raises:
            FullError: if they are too many; they are not counted then.
        """
        with self._counting:
            if self._bytes[None] + size > MAX_STORED_BYTES:
                raise FullError("This page has too many photos at the moment. Try again in half an hour")
            if self._bytes[request.visitor] + size > MAX_VISITOR_BYTES:
                raise FullError("You uploaded too many photos. Try again in half an hour")
            if not request.bytes:
                self._requests.append(request)
            self._count(request, size)

    def settle(self, request: Stored, unused: int) -> None:
        """Note that a request ended, which reserved more bytes than it stored."""
        with self._counting:
            self._count(request, -unused)
            request.ended = time.monotonic()

    def _count(self, request: Stored, size: int) -> None:
        request.bytes += size
        self._bytes[request.visitor] += size
        self._bytes[None] += size

    def clean_up(self, max_age: float) -> None:
        """Delete what was stored more than `max_age` seconds ago or, as the clock was set back, in the future."""
        oldest = time.monotonic() - max_age
        for parent, folders, files in os.walk(self.path, topdown=False):  # skips what was deleted meanwhile
            for name in [*files, *folders]:
                path = os.path.join(parent, name)
                with suppress(OSError):  # another thread deleted it, or the folder is not empty
                    status = os.lstat(path)
                    if abs(time.time() - max(status.st_mtime, status.st_ctime)) > max_age:
                        os.rmdir(path) if stat.S_ISDIR(status.st_mode) else os.unlink(path)
        with self._counting:
            for request in [request for request in self._requests if request.ended < oldest]:
                self._requests.remove(request)
                self._count(request, -request.bytes)
            self._bytes = +self._bytes  # without visitors that store nothing

    def delete(self) -> None:
        """Delete the folder and its lock, unless another process holds it."""
        with suppress(Timeout, OSError), self._lock:
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                Path(self._lock.lock_file).unlink(missing_ok=True)  # Windows deletes it when it is released
            self._lock.release(force=True)


folder: UploadFolder  # of this process, see `use_own_uploads_folder`


def use_own_uploads_folder() -> UploadFolder:
    """Let Gradio keep uploads in a folder of this process, and delete those of pages that were killed."""
    global folder
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for file in parent.glob(f"{PREFIX}*.lock"):
        UploadFolder(file.with_suffix("")).delete()
    folder = UploadFolder(parent / f"{PREFIX}{secrets.token_hex(8)}")
    folder.hold()
    process = os.getpid()
    atexit.register(lambda own=folder: own.delete() if os.getpid() == process else None)  # not in a forked process

    def stop(*_: object) -> None:
        if os.getpid() == process:
            atexit._run_exitfuncs()
        os._exit(0)  # without waiting for photos that are read

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
    os.environ["GRADIO_TEMP_DIR"] = str(folder.path)
    return folder


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
        complete, timer = False, threading.Timer(MAX_WAIT, self.process.kill)
        timer.start()
        try:
            self._requests.write(json.dumps([upload.path, min_long_side]).encode() + b"\n")
            self._requests.flush()
            answer = json.loads(self._answers.readline())
            if "error" in answer:
                complete = True
                raise (FileNotFoundError if answer["error"] == "FileNotFoundError" else ValueError)(answer["message"])
            size = tuple(answer["size"])
            pixels = self._answers.read(3 * size[0] * size[1])
            if len(pixels) < 3 * size[0] * size[1]:
                raise EOFError
            complete = True
            return Image.frombytes("RGB", size, pixels), answer["factor"]
        except (BrokenPipeError, EOFError, json.JSONDecodeError) as error:
            raise ValueError(f"{shorten(upload.name)} takes too much time or memory to read; {ADVICE}") from error
        finally:
            timer.cancel()
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


def return_memory() -> None:
    """Return free memory to the system, which the GNU C library would keep."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def limit_memory() -> None:
    """Limit the memory of this process, which the system ends before the page, and does not store after a crash.

    Only Linux can do this.
    """
    if sys.platform != "linux":
        return
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MAX_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


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
        return_memory()


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):  # the other process ended
        main()
