"""The page as its visitors meet it: how soon it is ready, how soon it answers, one visitor alone and 32 at once.

    python benchmarks/page.py --json benchmarks/results/page.json

Starts `python app.py` three times, as a newcomer's second start would be (files in the system's cache, bytecode
compiled), and reports medians; the last one then serves a browser and 300 comparisons. Needs Chromium.
"""

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


def start() -> tuple[subprocess.Popen, float]:
    """Return the server and the seconds until its page was there."""
    began = time.perf_counter()
    environment = {**os.environ, "GRADIO_SERVER_PORT": PORT}
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while True:
        assert server.poll() is None, "app.py ended instead of serving"
        try:
            urllib.request.urlopen(ADDRESS).close()
            return server, time.perf_counter() - began
        except OSError:
            time.sleep(0.05)


def ask(client: Client) -> float:
    """Return the seconds that a comparison takes, its upload included."""
    began = time.perf_counter()
    assert client.predict(*PAIR, api_name="/compare")["verdict"] == "different"
    return time.perf_counter() - began


def resident(server: subprocess.Popen) -> float:
    """Return the memory that the server takes, in MB."""
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


def clicks() -> list[float]:
    """Return the seconds from the click on an example to the verdict in the browser, by its own clock, examples in
    turn."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.goto(ADDRESS)
        seconds = []
        for number in range(22):
            row = tab.locator("#examples tbody tr").nth(number % 4)
            row.wait_for()
            tab.evaluate(WATCH)
            row.click()
            seconds.append(tab.evaluate("async () => (await window.answered - window.clicked) / 1000"))
            tab.wait_for_timeout(500)  # as a visitor looks at the answer
        chromium.close()
    return seconds[2:]


def forty_photos() -> float:
    """Return the seconds that it takes to sort forty JPEGs of 12 megapixels into people, their upload included."""
    with tempfile.TemporaryDirectory() as folder:
        photos = []
        for number, file in enumerate(sorted(EXAMPLES.glob("*.jpg")) * 8):
            photos.append(Path(folder, f"{number}.jpg"))
            Image.open(file).resize((3100, 3900)).save(photos[-1])
        client = Client(ADDRESS, verbose=False)
        began = time.perf_counter()
        faces = client.predict([handle_file(photo) for photo in photos], api_name="/group")["faces"]
        assert len({face["person"] for face in faces}) == 3
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ready, first, memory = [], [], []
    for number in range(3):
        server, seconds = start()
        try:
            ready.append(seconds)
            first.append(seconds + ask(Client(ADDRESS, verbose=False)))
            memory.append(resident(server))
            if number < 2:
                continue
            clients = [Client(ADDRESS, verbose=False) for _ in range(32)]
            alone = [ask(clients[0]) for _ in range(30)]
            with ThreadPoolExecutor(32) as pool:
                list(pool.map(ask, clients[:30]))
                before = resident(server)
                began = time.perf_counter()
                together = list(pool.map(ask, (clients * 9)[:270]))
                wall = time.perf_counter() - began
            after = resident(server)
            result = {
                "cores": os.cpu_count(),
                "ready_s": round(median(ready), 1),
                "first_answer_s": round(median(first), 1),
                "resident_mb": round(median(memory)),
                "click_to_verdict_s": round(median(clicks()), 2),
                "forty_photos_s": round(forty_photos(), 1),
                "alone_median_s": round(median(alone), 2),
                "together_p95_s": round(quantiles(together, n=20)[-1], 2),
                "together_per_second": round(270 / wall, 1),
                "memory_growth": round(after / before - 1, 3),
            }
        finally:
            server.terminate()
            server.wait()
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
