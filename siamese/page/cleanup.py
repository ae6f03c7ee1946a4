"""Delete the uploads and answers of visitors, also those of a page that was killed."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from gradio import Blocks

PREFIX = "siamese-uploads-"
M_ARENA_MAX = -8  # a parameter of glibc's mallopt


def use_own_uploads_folder() -> Path:
    """Let Gradio keep uploads in a folder that only this process uses, and delete those of pages that were killed.

    A page holds a lock in its folder as long as it runs. Call this before creating the page.

    Returns:
        The folder. It is deleted when the process ends normally.
    """
    parent = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for old in parent.glob(f"{PREFIX}*"):
        if not old.is_symlink():
            with contextlib.suppress(Timeout, OSError), FileLock(old / "lock", timeout=0, mode=0o600):
                shutil.rmtree(old, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    lock = FileLock(new / "lock", mode=0o600)
    lock.acquire()
    folder = new.rename(parent / new.name.removeprefix("."))  # visible to other pages only with its lock
    atexit.register(_end, lock, folder, os.getpid())
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def _end(lock: FileLock, folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a forked process
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def start_cleanup(demo: Blocks, examples: Iterable[Path], interval: float = 600, max_age: float = 1800) -> None:
    """Delete uploads, answers and the state of sessions that are older than half an hour, every ten minutes.

    Args:
        demo: the page.
        examples: example photos; Gradio's copies of them are kept.
        interval, max_age: in seconds.
    """
    kept = {file.read_bytes() for file in examples}

    def run() -> None:
        while True:
            time.sleep(interval)
            _delete_sessions(demo, max_age)
            _delete_files(Path(demo.GRADIO_CACHE), max_age, kept)

    threading.Thread(target=run, daemon=True).start()


def limit_memory_growth() -> None:
    """Let all threads share one memory pool. With one per thread, memory use grows with Gradio's many threads."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has mallopt
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _delete_files(folder: Path, max_age: float, kept: set[bytes]) -> None:
    """Delete files and empty folders that are older than `max_age` seconds, but not files whose content is kept."""
    for path in sorted(folder.rglob("*"), reverse=True):  # files before their folder
        with contextlib.suppress(OSError):  # another thread deleted it, or the folder is not empty
            status = path.stat()
            if path.name == "lock" or time.time() - max(status.st_mtime, status.st_ctime) <= max_age:
                continue
            if path.is_dir():
                path.rmdir()
            elif path.read_bytes() not in kept:
                path.unlink()


def _delete_sessions(demo: Blocks, max_age: float) -> None:
    sessions = demo.state_holder
    for session, last_used in list(sessions.time_last_used.items()):
        if (datetime.now() - last_used).total_seconds() > max_age:
            with sessions.lock:
                sessions.session_data.pop(session, None)
                sessions.time_last_used.pop(session, None)
