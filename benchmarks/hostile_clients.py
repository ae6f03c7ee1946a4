"""Measure how much hostile photos disturb other visitors of the page.

    python benchmarks/hostile_clients.py --json benchmarks/results/hostile_clients.json

32 clients make 300 comparisons, once without and once with a hostile photo in every tenth. Reports the 95th percentile
of the seconds that the others wait, and how much the memory of the page grows after the first 30 comparisons.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import common
import psutil
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hostile_files import FILES, PORTRAIT
from page import CLIENTS, PAIR

COMPARISONS, WARM_UP, ONE_IN = 300, 30, 10
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
    """Compare two photos. Returns the seconds; None if one is hostile and was refused.

    Raises:
        AppError: if a good pair was refused.
    """
    start = perf_counter()
    try:
        answer = client.predict(handle_file(hostile) if hostile else PAIR[0], PAIR[1], api_name="/compare")
    except AppError:
        if hostile:
            return None
        raise
    assert hostile is None, f"{hostile} was answered"
    assert answer["verdict"] == "different"
    return perf_counter() - start


def resident(server: psutil.Process) -> float:
    """Return the resident memory of the page and the processes that read photos, in GB."""
    return sum(process.memory_info().rss for process in (server, *server.children(recursive=True))) / 1e9


def measure(hostile: list[Path]) -> dict[str, float]:
    """Start the page, and serve `COMPARISONS`, every tenth with a hostile photo if there are any."""
    with common.running_page() as (server, address, _):
        page = psutil.Process(server.pid)
        clients = [Client(address, verbose=False) for _ in range(CLIENTS)]
        jobs = [
            hostile[number // ONE_IN % len(hostile)] if hostile and number % ONE_IN == 0 else None
            for number in range(COMPARISONS)
        ]
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(compare, clients, jobs[:WARM_UP]))
            before, start = resident(page), perf_counter()
            turns = [clients[number % CLIENTS] for number in range(COMPARISONS - WARM_UP)]
            seconds = [value for value in pool.map(compare, turns, jobs[WARM_UP:]) if value]
            wall = perf_counter() - start
        return {
            "good_comparisons": len(seconds),
            "p95_s": round(quantiles(seconds, n=20)[-1], 2),
            "wall_s": round(wall, 1),
            "memory_growth": round(resident(page) / before - 1, 3),
        }


def main() -> None:
    args = common.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hostile = write_hostile(Path(folder))
        result = {"without": measure([]), "with": measure(hostile)}
    result["p95_ratio"] = round(result["with"]["p95_s"] / result["without"]["p95_s"], 2)
    common.finish(result, args.json, {})


if __name__ == "__main__":
    main()
