"""Measure the page: time until it is ready, response times for one visitor and for 32, and memory.

    python benchmarks/page.py --json benchmarks/results/page.json

Starts the page three times, with files in the system's cache and compiled bytecode, and reports medians. The last run
also serves Chromium, a group of 40 photos, and 300 comparisons by 32 clients.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles

from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PAIR = [handle_file(EXAMPLES / name) for name in ("biden.jpg", "collins.jpg")]
PORT = "7997"
ADDRESS = f"http://127.0.0.1:{PORT}"
RUNS = 3
CLICKS, WARM_UP_CLICKS = 20, 2
CLIENTS, WARM_UP_REQUESTS, REQUESTS = 32, 30, 270


def start_page() -> tuple[subprocess.Popen, float]:
    """Return the process of the page, and the seconds until it answered a request."""
    start = time.perf_counter()
    environment = {**os.environ, "GRADIO_SERVER_PORT": PORT}
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while True:
        assert server.poll() is None, "app.py ended before it answered"
        try:
            urllib.request.urlopen(ADDRESS).close()
            return server, time.perf_counter() - start
        except OSError:
            time.sleep(0.05)


def seconds_to_compare(client: Client) -> float:
    """Return the seconds for one comparison, including the upload."""
    start = time.perf_counter()
    assert client.predict(*PAIR, api_name="/compare")["verdict"] == "different"
    return time.perf_counter() - start


def resident_mb(server: subprocess.Popen) -> float:
    """Return the resident memory of the page in MB."""
    return int(Path(f"/proc/{server.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1000


WATCH = """() => {
  document.querySelectorAll(".verdict").forEach((old) => old.remove());
  document.addEventListener("click", () => window.clicked = performance.now(), {capture: true, once: true});
  window.answered = new Promise((answer) => new MutationObserver((_, observer) => {
    if (!document.querySelector(".verdict")) return;
    observer.disconnect();
    answer(performance.now());
  }).observe(document.body, {childList: true, subtree: true}));
}"""


def seconds_from_click_to_verdict() -> list[float]:
    """Click the examples in turn. Returns the seconds until each verdict is displayed, by the browser's clock."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.goto(ADDRESS)
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


def seconds_to_group() -> float:
    """Return the seconds to group forty JPEGs of 12 megapixels by person, including the upload."""
    with tempfile.TemporaryDirectory() as folder:
        photos = []
        for number, file in enumerate(sorted(EXAMPLES.glob("*.jpg")) * 8):
            photos.append(Path(folder, f"{number}.jpg"))
            Image.open(file).resize((3100, 3900)).save(photos[-1])
        client = Client(ADDRESS, verbose=False)
        start = time.perf_counter()
        faces = client.predict([handle_file(photo) for photo in photos], api_name="/group")["faces"]
        assert len({face["person"] for face in faces}) == 3
        return time.perf_counter() - start


def measure_load(server: subprocess.Popen) -> dict[str, float]:
    """Measure response times of one client and of 32 at once, and how much the memory grows."""
    clients = [Client(ADDRESS, verbose=False) for _ in range(CLIENTS)]
    alone = [seconds_to_compare(clients[0]) for _ in range(30)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(seconds_to_compare, clients[:WARM_UP_REQUESTS]))
        before = resident_mb(server)
        start = time.perf_counter()
        together = list(pool.map(seconds_to_compare, [clients[number % CLIENTS] for number in range(REQUESTS)]))
        wall = time.perf_counter() - start
    return {
        "alone_median_s": round(median(alone), 2),
        "together_p95_s": round(quantiles(together, n=20)[-1], 2),
        "together_per_second": round(REQUESTS / wall, 1),
        "memory_growth": round(resident_mb(server) / before - 1, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ready, first_answer, memory = [], [], []
    for run in range(RUNS):
        server, seconds = start_page()
        try:
            ready.append(seconds)
            first_answer.append(seconds + seconds_to_compare(Client(ADDRESS, verbose=False)))
            memory.append(resident_mb(server))
            if run < RUNS - 1:
                continue
            load = measure_load(server)
            result = {
                "cores": os.cpu_count(),
                "ready_s": round(median(ready), 1),
                "first_answer_s": round(median(first_answer), 1),
                "resident_mb": round(median(memory)),
                "click_to_verdict_s": round(median(seconds_from_click_to_verdict()), 2),
                "forty_photos_s": round(seconds_to_group(), 1),
                **load,
            }
        finally:
            server.terminate()
            server.wait()
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
