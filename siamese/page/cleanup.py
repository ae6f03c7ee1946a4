"""Delete the uploads and answers of visitors that Gradio itself keeps."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradio import Blocks

M_ARENA_MAX = -8  # a parameter of glibc's mallopt


def start_cleanup(demo: Blocks) -> None:
    """Delete old data of a page in a background thread, at the interval and age of its `delete_cache`.

    Gradio deletes uploads that are complete. It keeps what it showed to sessions that are now idle, with their photos,
    and files of interrupted uploads.
    """

    def run() -> None:
        while True:
            assert demo.delete_cache, "set when the page was created"
            interval, max_age = demo.delete_cache
            time.sleep(interval)
            _delete_sessions(demo, max_age)
            _delete_partial_uploads(Path(demo.GRADIO_CACHE), max_age)

    threading.Thread(target=run, daemon=True).start()


def limit_memory_growth() -> None:
    """Let all threads share one memory pool. With one per thread, memory use grows with Gradio's many threads."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has mallopt
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _delete_sessions(demo: Blocks, max_age: float) -> None:
    sessions = demo.state_holder
    for session, last_used in list(sessions.time_last_used.items()):
        if (datetime.now() - last_used).total_seconds() > max_age:
            with sessions.lock:
                sessions.session_data.pop(session, None)
                sessions.time_last_used.pop(session, None)


def _delete_partial_uploads(cache: Path, max_age: float) -> None:
    for file in cache.glob("tmp*"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > max_age:
                file.unlink()
