"""How long after `python app.py` the page gives its first answer, and how much memory it has taken by then.

    python benchmarks/first_answer.py --json benchmarks/results/first_answer.json

The median of five starts, as a newcomer's second start would be: files in the system's cache, bytecode compiled.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

from gradio_client import Client, handle_file

ROOT = Path(__file__).parent.parent
PAIR = [handle_file(ROOT / "examples" / name) for name in ("biden.jpg", "collins.jpg")]
PORT = "7997"
ADDRESS = f"http://127.0.0.1:{PORT}"


def start() -> tuple[float, float]:
    """Return the seconds to the first answer and the server's resident memory then, in MB."""
    environment = {**os.environ, "GRADIO_SERVER_PORT": PORT}
    started = time.perf_counter()
    server = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            assert server.poll() is None, "app.py ended instead of serving"
            try:
                urllib.request.urlopen(ADDRESS).close()
                break
            except OSError:
                time.sleep(0.05)
        Client(ADDRESS, verbose=False).predict(*PAIR, api_name="/compare")
        seconds = time.perf_counter() - started
        status = Path(f"/proc/{server.pid}/status").read_text()
        return seconds, int(status.partition("VmRSS:")[2].split()[0]) / 1000
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seconds, megabytes = zip(*(start() for _ in range(5)), strict=True)
    result = {"seconds": round(median(seconds), 1), "resident_mb": round(median(megabytes)), "cores": os.cpu_count()}
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
