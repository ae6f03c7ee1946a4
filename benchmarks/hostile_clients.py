"""Measure how much hostile photos, and a visitor who floods the page, disturb other visitors.

    git worktree add OLD a43a950
    python benchmarks/hostile_clients.py --before OLD --json benchmarks/results/hostile_clients.json

32 clients make 150 comparisons: once alone, once with a hostile photo in every tenth, and once beside a visitor who
uploads, asks for groups and opens connections with half a request, each without a pause. Reports the 95th percentile of
the seconds that the others wait, how many of them fail, and how much the memory of the page grows after the first 30
comparisons. With `--before`, the page of another commit is flooded, too, and stands beside this one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import common
import httpx
import psutil
from gradio_client import Client, handle_file
from hostile_files import FILES, PORTRAIT
from page import CLIENTS, PAIR, visitors

COMPARISONS, WARM_UP, ONE_IN = 150, 30, 10
FLOODER, TINY, HALVES = "127.0.0.2", 200, 300  # address, files of an upload, half requests
HOSTILE = (
    "JPEG, 132,000 scans",
    "JPEG, EXIF entries that share 4 MB",
    "TIFF, 1.2 million strips",
    "PPM, plain text with comments",
)


def write_hostile(folder: Path) -> list[Path]:
    """Write hostile photos, and two files that are cheap to refuse."""
    contents = [FILES[name]() for name in HOSTILE] + [PORTRAIT.read_bytes()[:5000], b"no photo" * 1000]
    files = [folder / f"{number}.jpg" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    return files


def compare(client: Client, hostile: Path | None) -> float | None:
    """Compare two photos. Returns the seconds; None if that failed, as it has to with a hostile photo."""
    start = perf_counter()
    try:
        answer = client.predict(handle_file(hostile) if hostile else PAIR[0], PAIR[1], api_name="/compare")
    except Exception:  # of many types, from the page, the client and the network
        return None
    assert hostile is None, f"{hostile} was answered"
    assert answer["verdict"] == "different"
    return perf_counter() - start


@contextlib.contextmanager
def flooding(address: str) -> Iterator[None]:
    """Let one visitor, with an address of its own, send as much as the page takes."""
    stop, halves = threading.Event(), []
    port = httpx.URL(address).port
    session = httpx.Client(base_url=address, transport=httpx.HTTPTransport(local_address=FLOODER), timeout=60)

    def upload() -> None:
        session.post("/gradio_api/upload", files=[("files", (f"{n}.jpg", os.urandom(50))) for n in range(TINY)])

    def ask() -> None:
        files = [("files", (name, (common.EXAMPLES / name).read_bytes())) for name in ("biden.jpg", "collins.jpg")]
        paths = session.post("/gradio_api/upload", files=files).json()
        photos = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths] * 20
        while not stop.wait(0.05):
            session.post("/gradio_api/call/group", json={"data": [photos, None]})

    def open_half() -> None:
        halves[:-HALVES] = []
        halves.append(socket.create_connection(("127.0.0.1", port), 5, source_address=(FLOODER, 0)))
        halves[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        time.sleep(0.01)

    def repeat(do: Callable[[], None]) -> None:
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
                do()

    threads = [threading.Thread(target=repeat, args=[do]) for do in (upload, upload, ask, open_half)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def resident(server: psutil.Process) -> float:
    """Return the resident memory of the page and the processes that read photos, in GB."""
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True))) / 1e9


def measure(hostile: list[Path], flood: bool = False, folder: Path = common.ROOT) -> dict[str, float | None]:
    """Start the page, and serve `COMPARISONS`, every tenth with a hostile photo if there are any."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with common.running_page(folder=folder, environment=environment) as (server, address, _):
        page = psutil.Process(server.pid)
        clients = visitors(address, CLIENTS)
        jobs = [
            hostile[number // ONE_IN % len(hostile)] if hostile and number % ONE_IN == 0 else None
            for number in range(COMPARISONS)
        ]
        with flooding(address) if flood else contextlib.nullcontext(), ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(compare, clients, jobs[:WARM_UP]))
            before, start = resident(page), perf_counter()
            turns = [clients[number % CLIENTS] for number in range(COMPARISONS - WARM_UP)]
            seconds = [value for value in pool.map(compare, turns, jobs[WARM_UP:]) if value]
            wall = perf_counter() - start
        return {
            "good_comparisons": len(seconds),
            "failed": sum(job is None for job in jobs[WARM_UP:]) - len(seconds),
            "p95_s": round(quantiles(seconds, n=20)[-1], 2) if len(seconds) > 1 else None,
            "wall_s": round(wall, 1),
            "memory_growth": round(resident(page) / before - 1, 3),
        }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--before", metavar="DIR", type=Path, help="folder of another commit to compare with")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "without": measure([]),
            "with": measure(write_hostile(Path(folder))),
            "flood": measure([], flood=True),
        }
    ratios = {name: round(result[name]["p95_s"] / result["without"]["p95_s"], 2) for name in ("with", "flood")}
    promises = {
        "no other comparison fails": not any(arm["failed"] for arm in result.values()),
        "95% are answered within 1.5 times as long": max(ratios.values()) <= 1.5,
    }
    if args.before:
        folder = args.before.resolve()
        result |= {"without_before": measure([], False, folder), "flood_before": measure([], True, folder)}
    common.finish({**result, "p95_ratio": ratios}, args.json, promises)


if __name__ == "__main__":
    main()
