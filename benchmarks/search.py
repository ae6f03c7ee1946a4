"""Measure the search in folders: speed, finding people, grouping people, and how time and memory grow.

    python benchmarks/search.py embed find group scale --photos DIR --index INDEX --json benchmarks/results/search.json

DIR is LFW, unpacked: NAME/NAME_0001.jpg. Each step adds its results to the JSON file:

    embed   make INDEX from all photos
    peer    embed all photos with face_recognition, one by one, and keep the result in PEER (an hour); for the next two
    find    for each person with several photos: the first is the portrait, the others are to be found among all
    group   group all photos by person
    scale   time after opening the index, and peak memory, for up to 1,000,000 faces: embeddings of LFW with noise
    plot    draw docs/search.png from the results of `scale`

See search_lfw.py for `peer`, `find` and `group`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
from search_lfw import find_people, group_lfw, main_faces, peer

import siamese
from siamese.faces import Face
from siamese.faces.detection import Detection
from siamese.search.embedding import PhotoFaces
from siamese.search.find import find
from siamese.search.index import Index, IndexWriter
from siamese.search.people import group
from siamese.search.scan import Photo
from siamese.search.update import update_index

PHOTOS = 13_233  # of LFW
NOISE = 0.05  # standard deviation in each dimension: two faces made from one embedding are about 0.8 apart
GROUPED, SEARCHED = (10_000, 30_000, 100_000), (10_000, 100_000, 1_000_000)
PORTRAIT = common.EXAMPLES / "biden.jpg"


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
    face = Face(None, Detection((10.0, 10.0, 90.0, 120.0), landmarks, 0.99), 1.0)
    with IndexWriter(place, siamese.load(device="cpu"), place) as index:
        for start in range(0, len(z), 10_000):
            rows = range(start, min(start + 10_000, len(z)))
            index.add([(Photo(f"{r:07}.jpg", 1, 1, str(place)), PhotoFaces((face,), z[r : r + 1])) for r in rows])


def memory(name: str) -> float:
    """Return the memory of this process in MB: "VmRSS" now, or "VmHWM" at its peak."""
    # The peak of `resource.getrusage` includes that of the process that started this one.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


def measure(place: str, what: str) -> None:
    """Print the time and the peak memory of a search, for `measure_alone`."""
    model = siamese.load(device="cpu")
    model.compare(PORTRAIT, PORTRAIT)  # loads the detector
    before = memory("VmRSS")
    with Index(Path(place), model) as index:
        began, cpu = time.perf_counter(), time.process_time()
        if what == "find":
            find(PORTRAIT, index, model=model)
        else:
            people = group(index, model=model)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = memory("VmHWM")
    result = {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "before_mb": round(before),
        "peak_mb": round(peak),
    }
    print(json.dumps(result if what == "find" else {**result, "people": len(people.people)}))


def measure_alone(place: Path, what: str) -> dict:
    """Run `measure` in a process of its own."""
    command = [sys.executable, "-c", f"import search; search.measure({str(place)!r}, {what!r})"]
    folder = common.ROOT / "benchmarks"
    return json.loads(subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout)


def scale(args: argparse.Namespace) -> dict:
    result: dict = {"find": {}, "group": {}}
    for count in sorted({*GROUPED, *SEARCHED}):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "index")
            fill(place, draw(args, count))
            if count in SEARCHED:
                runs = [measure_alone(place, "find") for _ in range(5)]
                result["find"][str(count)] = min(runs, key=lambda run: run["seconds"])
            if count in GROUPED:
                result["group"][str(count)] = measure_alone(place, "group")
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
    figure.savefig(common.ROOT / "docs" / "search.png", dpi=110)
    return {}


STEPS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "embed": embed,
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


def promises(results: dict) -> dict[str, bool]:
    """Check the results that there are."""
    promises = {}
    if embed := results.get("embed"):
        promises["all photos of LFW were embedded"] = embed["photos"] == PHOTOS
    if find := results.get("find"):
        recall, peer = (find[name]["recall_at_1"] for name in ("siamese", "face_recognition"))
        more = {rate: find["rates"][rate]["with_more_than_announced"] for rate in ("0.1", "0.01")}
        promises |= {
            "all faces of LFW were searched": find["faces"] + 1 == PHOTOS,
            "5% more portraits than face_recognition find their person first": recall > peer + 0.05,
            "false matches are at most twice as frequent as announced": all(
                share < 2 * float(rate) for rate, share in more.items()
            ),
            "announced probabilities are right within 6%": all(
                abs(part["same"] - part["announced"]) <= 0.06 for part in find["probability"]
            ),
        }
    if group := results.get("group"):
        ours, peers = group["siamese"]["0.3"], group["face_recognition"].values()
        promises |= {
            "all photos of LFW were grouped": group["photos"] == PHOTOS,
            "an F above that of face_recognition by 4%": ours["f"] > max(peer["f"] for peer in peers) + 0.04,
            "as many groups as people, within 5%": abs(ours["groups"] / group["people"] - 1) < 0.05,
        }
    if scale := results.get("scale"):
        grouped, searched = scale["group"]["100000"], scale["find"]["1000000"]
        promises |= {
            "100,000 faces are grouped in 15 minutes and 1.5 GB": grouped["seconds"] < 900
            and grouped["peak_mb"] < 1500,
            "1,000,000 faces are searched in a second and 300 MB": searched["seconds"] < 1
            and searched["peak_mb"] - searched["before_mb"] < 300,
        }
    return promises


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("steps", nargs="+", choices=STEPS, metavar="STEP")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--peer", type=Path, help="without it, the results of face_recognition stay")
    args = parser.parse_args()
    results = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    for step in args.steps:
        if measured := STEPS[step](args):
            results[step] = results.get(step, {}) | rounded(measured)
        common.finish(results, args.json, promises(results))


if __name__ == "__main__":
    main()
