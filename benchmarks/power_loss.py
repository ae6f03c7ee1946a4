"""What is left of an index after a power loss.

    python benchmarks/power_loss.py --json benchmarks/results/power_loss.json [--states 20] [--seed 0]

Linux only, needs strace. A process makes an index, adds photos, forgets some, adds others, and compacts it; strace
records what it asks of the file system. After each of these calls the power is lost: of all writes, truncations and
deletions that no fsync has made durable, a random part has reached the disk, in each of several states. Each state is
opened. Every face must then have its own embedding, and all photos of finished transactions must be there.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import numpy as np

from siamese.faces import Face
from siamese.search.embedding import PhotoFaces
from siamese.search.index import Index, IndexWriter
from siamese.search.scan import Photo

DIM, PHOTOS = 16, 12  # numbers of an embedding; photos of a batch
SOURCE = Path("/photos")
MODEL: Any = SimpleNamespace(network=SimpleNamespace(embedding_dim=DIM), id="network", fingerprint=lambda: "network")
CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")


def batch(numbers: range) -> list[tuple[Photo, PhotoFaces]]:
    """Return photos with one face each, whose embedding is the number of the photo."""
    photos = [Photo(f"{number}.jpg", number, number, str(SOURCE)) for number in numbers]
    return [(photo, PhotoFaces((Face(None),), np.full((1, DIM), photo.size, np.float32))) for photo in photos]


def write(place: Path) -> None:
    """Make an index and change it. The name of a folder that is made tells what is finished."""
    with IndexWriter(place, MODEL, SOURCE) as index:
        index.add(batch(range(1, 1 + PHOTOS)))
        (place.parent / "1").mkdir()
        index.forget([f"{number}.jpg" for number in range(7, 1 + PHOTOS)])  # the last rows, which the next photos get
        (place.parent / "2").mkdir()
        index.add(batch(range(101, 101 + PHOTOS)))
        (place.parent / "3").mkdir()
        index.forget([f"{number}.jpg" for number in range(1, 6)])  # the first rows, which the last ones move to
        index.compact()
        (place.parent / "4").mkdir()
        index.add(batch(range(201, 201 + PHOTOS)))
        (place.parent / "5").mkdir()


KEPT = [set(), {*range(1, 7)}, {*range(1, 7)}, {6, *range(101, 113)}, {6, *range(101, 113)}, {6, *range(101, 113)}]


class Disk:
    """The files of a folder: what is durable, and what a power loss may undo."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.pending: list[tuple[str, str, int, bytes]] = []  # (file, what, where or length, content)
        self.finished = 0

    def sync(self, file: str) -> None:
        """Make all that was done to a file durable, also that it exists."""
        self.files.setdefault(file, b"")
        for change in [change for change in self.pending if change[0] == file and change[1] != "unlink"]:
            _apply(self.files, change)
        self.pending = [change for change in self.pending if change[0] != file or change[1] == "unlink"]

    def sync_folder(self) -> None:
        """Make it durable that files were made and deleted."""
        for change in [change for change in self.pending if change[1] in ("create", "unlink")]:
            _apply(self.files, change)
        self.pending = [change for change in self.pending if change[1] not in ("create", "unlink")]

    def after_power_loss(self, rng: random.Random) -> dict[str, bytes]:
        """Return the files, with a random part of what is not durable."""
        files, share = dict(self.files), rng.choice([0.0, 0.2, 0.5, 0.8, 1.0])
        for change in self.pending:
            if rng.random() < share:
                _apply(files, change)
        return files


def _apply(files: dict[str, bytes], change: tuple[str, str, int, bytes]) -> None:
    name, what, where, content = change
    if what == "unlink":
        files.pop(name, None)
        return
    old = files.setdefault(name, b"")
    if what == "write":
        old = old.ljust(where, b"\0")
        files[name] = old[:where] + content + old[where + len(content) :]
    elif what == "truncate":
        files[name] = old[:where].ljust(where, b"\0")


def disks(trace: str, place: Path) -> Iterator[Disk]:
    """Yield the disk after each call."""
    disk, places = Disk(), dict[str, int]()
    for line in trace.splitlines():
        if not (found := CALL.match(line)) or found[3].startswith("-"):
            continue
        call, text, result = found[1], found[2], int(found[3])
        if call == "mkdir" and (finished := re.search(rf"{re.escape(str(place.parent))}/(\d)\"", text)):
            disk.finished = int(finished[1])
        elif str(place) not in text + line:
            continue
        name = Path((re.findall(rf"{re.escape(str(place))}(/[^\">]+)?", line) or [""])[-1]).name
        if call == "openat" and "O_CREAT" in text:
            places[name] = 0
            disk.pending.append((name, "create", 0, b""))
            if "O_TRUNC" in text:
                disk.pending.append((name, "truncate", 0, b""))
        elif call == "openat":
            places[name] = 0
        elif call == "lseek":
            places[name] = result
            continue
        elif call in ("write", "pwrite64"):
            content = bytes.fromhex(re.search(r'"((?:\\x[0-9a-f]{2})*)"', text)[1].replace("\\x", ""))  # type: ignore
            where = int(text.rpartition(", ")[2]) if call == "pwrite64" else places[name]
            disk.pending.append((name, "write", where, content))
            if call == "write":
                places[name] = where + len(content)
        elif call == "ftruncate":
            disk.pending.append((name, "truncate", int(text.rpartition(", ")[2]), b""))
        elif call in ("unlink", "unlinkat"):
            disk.pending.append((name, "unlink", 0, b""))
        elif call in ("fsync", "fdatasync"):
            disk.sync_folder() if not name else disk.sync(name)
        yield disk


def look(place: Path, finished: int) -> str:
    """Open an index after a power loss. Returns what is wrong, or nothing."""
    try:
        with Index(place, MODEL) as index:
            found = {int(face.photo.partition(".")[0]): face.row for face in index.faces()}
            rows = {int(row): z for block, values in index.blocks() for row, z in zip(block, values, strict=True)}
    except (FileNotFoundError, ValueError) as error:
        return "" if not finished else f"refused: {str(error).replace(str(place), 'INDEX')}"
    if wrong := [number for number, row in found.items() if not (rows[row] == number).all()]:
        return f"wrong embeddings: {wrong}"
    return f"lost: {lost}" if (lost := KEPT[finished] - found.keys()) else ""


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--states", type=int, default=20, help="after each call (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--write", type=Path, help=f"only write an index here, for {Path(__file__).name} itself")
    args = parser.parse_args()
    if args.write:
        return write(args.write)
    rng, problems, count = random.Random(args.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        place, crashed, log = Path(folder, "index"), Path(folder, "crashed"), Path(folder, "log")
        calls = "openat,lseek,write,pwrite64,ftruncate,unlink,unlinkat,fsync,fdatasync,mkdir"
        strace = ["strace", "-f", "-y", "-s", "10000000", "-e", f"trace={calls}", "-xx", "-o", str(log)]
        subprocess.run([*strace, sys.executable, __file__, "--write", str(place)], check=True)
        trace = re.sub(r"(\"|<)((?:\\x[0-9a-f]{2})+)(>|\")", _readable, log.read_text())
        for disk in disks(trace, place):
            for _ in range(args.states):
                shutil.rmtree(crashed, ignore_errors=True)
                crashed.mkdir()
                for name, content in disk.after_power_loss(rng).items():
                    (crashed / name).write_bytes(content)
                count += 1
                if problem := look(crashed, disk.finished):
                    problems[problem] += 1
    result = {"states": count, "problems": dict(problems.most_common(10)), "with problems": problems.total()}
    common.finish(result, args.json, {"no state has wrong embeddings or lost photos": not problems})


def _readable(found: re.Match[str]) -> str:
    """Return a path that strace wrote as bytes as text; anything else as it is."""
    text = bytes.fromhex(found[2].replace("\\x", "")).decode(errors="replace")
    return f"{found[1]}{text}{found[3]}" if text.startswith("/") and text.isprintable() else found[0]


if __name__ == "__main__":
    main()
