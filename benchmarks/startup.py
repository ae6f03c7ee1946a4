"""Start-up times, as ratios to `python -c "import torch"`.

    python benchmarks/startup.py --json benchmarks/results/startup.json

Runs the commands in turns and reports medians and the medians of the ratios within a turn. The first turn warms up.
`--checkout DIR` measures the code in another folder, such as an earlier version.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
PAIR = ("examples/obama-speaking.jpg", "examples/biden.jpg")
COMMANDS = {
    "import torch": ("-c", "import torch"),
    "siamese --help": ("-m", "siamese", "--help"),
    "siamese compare": ("-m", "siamese", "compare", *PAIR),
}


def run(arguments: tuple[str, ...], checkout: Path) -> float:
    """Run Python with these arguments. Returns the seconds until it ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=checkout, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def start_page(checkout: Path) -> float:
    """Start the page. Returns the seconds until it answers a request."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port)}
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=checkout, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}"):
                seconds = time.perf_counter() - began
                process.terminate()
                return seconds
            time.sleep(0.02)
    raise RuntimeError("the page ended before it answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in (*COMMANDS, "page")}
    for turn in range(args.turns + 1):
        seconds = {name: run(arguments, args.checkout) for name, arguments in COMMANDS.items()}
        seconds["page"] = start_page(args.checkout)
        if turn:
            for name, value in seconds.items():
                times[name].append(value)
    torch = times["import torch"]
    result = {
        name: {
            "seconds": round(median(values), 2),
            "ratio": round(median(value / base for value, base in zip(values, torch, strict=True)), 2),
        }
        for name, values in times.items()
    }
    result["cores"] = os.cpu_count()
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
