"""Start-up times, as ratios to `python -c "import torch"`.

    python benchmarks/startup.py --json benchmarks/results/startup.json

Runs the commands in turns and reports medians and the medians of the ratios within a turn. The first turn warms up.
`--checkout DIR` measures the code in another folder, such as an earlier version.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from page_start import start_page

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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in (*COMMANDS, "page")}
    for turn in range(args.turns + 1):
        seconds = {name: run(arguments, args.checkout) for name, arguments in COMMANDS.items()}
        environment = {**os.environ, "GRADIO_SERVER_PORT": str(free_port())}
        seconds["page"] = start_page(sys.executable, args.checkout, environment)
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
