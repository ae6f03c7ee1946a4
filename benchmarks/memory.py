"""Measure the memory of the page over 400 requests and some idle minutes.

    python benchmarks/memory.py --json benchmarks/results/memory.json --picture docs/memory.png

Four clients compare, search and group photos of 0.5 to 9 megapixels. Reports the resident memory of the page and of the
processes that read photos after each request, and in each idle minute.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import common
import psutil
from gradio_client import handle_file
from page import visitors
from PIL import Image

CLIENTS, REQUESTS, WARM_UP, IDLE_MINUTES = 4, 400, 50, 10
SIDES = (700, 1000, 1500, 2000, 3000)  # pixels of the square photos
GROUPED_PHOTOS, SEARCHED_PHOTOS = 6, 3


def write_photos(folder: Path) -> list[Path]:
    """Write each portrait in another size, as JPEG and as PNG."""
    photos = []
    for number, file in enumerate(sorted(common.EXAMPLES.glob("*.jpg"))):
        side = SIDES[number % len(SIDES)]
        for suffix in (".jpg", ".png")[: 1 + (side <= 2000)]:  # a larger PNG file exceeds the limit of 10 MB
            photos.append(folder / f"{file.stem}{suffix}")
            Image.open(file).resize((side, side)).save(photos[-1])
    return photos


def resident(page: psutil.Process) -> tuple[int, int]:
    """Return the resident memory of the page, and of the processes that read photos, in MB."""
    readers = sum(process.memory_info().rss for process in page.children(recursive=True))
    return round(page.memory_info().rss / 1e6), round(readers / 1e6)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--picture", metavar="FILE", type=Path, help="draw the memory over time into this file")
    parser.add_argument("--folder", metavar="DIR", type=Path, default=common.ROOT, help="folder of app.py")
    parser.add_argument("--idle", metavar="MINUTES", type=int, default=IDLE_MINUTES)
    args = parser.parse_args()
    rows: list[tuple[float, int, int]] = []  # minutes, and the memory of the page and of the readers
    with tempfile.TemporaryDirectory() as temporary:
        photos = write_photos(Path(temporary))
        folder = args.folder.resolve()
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        with common.running_page(folder=folder, environment=environment) as (server, address, _):
            clients = visitors(address, CLIENTS)
            page, began, numbers = psutil.Process(server.pid), time.monotonic(), count()

            def note() -> None:
                rows.append((round((time.monotonic() - began) / 60, 2), *resident(page)))

            def ask(_: int) -> None:
                number = next(numbers)
                client = clients[number % CLIENTS]
                files = [handle_file(photos[(number + step) % len(photos)]) for step in range(GROUPED_PHOTOS)]
                if number % 8 == 0:
                    client.predict(files, api_name="/group")
                elif number % 8 == 4:
                    client.predict(files[1 : SEARCHED_PHOTOS + 1], files[0], api_name="/find")
                else:
                    client.predict(*files[:2], api_name="/compare")
                note()

            note()
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(ask, range(REQUESTS)))
            for _ in range(args.idle):
                time.sleep(60)
                note()
    total = [page + readers for _, page, readers in rows]
    result = {
        "requests": REQUESTS,
        "idle_minutes": args.idle,
        "started_mb": total[0],
        "after_50_mb": max(total[: WARM_UP + 1]),
        "after_400_mb": total[REQUESTS],
        "largest_mb": max(total),
        "idle_mb": total[-1],
        "growth": round(max(total) / max(total[: WARM_UP + 1]) - 1, 3),
        "minutes_page_readers": rows[: REQUESTS + 1 : 10] + rows[REQUESTS + 1 :],
    }
    if args.picture:
        draw(result, args.picture)
    common.finish(result, args.json, {"memory is flat within 15% after 50 requests": result["growth"] < 0.15})


def draw(result: dict, file: Path) -> None:
    """Draw the memory over time, the page below and the readers on top of it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    minutes, page, readers = zip(*result["minutes_page_readers"], strict=True)
    end = minutes[-result["idle_minutes"] - 1]
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.stackplot(minutes, page, readers, labels=("page", "processes that read photos"), colors=("#6366f1", "#c7d2fe"))
    axes.axvline(end, color="gray", linewidth=1)
    axes.annotate(f"after {REQUESTS} requests", (end, 0), (4, 4), textcoords="offset points")
    axes.set(xlabel="minutes", ylabel="resident memory, MB", xlim=(0, minutes[-1]))
    axes.legend(loc="upper right")
    figure.savefig(file, dpi=100)


if __name__ == "__main__":
    main()
