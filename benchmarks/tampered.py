"""What happens with result folders and indexes that somebody changed.

    python benchmarks/tampered.py --json benchmarks/results/tampered.json [--cases 200] [--seed 0]

Hypothesis changes values in config.json and metrics.json, bytes of all files, weights, and values in the database of an
index, or puts something else in the place of a file. A process for each case opens the page with the result folder and
compares two photos, or searches the index and groups its photos. It must answer, or refuse with one sentence, within a
minute of CPU time and with at most 1 GB more memory. tests/test_tampered.py tries a few cases without the page.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import resource
import runpy
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NETWORKS = ("att", "faces", "images")
PAIR = str(EXAMPLES / "edited/obama-blurred.jpg"), str(EXAMPLES / "collins.jpg")
MAX_CPU_SECONDS, MAX_SECONDS, MAX_BYTES = 60, 600, 1_000_000_000
# What a change raises if the change before has left nothing to change.
UNCHANGED = (OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError, RecursionError)
HUGE_FILE = 8_000_000_000
RESULT_FILES = ("config.json", "metrics.json", "model.safetensors")
INDEX_FILES = ("faces.sqlite", "vectors.npy")
COLUMNS = (
    *(("settings", name) for name in ("name", "value")),
    *(("files", name) for name in ("id", "path", "size", "stamp", "sha256", "problem")),
    *(("faces", name) for name in ("row", "file", "number", "x1", "y2", "landmarks", "score", "quality")),
)

# -- Cases -----------------------------------------------------------------------------------------------------------
# A case is a list of changes, and a change is a function of the folder. All of them can be repeated.

Change = Callable[[Path], None]
NUMBERS = st.sampled_from(
    (
        *(0, 1, -1, 2, 0.5, -0.0, 1e-300, 1e-9, 7, 64, 1000, 4096, 10**6, 10**9, 2**31, 2**63, 10**18, 10**400),
        *(1e9, 1e18, 1e38, 1e300, -1e300, float("nan"), float("inf")),
    )
)
TEXTS = st.sampled_from(
    (
        *("", "a", "x" * 100_000, "../../../etc/passwd", "\n# heading", "\x1b[31mred", "<script>", "timm/resnet18"),
        *("onnx", "small", "deep", "tutorial", "\ud800", "\0", "a/../b.jpg", "/etc/passwd", "[[1, 2]]", "null"),
    )
)
VALUES = st.one_of(
    NUMBERS,
    TEXTS,
    st.sampled_from([None, True, False, [], {}, [[]], [0] * 100_000, [1e300] * 10, [["a", "b"]], {"a": {}}]),
    st.lists(NUMBERS, max_size=12),
)


def _paths(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the paths of all values in JSON data; of a list, only the first and the last."""
    parts: Iterable = ()
    if isinstance(value, dict):
        parts = value
    elif isinstance(value, list):
        parts = {0, len(value) - 1} if value else ()
    return [path, *(found for part in parts for found in _paths(value[part], (*path, part)))]


def _set(value: Any, path: tuple, change: Callable[[Any, Any], None]) -> None:
    for part in path[:-1]:
        value = value[part]
    change(value, path[-1])


@st.composite
def changed_values(draw: st.DrawFn) -> Change:
    """Change a value in config.json or metrics.json."""
    name, where, how = draw(st.sampled_from(RESULT_FILES[:2])), draw(st.floats(0, 0.9999)), draw(st.integers(0, 9))
    new = draw(VALUES)

    def apply(folder: Path) -> None:
        values = json.loads(_read(folder / name))
        paths = _paths(values)[1:]
        path = paths[int(where * len(paths))]
        if how == 0:
            _set(values, path, lambda part, key: part.pop(key))
        elif how == 1:
            _set(values, path, lambda part, key: part.update(extra=new) if isinstance(part, dict) else part.append(new))
        elif how == 2:
            _set(values, path, lambda part, key: part.__setitem__(key, part[key] * 1000 if part[key] else new))
        else:
            _set(values, path, lambda part, key: part.__setitem__(key, new))
        (folder / name).write_text(json.dumps(values))

    return apply


# Arguments of a network, which are all in no config.json of these networks.
ARGUMENTS = ("embedding_dim", "nuisance_dim", "reference_norm", "image_size", "whiten", "backbone", "onnx", "template")


@st.composite
def changed_arguments(draw: st.DrawFn) -> Change:
    """Set an argument of the network in config.json."""
    name, new = draw(st.sampled_from(ARGUMENTS)), draw(VALUES)
    if name == "template":
        new = [[draw(NUMBERS), draw(NUMBERS)] for _ in range(5)]
    return lambda folder: _edit(folder / "config.json", {name: new})


def _edit(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(_read(file)) | values))


def _read(file: Path) -> bytes:
    """Read a file, but not what another change has put in its place."""
    if file.is_symlink() or not file.is_file() or file.stat().st_size > 100_000_000:
        raise OSError(f"{file} was replaced")
    return file.read_bytes()


@st.composite
def changed_bytes(draw: st.DrawFn, names: tuple[str, ...]) -> Change:
    """Change, remove or add bytes of a file."""
    name, where, count = draw(st.sampled_from(names)), draw(st.floats(0, 1)), draw(st.sampled_from([1, 4, 100, 10_000]))
    new, early = draw(st.binary(max_size=16)), draw(st.booleans())

    def apply(folder: Path) -> None:
        content = _read(folder / name)
        start = int(where * (min(len(content), 4000) if early else len(content)))
        (folder / name).write_bytes(content[:start] + new + content[start + count :])

    return apply


@st.composite
def changed_weights(draw: st.DrawFn) -> Change:
    """Overwrite weights with one value."""
    where, value = draw(st.floats(0, 0.9)), draw(st.sampled_from([0.0, -1.0, 60000.0, float("nan"), float("inf")]))

    def apply(folder: Path) -> None:
        file = folder / "model.safetensors"
        content = bytearray(_read(file))
        start = 8 + struct.unpack("<Q", content[:8])[0]
        first = start + 2 * int(where * (len(content) - start) / 2)
        size = min(200_000, len(content) - first) // 2
        content[first : first + 2 * size] = struct.pack("<e", value) * size  # in half precision
        file.write_bytes(content)

    return apply


@st.composite
def replaced_files(draw: st.DrawFn, names: tuple[str, ...]) -> Change:
    """Put something else in the place of a file."""
    name = draw(st.sampled_from(names))
    how = draw(st.sampled_from(["missing", "empty", "folder", "pipe", "loop", "link", "huge", "deep", "device"]))

    def apply(folder: Path) -> None:
        file = folder / name
        file.unlink(missing_ok=True)
        if how == "empty":
            file.touch()
        elif how == "folder":
            file.mkdir()
        elif how == "pipe":
            os.mkfifo(file)
        elif how == "loop":
            file.symlink_to(file)
        elif how == "link":
            file.symlink_to("/etc/passwd")
        elif how == "device":
            file.symlink_to("/dev/zero")
        elif how == "huge":
            with file.open("wb") as sparse:
                sparse.truncate(HUGE_FILE)
        elif how == "deep":
            file.write_text('{"calibration":' * 50_000)

    return apply


@st.composite
def changed_rows(draw: st.DrawFn) -> Change:
    """Change values in the database of an index."""
    table, column = draw(st.sampled_from(COLUMNS))
    new, every = draw(st.one_of(NUMBERS, TEXTS, st.binary(max_size=8), st.none())), draw(st.booleans())
    if isinstance(new, int) and abs(new) >= 2**63:
        new = float(min(new, 10**300))
    if isinstance(new, str):
        new = new.encode(errors="replace").decode()

    def apply(folder: Path) -> None:
        _read(folder / "faces.sqlite")
        with contextlib.closing(sqlite3.connect(folder / "faces.sqlite")) as db, contextlib.suppress(sqlite3.Error), db:
            where = "" if every else f" WHERE rowid = (SELECT max(rowid) FROM {table})"
            db.execute(f"UPDATE {table} SET {column} = ?{where}", (new,))

    return apply


@st.composite
def changed_schema(draw: st.DrawFn) -> Change:
    """Put tables, views and settings of another kind into the database of an index."""
    statement = draw(
        st.sampled_from(
            [
                "DROP TABLE faces",
                "DELETE FROM settings",
                "DELETE FROM files",
                "CREATE VIEW more AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
                "CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM faces; END",
                "PRAGMA user_version = 7",
                "PRAGMA journal_mode = WAL",
                "INSERT INTO settings VALUES ('notes', '[1, {}, null]')",
                "INSERT INTO settings VALUES ('notes', '" + "[" * 50_000 + "')",
            ]
        )
    )

    def apply(folder: Path) -> None:
        _read(folder / "faces.sqlite")
        with contextlib.closing(sqlite3.connect(folder / "faces.sqlite")) as db, contextlib.suppress(sqlite3.Error), db:
            db.execute(statement)

    return apply


def result_cases() -> st.SearchStrategy[tuple[str, list[Change]]]:
    """Return (network, changes) of tampered result folders."""
    change = st.one_of(
        *(changed_values(), changed_values(), changed_arguments(), changed_bytes(RESULT_FILES)),
        *(changed_weights(), replaced_files((*RESULT_FILES, "LICENSE", "README.md"))),
    )
    return st.tuples(st.sampled_from(NETWORKS), st.lists(change, min_size=1, max_size=2))


def index_cases() -> st.SearchStrategy[list[Change]]:
    """Return the changes of tampered indexes."""
    change = st.one_of(changed_rows(), changed_schema(), changed_bytes(INDEX_FILES), replaced_files(INDEX_FILES))
    return st.lists(change, min_size=1, max_size=2)


def tamper(folder: Path, changes: Iterable[Change]) -> None:
    """Change a folder. The hash of changed weights is written into config.json, so that they are read."""
    for change in changes:
        with contextlib.suppress(*UNCHANGED):
            change(folder)
    with contextlib.suppress(*UNCHANGED):
        digest = hashlib.sha256(_read(folder / "model.safetensors")).hexdigest()
        _edit(folder / "config.json", {"weights_sha256": digest})


# -- Use -------------------------------------------------------------------------------------------------------------


def open_page(folder: Path) -> None:
    """Build the page with a result folder, and answer as it does."""
    import siamese

    siamese.load(folder, device="cpu")  # raises what app.py says in a sentence, sooner
    os.environ["SIAMESE_WEIGHTS"] = str(folder)
    page = runpy.run_path(str(ROOT / "app.py"))
    answer = page["model"].compare(*PAIR)
    assert "NaN" not in (text := json.dumps(answer.to_dict())), text
    assert "Infinity" not in text, text
    if answer.verdict != "no face":
        uploads = tuple(map(page["Upload"], PAIR))
        page["draw_answer"](page["Kept"](uploads, (None, None), answer), "{}", 0)


def search(place: Path) -> None:
    """Find a person in an index, and group its photos, as on the command line."""
    from siamese import cli

    for command in (["find", PAIR[0], str(place), "--json"], ["group", str(place), "--json"]):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(command)
        if code == 2:
            raise ValueError(said.getvalue().removeprefix("error: ").rstrip("\n"))


def outcome(use: Callable[[Path], None], folder: Path) -> str:
    """Use a folder. Returns "answered", "refused: " with the sentence, or "failed: " with what should not happen."""
    try:
        use(folder)
    except (ValueError, OSError, ImportError, SystemExit) as error:
        text = str(error)
        if error.__class__ in (OSError, FileNotFoundError, PermissionError, ConnectionError, ImportError, SystemExit):
            is_sentence = not getattr(error, "errno", None)  # else it is one of the system
        else:
            is_sentence = isinstance(error, ValueError) and not isinstance(error, UnicodeError)
        if is_sentence and text and "\n" not in text and len(text) < 1000:
            return f"refused: {text}"
        return f"failed: {type(error).__name__}: {text[:300]!r}"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"failed: {type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:{place.lineno})"
    return "answered"


def _run(use: Callable[[Path], None], folder: Path, said: Path) -> None:
    """Run in the process of a case."""
    sys.stdout = sys.stderr = io.StringIO()
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MAX_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS,) * 2)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before, began = _peak(), time.process_time()
    text = outcome(use, folder)
    result = {"outcome": text, "seconds": time.process_time() - began, "gigabytes": (_peak() - before) / 1e9}
    said.write_text(json.dumps(result))


def _peak() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def in_a_process(use: Callable[[Path], None], folder: Path) -> dict[str, Any]:
    """Use a folder in a process of its own, with a limit on time and memory."""
    said = folder.with_name("said")
    said.unlink(missing_ok=True)
    process = FORKS.Process(target=_run, args=(use, folder, said))
    process.start()
    process.join(MAX_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        return {"outcome": f"failed: no answer within {MAX_SECONDS} seconds", "seconds": MAX_SECONDS}
    if not said.is_file():
        return {"outcome": f"failed: the process ended with {process.exitcode}", "seconds": 0}
    return json.loads(said.read_text())


FORKS = multiprocessing.get_context("forkserver")


def try_cases(cases: int, number: int, verbose: bool) -> list[dict[str, Any]]:
    """Try tampered result folders and half as many indexes."""
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary, "cache"))  # for indexes of folders
        import siamese
        from siamese.search.update import update_index

        pristine, copy = Path(temporary, "index"), Path(temporary, "copy")
        update_index(siamese.load(device="cpu"), EXAMPLES / "edited", pristine)
        common_settings = settings(
            database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )

        def one(kind: str, source: Path, changes: list[Change], use: Callable[[Path], None]) -> None:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy)
            tamper(copy, changes)
            results.append({"kind": kind, **in_a_process(use, copy)})
            if verbose or results[-1]["outcome"].startswith("failed"):
                print(len(results), kind, results[-1]["outcome"].replace(str(copy), "FOLDER"), flush=True)

        @seed(number)
        @settings(common_settings, max_examples=cases * 2 // 3)
        @given(result_cases())
        def result_folders(case: tuple[str, list[Change]]) -> None:
            one("result folder", ROOT / "weights" / case[0], case[1], open_page)

        @seed(number)
        @settings(common_settings, max_examples=cases - cases * 2 // 3)
        @given(index_cases())
        def indexes(changes: list[Change]) -> None:
            one("index", pristine, changes, search)

        result_folders()
        indexes()
    return results


def main() -> None:
    import common

    parser = common.parser(__doc__)
    parser.add_argument("--cases", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of Hypothesis (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="print each outcome")
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)  # of the process that forks
    FORKS.set_forkserver_preload(["siamese.checkpoint", "siamese.page.find", "siamese.page.server", "spaces"])
    results = try_cases(args.cases, args.seed, args.verbose)
    kinds = {}
    for kind in ("result folder", "index"):
        rows = [row for row in results if row["kind"] == kind]
        counts = Counter(row["outcome"].split(":")[0] for row in rows)
        kinds[kind] = {
            "cases": len(rows),
            **{name: counts[name] for name in ("answered", "refused", "failed")},
            "most_seconds": round(max(row["seconds"] for row in rows), 1),
            "most_gigabytes": round(max(row.get("gigabytes", 0) for row in rows), 2),
        }
    failed = sorted({row["outcome"] for row in results if row["outcome"].startswith("failed")})
    result = {"seed": args.seed, "kinds": kinds, "failures": failed}
    common.finish(result, args.json, {"each case is answered, or refused with a sentence": not failed})


if __name__ == "__main__":
    main()
