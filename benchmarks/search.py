"""Measure the search in folders: speed, finding people, grouping people, and how time and memory grow.

    python benchmarks/search.py embed find group scale --photos DIR --index INDEX --json benchmarks/results/search.json

DIR is LFW, unpacked: NAME/NAME_0001.jpg. Each step adds its results to the JSON file:

    embed   make INDEX from all photos
    speed   photos a second, beside `Model.embed` of an older version in the folder BASELINE, in turns
    peer    embed all photos with face_recognition, one by one, and keep the result in PEER (an hour); for the next two
    find    for each person with several photos: the first is the portrait, the others are to be found among all
    group   group all photos by person
    scale   time after opening the index, and peak memory, for up to 1,000,000 faces: embeddings of LFW with noise
    plot    draw docs/search.png from the results of `scale`

See search_lfw.py for `peer`, `find` and `group`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from search_lfw import find_people, group_lfw, main_faces, peer

import siamese
from siamese.faces import Face
from siamese.search.embedding import PhotoFaces
from siamese.search.find import embed_portraits, find_embedding
from siamese.search.index import Index
from siamese.search.index_writer import IndexWriter
from siamese.search.people import group_people
from siamese.search.scan import Photo
from siamese.search.strictness import FIND_FMR
from siamese.search.update import update_index

ROOT = Path(__file__).parent.parent
TIMED_PHOTOS, ROUNDS = 240, 5
NOISE = 0.05  # standard deviation in each dimension: two faces made from one embedding are about 0.8 apart
GROUPED, SEARCHED = (10_000, 30_000, 100_000), (10_000, 100_000, 1_000_000)
PORTRAIT = ROOT / "examples" / "biden.jpg"


def embed(args: argparse.Namespace) -> dict:
    began, cpu = time.perf_counter(), time.process_time()
    last = [0.0]

    def show(done: int, total: int) -> None:
        if time.perf_counter() - last[0] > 60:
            last[0] = time.perf_counter()
            print(f"{done} of {total}", flush=True)

    result = update_index(siamese.load(), args.photos, args.index, show)
    assert result
    return {
        "photos": result.photos,
        "embedded": result.embedded,
        "faces": result.faces,
        "without_face": len(result.without_faces),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


# --- speed

BASELINE = """
import sys, time
import siamese
model = siamese.load()
for line in sys.stdin:
    files = line.rstrip("\\n").split("\\t")
    began = time.perf_counter(), time.process_time()
    model.embed(files)
    print(time.perf_counter() - began[0], time.process_time() - began[1], flush=True)
"""
OURS = """
import sys, tempfile, time
from pathlib import Path
import siamese
from siamese.search.strictness import FIND_FMR
from siamese.search.update import update_index
model = siamese.load()
for line in sys.stdin:
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(line.rstrip("\\n").split("\\t")):
            Path(folder, f"{number}.jpg").symlink_to(file)
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter(), time.process_time()
            update_index(model, Path(folder), Path(place))
            print(time.perf_counter() - began[0], time.process_time() - began[1], flush=True)
"""


def speed(args: argparse.Namespace) -> dict:
    files = sorted(map(str, args.photos.resolve().glob("*/*.jpg")))
    files = files[:: len(files) // TIMED_PHOTOS][:TIMED_PHOTOS]
    workers = {}
    for name, code, tree in (("baseline", BASELINE, args.baseline), ("siamese", OURS, ROOT)):
        workers[name] = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
    times: dict[str, list[list[float]]] = {name: [] for name in workers}
    for number in range(-1, ROUNDS):  # the first round is not counted
        part = files[max(number, 0) :: ROUNDS]
        for name, worker in workers.items():
            worker.stdin.write("\t".join(part) + "\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            if number >= 0:
                times[name].append([float(text) / len(part) for text in line.split()])
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    result = {"photos": len(files), "cores": len(os.sched_getaffinity(0))}
    for name, values in times.items():
        wall, cpu = np.median(values, axis=0)
        result[name] = {"photos_per_second": round(1 / wall, 2), "cpu_ms_per_photo": round(1000 * cpu, 1)}
    ratios = np.array(times["baseline"]) / np.array(times["siamese"])
    result["times_faster"], result["times_less_cpu"] = np.median(ratios, axis=0).round(2).tolist()
    return result


# --- scale


def draw(args: argparse.Namespace, count: int) -> np.ndarray:
    """Draw embeddings of LFW with noise: (count, D)."""
    _, z, _ = main_faces(args)
    z, rng = z[~np.isnan(z).any(1)], np.random.default_rng(0)
    drawn = np.empty((count, z.shape[1]), np.float32)
    for start in range(0, count, 10_000):
        part = z[rng.integers(0, len(z), min(10_000, count - start))]
        part = part + NOISE * rng.standard_normal(part.shape, np.float32)
        drawn[start : start + 10_000] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return drawn


def fill(place: Path, z: np.ndarray) -> None:
    """Make an index of these embeddings, with one photo each."""
    landmarks = tuple((50.0 + x, 60.0 + x) for x in range(5))
    face = Face(None, (10.0, 10.0, 90.0, 120.0), landmarks, 0.99, 1.0)
    with IndexWriter(place, siamese.load(device="cpu"), place) as index:
        for start in range(0, len(z), 10_000):
            rows = range(start, min(start + 10_000, len(z)))
            index.add([(Photo(f"{r:07}.jpg", 1, 1, place), PhotoFaces((face,), z[r : r + 1])) for r in rows])
        index.compact()


def rss() -> float:
    """Return the memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def measure(place: str, what: str) -> None:
    """Print the time and the peak memory of a search, in a process of its own."""
    model = siamese.load(device="cpu")
    query, quality, _ = embed_portraits(model, [PORTRAIT])
    before = rss()
    with Index(Path(place), model) as index:
        began, cpu = time.perf_counter(), time.process_time()
        if what == "find":
            find_embedding(model, query, quality, index, FIND_FMR, 20)
        else:
            people = group_people(model, index)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    result = {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "before_mb": round(before),
        "peak_mb": round(peak),
    }
    print(json.dumps(result if what == "find" else {**result, "people": len(people.people)}))


def scale(args: argparse.Namespace) -> dict:
    result: dict = {"find": {}, "group": {}}
    for count in sorted({*GROUPED, *SEARCHED}):
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder, "index"), draw(args, count))
            for what, counts in (("find", SEARCHED), ("group", GROUPED)):
                if count in counts:
                    code = f"import search; search.measure({str(Path(folder, 'index'))!r}, {what!r})"
                    run = [
                        subprocess.run(
                            [sys.executable, "-c", code], cwd=ROOT / "benchmarks", stdout=subprocess.PIPE, check=True
                        )
                        for _ in range(5 if what == "find" else 1)
                    ]
                    result[what][str(count)] = min((json.loads(r.stdout) for r in run), key=lambda r: r["seconds"])
                    print(what, count, result[what][str(count)], flush=True)
    return result


def plot(args: argparse.Namespace) -> dict:
    import matplotlib.pyplot as plt

    result = json.loads(args.json.read_text())["scale"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for what, label in (("find", "find one person"), ("group", "group all")):
        counts = list(map(int, result[what]))
        values = list(result[what].values())
        left.loglog(counts, [value["seconds"] for value in values], "o-", label=label)
        right.loglog(counts, [value["peak_mb"] - value["before_mb"] for value in values], "o-", label=label)
    for axes, title in ((left, "seconds"), (right, "memory above the empty process, MB")):
        axes.set(xlabel="faces", ylabel=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(ROOT / "docs" / "search.png", dpi=110)
    return {}


STEPS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "embed": embed,
    "speed": speed,
    "peer": peer,
    "find": find_people,
    "group": group_lfw,
    "scale": scale,
    "plot": plot,
}


def rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="+", choices=STEPS, metavar="STEP")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    for step in args.steps:
        measured = STEPS[step](args)
        if measured:
            results = json.loads(args.json.read_text()) if args.json.exists() else {}
            results[step] = rounded(measured)
            args.json.write_text(json.dumps(results, indent=1) + "\n")
            print(json.dumps({step: results[step]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
