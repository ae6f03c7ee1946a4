"""Read photos for another process, with limited time and memory. See `siamese.page.uploads`.

Reads requests from the standard input, a line of JSON each: the path of the photo, and `min_long_side` of
`images.read_reduced`. Answers on the standard output with a line of JSON, followed by the pixels.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from siamese import images

# Of one photo. The largest that are accepted, of 50 megapixels, need up to 3 seconds and 0.6 GB.
MAX_SECONDS = 4  # of CPU time
MAX_BYTES = 900_000_000  # of memory


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
