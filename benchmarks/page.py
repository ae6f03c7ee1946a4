"""Measure the page: time until it is ready, response times for one visitor and for 32, and memory.

    python benchmarks/page.py --json benchmarks/results/page.json
    git worktree add OLD COMMIT && python benchmarks/page.py --before OLD --json benchmarks/results/page_before.json

Starts the page three times, with files in the system's cache and compiled bytecode, and reports medians. The last run
also serves Chromium, a group of 40 photos, and 300 comparisons by 32 clients. With `--before`, it instead starts this
page and that of another commit in turn, and reports their medians and the ratios.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

import common
import psutil
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import sync_playwright

PAIR = [handle_file(common.EXAMPLES / name) for name in ("biden.jpg", "collins.jpg")]
RUNS = 3
CLICKS, WARM_UP_CLICKS = 20, 2
GROUPED = 40  # photos, the limit of the page
CLIENTS, WARM_UP_REQUESTS, REQUESTS = 32, 30, 270


def visitors(address: str, count: int) -> list[Client]:
    """Return clients of the page, each with an address of its own."""
    return [
        Client(address, verbose=False, headers={"x-forwarded-for": f"192.0.2.{number}"}, httpx_kwargs={"timeout": 300})
        for number in range(count)
    ]


def compare(client: Client) -> None:
    assert client.predict(*PAIR, api_name="/compare")["verdict"] == "different"


def seconds_to_compare(client: Client) -> float:
    """Return the seconds for one comparison, including the upload."""
    return common.timed(compare, client)[0]


def visit(address: str) -> tuple[int, float, float]:
    """Return the bytes of the first visit, and the seconds from the first and from a later click to the verdict."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab, sizes = chromium.new_page(), []
        session = tab.context.new_cdp_session(tab)
        session.send("Network.enable")
        session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        tab.goto(address)
        tab.locator(".examples button").first.wait_for()
        tab.wait_for_timeout(2000)  # until the thumbnails are there
        size = round(sum(sizes))
        clicks = []
        for number in range(CLICKS // 2):
            tab.evaluate(WATCH)
            tab.locator(".examples button").nth(number % 4).click()
            clicks.append(tab.evaluate("async () => (await window.answered - window.clicked) / 1000"))
            tab.wait_for_timeout(500)
        chromium.close()
    return size, clicks[0], median(clicks[WARM_UP_CLICKS:])


WATCH = """() => {
  document.querySelectorAll(".verdict").forEach((old) => old.remove());
  document.addEventListener("click", () => window.clicked = performance.now(), {capture: true, once: true});
  window.answered = new Promise((answer) => new MutationObserver((_, observer) => {
    if (!document.querySelector(".verdict")) return;
    observer.disconnect();
    answer(performance.now());
  }).observe(document.body, {childList: true, subtree: true}));
}"""


def seconds_from_click_to_verdict(address: str) -> list[float]:
    """Click the examples in turn. Returns the seconds until each verdict is displayed, by the browser's clock."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.goto(address)
        seconds = []
        for number in range(WARM_UP_CLICKS + CLICKS):
            row = tab.locator(".examples button").nth(number % 4)
            row.wait_for()
            tab.evaluate(WATCH)
            row.click()
            seconds.append(tab.evaluate("async () => (await window.answered - window.clicked) / 1000"))
            tab.wait_for_timeout(500)  # a visitor looks at the answer
        chromium.close()
    return seconds[WARM_UP_CLICKS:]


def seconds_to_group(address: str) -> float:
    """Return the seconds to group `GROUPED` JPEGs of 12 megapixels by person, including the upload."""
    with tempfile.TemporaryDirectory() as folder:
        photos = []
        for number, file in enumerate((sorted(common.EXAMPLES.glob("*.jpg")) * GROUPED)[:GROUPED]):
            photos.append(Path(folder, f"{number}.jpg"))
            Image.open(file).resize((3100, 3900)).save(photos[-1])
        client = Client(address, verbose=False)
        seconds, answer = common.timed(lambda: client.predict(list(map(handle_file, photos)), api_name="/group"))
        assert answer["dissimilarities" if "people" in answer else "faces"]
        return seconds


def measure_load(address: str, page: psutil.Process) -> dict[str, float]:
    """Measure response times of one client and of 32 at once, and how much the memory grows."""
    clients = visitors(address, CLIENTS)
    alone = [seconds_to_compare(clients[0]) for _ in range(30)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(seconds_to_compare, clients[:WARM_UP_REQUESTS]))
        before, start = page.memory_info().rss, perf_counter()
        together = list(pool.map(seconds_to_compare, [clients[number % CLIENTS] for number in range(REQUESTS)]))
        wall = perf_counter() - start
    return {
        "alone_median_s": round(median(alone), 2),
        "together_p95_s": round(quantiles(together, n=20)[-1], 2),
        "together_per_second": round(REQUESTS / wall, 1),
        "memory_growth": round(page.memory_info().rss / before - 1, 3),
    }


QUANTITIES = {"ready_s": 1, "first_load_bytes": 0, "first_click_s": 2, "click_to_verdict_s": 2, "forty_photos_s": 1}


def measure_before(folder: Path) -> dict[str, dict[str, float]]:
    """Start the page of another folder and this one in turn. Returns the medians of both, and their ratios."""
    rows: dict[str, list[list[float]]] = {"before": [], "now": []}
    for _ in range(RUNS):
        for name, root in (("before", folder), ("now", common.ROOT)):
            environment = {**os.environ, "PYTHONPATH": str(root)}
            with common.running_page(folder=root, environment=environment) as (_, address, ready):
                rows[name].append([ready, *visit(address), seconds_to_group(address)])
    medians = {name: [median(values) for values in zip(*runs, strict=True)] for name, runs in rows.items()}
    medians["ratio"] = [now / before for before, now in zip(medians["before"], medians["now"], strict=True)]
    return {
        name: {
            key: round(value, 2 if name == "ratio" else digits)
            for (key, digits), value in zip(QUANTITIES.items(), values, strict=True)
        }
        for name, values in medians.items()
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--before", metavar="DIR", type=Path, help="folder of another commit to compare with")
    args = parser.parse_args()
    if args.before:
        result = measure_before(args.before.resolve())
        promises = {
            "the first click takes half as long": result["ratio"]["first_click_s"] <= 0.5,
            "the first visit takes 0.6 of the bytes": result["ratio"]["first_load_bytes"] <= 0.6,
        }
        common.finish(result, args.json, promises)
        return
    ready, first_answer, memory, last = [], [], [], {}
    for run in range(RUNS):
        with common.running_page() as (server, address, seconds):
            page = psutil.Process(server.pid)
            ready.append(seconds)
            first_answer.append(seconds + seconds_to_compare(Client(address, verbose=False)))
            memory.append(page.memory_info().rss / 1e6)
            if run == RUNS - 1:
                load = measure_load(address, page)
                clicks = seconds_from_click_to_verdict(address)
                last = {
                    "click_to_verdict_s": round(median(clicks), 2),
                    "forty_photos_s": round(seconds_to_group(address), 1),
                    **load,
                }
    result = {
        "ready_s": round(median(ready), 1),
        "first_answer_s": round(median(first_answer), 1),
        "resident_mb": round(median(memory)),
        **last,
    }
    promises = {
        **common.two_cores(args.json),
        "ready within 12 s": result["ready_s"] < 12,
        "a verdict within 0.5 s": result["click_to_verdict_s"] < 0.5,
        "forty photos within 20 s": result["forty_photos_s"] < 20,
        "memory grows by less than 10%": result["memory_growth"] < 0.1,
    }
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
