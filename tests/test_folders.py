"""What can go wrong in folders of photos: names, archives, drives, and indexes that somebody changed."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import tracemalloc
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from siamese import find, group, images, load
from siamese import model as networks
from siamese.checkpoint import save
from siamese.files import as_stored
from siamese.search import embedding, storage, update
from siamese.search.index import Index, IndexWriter, default_place
from siamese.search.output import write_folders
from siamese.search.people import People
from siamese.search.scan import Photo, find_photo, scan
from siamese.search.update import update_index

from .command import forks
from .conftest import ROOT
from .test_index import content, same

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses links and pipes")


@pytest.fixture(scope="module")
def model(trained):
    """A small network that compares whole images."""
    return load(trained, device="cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(digits, tmp_path):
    """Twelve images in three folders."""
    folder = tmp_path / "photos"
    for file in sorted(digits.glob("[012]/[0-3].png")):
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.parent.name)
    return folder


@pytest.fixture
def place(tmp_path):
    return tmp_path / "index"


# --- Names and folders


class Entry:
    """An entry of os.scandir as documented for Windows: the inode is 0, and a junction is no symbolic link."""

    inode = 0

    def __init__(self, entry):
        self.entry, self.name, self.path = entry, entry.name, entry.path

    def stat(self, follow_symlinks=True):
        status = self.entry.stat()
        attributes = stat.FILE_ATTRIBUTE_REPARSE_POINT if self.entry.is_symlink() and not follow_symlinks else 0
        return types.SimpleNamespace(
            st_mode=status.st_mode,
            st_ino=self.inode,
            st_dev=self.inode,
            st_size=status.st_size,
            st_mtime_ns=status.st_mtime_ns,
            st_file_attributes=attributes,
        )

    def is_symlink(self):
        return False


@pytest.mark.parametrize("inode", [0, 7])
def test_folders_without_inodes_are_all_read_once(photos, monkeypatch, inode):
    """Simulates Windows, and network drives on which all inodes are the same."""
    (photos / "2021" / "summer").mkdir(parents=True)
    shutil.copy(photos / "0" / "0.png", photos / "2021" / "summer")
    (photos / "2021" / "loop").symlink_to(photos)
    (photos / "again").symlink_to(photos / "1")
    expected = [photo.path for photo in scan(photos).photos]
    assert len(expected) == 13
    scandir = os.scandir
    monkeypatch.setattr(Entry, "inode", inode)
    monkeypatch.setattr(os, "scandir", lambda folder: Entries(scandir(folder)))
    assert [photo.path for photo in scan(photos).photos] == expected


class Entries:
    def __init__(self, entries):
        self.entries = entries

    def __iter__(self):
        return map(Entry, self.entries)

    def close(self):
        self.entries.close()


def test_folders_of_the_system_are_skipped_and_raw_files_counted(photos, model, siamese, trained):
    for name in ("@eaDir/0.png", "#recycle", "$RECYCLE.BIN", "lost+found", "My.photoslibrary/resources", ".cache"):
        shutil.copytree(photos / "0", photos / name)
    shutil.copytree(photos / "1", photos / "My.photoslibrary" / "originals" / "1")
    (photos / "a.NEF").write_bytes(b"raw")
    (photos / "0" / "b.nef").write_bytes(b"raw")
    listing = scan(photos)
    assert len(listing.photos) == 16
    assert (listing.others, listing.raw) == (2, {".NEF": 2})
    run = siamese("embed", photos, "--weights", trained)
    assert "2 RAW files (.NEF)" in run.stdout
    assert "2 RAW files (.NEF)" in siamese("group", photos, "--weights", trained).stdout
    assert any("2 RAW files (.NEF)" in text for text in group(photos, model=model).warnings)


def test_members_of_archives_have_names_of_their_own(digits, tmp_path, model, place):
    names = ("p.png", "./p.png", "/abs.png", "a//b.png", "..\\c.png", "日本.png".encode().decode("cp437"), "p (2).png")
    files = sorted(digits.glob("*/0.png"))[: len(names)]
    (tmp_path / "photos").mkdir()
    with zipfile.ZipFile(tmp_path / "photos" / "all.zip", "w") as archive:
        for name, file in zip(names, files, strict=True):
            archive.writestr(zipfile.ZipInfo(name, (2001, 2, 3, 4, 5, 6)), file.read_bytes())
    expected = ["p.png", "p (2).png", "abs.png", "a/b.png", "c.png", "日本.png", "p (2) (2).png"]
    update_index(model, tmp_path / "photos", place)
    with Index(place, model) as index:
        people = People((tuple(index.faces()),), (), 1.0, None)
        write_folders(people, index.source, tmp_path / "copies", link=False)
    found = content(place, model)
    assert set(found) == {(f"all.zip/{name}", 1) for name in expected}
    for name, file in zip(expected, files, strict=True):
        np.testing.assert_allclose(found[f"all.zip/{name}", 1], model.embed([file])[0], atol=1e-5)
        copy = tmp_path / "copies" / "person-1" / f"all.zip_{name}".replace("/", "_")
        assert copy.read_bytes() == file.read_bytes()
        assert time.localtime(copy.stat().st_mtime)[:6] == (2001, 2, 3, 4, 5, 6)


def test_huge_files_and_members_are_listed(photos, model, place, monkeypatch):
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 30_000_000)
    with (photos / "sparse.png").open("wb") as file:
        file.truncate(20_000_000_000)
    with zipfile.ZipFile(photos / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.png", "w") as member:
            for _ in range(31):
                member.write(bytes(1_000_000))
        for number in range(4):
            with archive.open(f"{number}.png", "w") as member:
                for _ in range(10):
                    member.write(bytes(1_000_000))
    tracemalloc.start()
    result = update_index(model, photos, place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    problems = dict(result.problems)
    assert sorted(problems) == ["bomb.zip/0.png", *(f"bomb.zip/{n}.png" for n in "123"), "bomb.zip/a.png", "sparse.png"]
    assert "30 MB" in problems["sparse.png"]
    assert "30 MB" in problems["bomb.zip/a.png"]
    assert result.faces == 12
    assert peak < 35_000_000  # two copies of one member, and what zipfile joins it from


@pytest.mark.parametrize("is_large", [False, True])
def test_large_files_are_read_one_at_a_time(is_large, photos, model, place, monkeypatch):
    """So that the threads together need no more memory than one of them."""
    reading, most, read = [], [], Photo.read

    def slow(photo):
        reading.append(photo)
        most.append(len(reading))
        time.sleep(0.05)
        reading.remove(photo)
        return read(photo)

    monkeypatch.setattr(Photo, "read", slow)
    monkeypatch.setattr(networks, "PHOTOS_AT_ONCE", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.setattr(embedding, "LARGE_FILE_BYTES", 0 if is_large else 50_000_000)
    assert update_index(model, photos, place).faces == 12
    assert (max(most) == 1) == is_large


# --- Photos that are gone, moved or changed


def test_photos_of_a_drive_that_is_not_mounted_are_kept(photos, model, trained, siamese, digits):
    network = "--weights", trained
    siamese("embed", photos, *network)
    shutil.move(photos / "1", photos.parent / "away")
    (photos / "1").mkdir()
    run = siamese("embed", photos, *network)
    assert "12 photos, 12 images (0 new or changed, 0 deleted" in run.stdout
    assert "1 is empty or missing. Kept in the index: 4 photos" in run.stdout
    found = find(digits / "0" / "0.png", photos, model=model)
    assert found.faces == 12
    assert "Kept in the index: 4 photos" in found.warnings[0]
    (photos / "1").rmdir()
    shutil.move(photos.parent / "away", photos / "1")
    assert "(0 new or changed, 0 deleted" in siamese("embed", photos, *network).stdout
    shutil.move(photos, photos.parent / "drive")
    photos.mkdir()
    run = siamese("embed", photos, *network)
    assert "12 photos, 12 images" in run.stdout
    assert f"{photos} is empty or missing. Kept in the index: 12 photos" in run.stdout
    photos.rmdir()
    run = siamese("find", digits / "0" / "0.png", photos, *network)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    place = default_place(photos, model)
    assert str(place) in run.stderr
    assert "among 12 images" in siamese("find", digits / "0" / "0.png", place, *network).stdout
    photos.mkdir()
    assert "0 photos, 0 images (0 new or changed, 12 deleted" in siamese("embed", photos, "--forget", *network).stdout


def test_deleted_archives_and_photos_are_forgotten(photos, model, place):
    shutil.make_archive(str(photos / "0" / "more"), "zip", photos / "1")
    assert update_index(model, photos, place).faces == 16
    (photos / "0" / "more.zip").unlink()
    (photos / "2" / "0.png").unlink()
    result = update_index(model, photos, place)
    assert (result.forgotten, result.faces, result.notes) == (5, 11, [])


def test_a_damaged_archive_keeps_its_faces(photos, model, place):
    file = Path(shutil.make_archive(str(photos / "all"), "zip", photos / "1"))
    content = file.read_bytes()
    for source, faces in ((file, 4), (photos, 16)):
        shutil.rmtree(place, ignore_errors=True)
        file.write_bytes(content)
        assert update_index(model, source, place).faces == faces
        file.write_bytes(content.replace(b"PK\x01\x02", b"PK\0\0"))  # the list of its members
        if source == file:
            with pytest.raises(ValueError, match="zip archive"):
                update_index(model, source, place)
        else:
            result = update_index(model, source, place)
            assert (result.forgotten, [path for path, _ in result.problems]) == (0, ["all.zip"])
        with Index(place, model) as index:
            assert len(index) == faces


def test_faces_follow_photos_that_are_moved_touched_or_copied(photos, model, place, monkeypatch):
    update_index(model, photos, place)
    before = content(place, model)
    (photos / "1").rename(photos / "moved")
    (photos / "0" / "0.png").rename(photos / "0" / "other.png")
    for number in range(4):
        os.utime(photos / "2" / f"{number}.png", (1, 1))
    result = update_index(model, photos, place)
    assert (result.embedded, result.moved, result.forgotten, result.notes) == (0, 9, 5, [])
    after = content(place, model)
    assert len(after) == 12
    np.testing.assert_array_equal(after["moved/3.png", 1], before["1/3.png", 1])
    np.testing.assert_array_equal(after["0/other.png", 1], before["0/0.png", 1])
    assert update_index(model, photos, place).moved == 0
    for name in ("copy.png", "another.png"):
        shutil.copy(photos / "2" / "0.png", photos / name)
    monkeypatch.setattr(update, "MOVED_AT_ONCE", 1)
    assert update_index(model, photos, place).moved == 2
    np.testing.assert_array_equal(content(place, model)["another.png", 1], before["2/0.png", 1])


def test_numbered_photos_that_move_up_keep_their_own_faces(digits, tmp_path, model, place, monkeypatch):
    """A new first photo takes the name of the second, and so on, also beyond one transaction."""
    monkeypatch.setattr(update, "MOVED_AT_ONCE", 4)
    folder = tmp_path / "photos"
    folder.mkdir()
    files = sorted(digits.glob("*/*.png"))[:13]
    for number, file in enumerate(files[:-1]):
        shutil.copy(file, folder / f"{number:02}.png")
    update_index(model, folder, place)
    for number, file in enumerate([files[-1], *files[:-1]]):
        shutil.copy(file, folder / f"{number:02}.png")
    result = update_index(model, folder, place)
    assert result.embedded + result.moved == 13
    assert result.moved >= 9
    found = content(place, model)
    for number, file in enumerate([files[-1], *files[:-1]]):
        np.testing.assert_allclose(found[f"{number:02}.png", 1], model.embed([file])[0], atol=1e-5)


# --- Indexes


def change(statement: str):
    def tamper(place: Path) -> None:
        with sqlite3.connect(place / "faces.sqlite") as db:
            db.executescript(statement)

    return tamper


def set_vector(value: float):
    def tamper(place: Path) -> None:
        vectors = np.load(place / "vectors.npy", mmap_mode="r+")
        vectors[5] = value
        vectors.flush()

    return tamper


def replace_by(make):
    def tamper(place: Path) -> None:
        (place / "vectors.npy").unlink()
        make(place / "vectors.npy")

    return tamper


ENDLESS = (
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS row, 1 AS file, 1 AS number FROM n"
)
TAMPERED = {
    "a missing setting": change("DELETE FROM settings WHERE name = 'source'"),
    "no settings": change("DELETE FROM settings"),
    "a folder with a zero byte": change("UPDATE settings SET value = 'a' || char(0) WHERE name = 'source'"),
    "a folder of bytes": change("UPDATE settings SET value = x'ff00' WHERE name = 'source'"),
    "notes that are no list": change("INSERT OR REPLACE INTO settings VALUES ('notes', '3')"),
    "notes that are no JSON": change("INSERT OR REPLACE INTO settings VALUES ('notes', '[')"),
    "another database": change("DROP TABLE faces"),
    "an endless view": change(f"DROP TABLE faces; CREATE VIEW faces AS {ENDLESS}"),
    "a trigger": change("CREATE TRIGGER t AFTER INSERT ON faces BEGIN DELETE FROM faces; END"),
    "a face without a file": change("UPDATE faces SET file = 99"),
    "a path of bytes": change("UPDATE files SET path = x'ff' WHERE id = 1"),
    "a size in words": change("UPDATE files SET size = 'many'"),
    "a number in words": change("UPDATE faces SET number = 'one'"),
    "an infinite box": change("UPDATE faces SET x1 = 9e999"),
    "landmarks that are no JSON": change("UPDATE faces SET landmarks = '['"),
    "landmarks that are nested": change(f"UPDATE faces SET landmarks = '{'[' * 9000}'"),
    "too few landmarks": change("UPDATE faces SET landmarks = '[[1, 2]]', x1 = 1, x2 = 1, y1 = 1, y2 = 1, score = 1"),
    "landmarks without a box": change("UPDATE faces SET landmarks = '[[1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]'"),
    "a quality in words": change("UPDATE faces SET quality = 'good'"),
    "a row after the end": change("UPDATE faces SET row = 9000000000000000000 WHERE row = 3"),
    "a row before the start": change("UPDATE faces SET row = -3 WHERE row = 3"),
    "an embedding of NaN": set_vector(np.nan),
    "an infinite embedding": set_vector(np.inf),
    "a huge embedding": set_vector(3e38),
    "no embeddings": lambda place: (place / "vectors.npy").unlink(),
    "embeddings from a pipe": replace_by(os.mkfifo),
    "embeddings from a device": replace_by(lambda file: file.symlink_to("/dev/zero")),
    "embeddings in a folder": replace_by(os.mkdir),
    "a journal that is a pipe": lambda place: os.mkfifo(place / "faces.sqlite-journal"),
    "a log that is a link": lambda place: (place / "faces.sqlite-wal").symlink_to("/dev/zero"),
    "text": lambda place: (place / "faces.sqlite").write_bytes(b"not a database" * 1000),
    "nothing": lambda place: (place / "faces.sqlite").write_bytes(b""),
    "another owner": lambda place: os.chown(place / "vectors.npy", 12345, -1),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_index_that_somebody_changed_is_refused(name, photos, model, place, tmp_path):
    if name == "another owner" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    update_index(model, photos, place)
    TAMPERED[name](place)
    before = {file: file.read_bytes() for file in place.iterdir() if stat.S_ISREG(file.lstat().st_mode)}
    for search in (lambda: find(photos / "0" / "0.png", place, model=model), lambda: group(place, model=model)):
        with pytest.raises((ValueError, OSError)) as raised:
            search()
        assert str(place) in str(raised.value)
        assert "\n" not in str(raised.value)
        assert type(raised.value) in (ValueError, OSError)
    assert {file: file.read_bytes() for file in before} == before
    assert len(list(photos.glob("*/*.png"))) == 12


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "passwd", "0/.hidden.png", "0//0.png", "a\\..\\b", ""]
)
def test_paths_of_a_hostile_index_are_not_followed(path, photos, model, place, tmp_path):
    shutil.copy(photos / "0" / "0.png", tmp_path / "secret.png")
    update_index(model, photos, place)
    with sqlite3.connect(place / "faces.sqlite") as db:
        db.execute("UPDATE files SET path = ? WHERE path = '0/0.png'", (path,))
        if path == "passwd":
            db.execute("UPDATE settings SET value = '/etc' WHERE name = 'source'")
    with Index(place, model) as index:
        with pytest.raises(ValueError, match="not the path of a photo"):
            find_photo(index.source, path)
        people = People((tuple(index.faces()),), (), 1.0, None)
        with pytest.raises(ValueError, match="not the path of a photo"):
            write_folders(people, index.source, tmp_path / "out", link=False)
    assert not (tmp_path / "out").exists()


def test_only_the_user_can_read_an_index(photos, model, place):
    place.mkdir(mode=0o755)
    umask = os.umask(0)
    try:
        update_index(model, photos, place)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()} == {0o600}


NO_LOCKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
static int go(const char *n, int fd, int cmd, void *a) {
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, n);
    if (cmd == F_SETLK || cmd == F_SETLKW) { errno = ERROR; return -1; }
    return real(fd, cmd, a);
}
#define ARGUMENT va_list l; va_start(l, cmd); void *a = va_arg(l, void *)
int fcntl(int fd, int cmd, ...) { ARGUMENT; return go("fcntl", fd, cmd, a); }
int fcntl64(int fd, int cmd, ...) { ARGUMENT; return go("fcntl64", fd, cmd, a); }
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler")
@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP"])
def test_drive_without_locks_is_named(error, photos, trained, tmp_path):
    """As on some NFS and CIFS drives."""
    (tmp_path / "no_locks.c").write_text(NO_LOCKS)
    library = tmp_path / "no_locks.so"
    command = ["cc", f"-DERROR={error}", "-shared", "-fPIC", "-o", library, tmp_path / "no_locks.c", "-ldl"]
    subprocess.run(command, check=True)
    command = [sys.executable, "-m", "siamese", "embed", photos, "--weights", trained]
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "no file locks" in run.stderr
    assert "--out" in run.stderr


def test_a_drive_without_permissions_takes_indexes_and_networks(photos, model, place, tmp_path, monkeypatch):
    """Simulates some network drives and FAT, which refuse to change permissions."""

    def refuse(*arguments):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    update_index(model, photos, place)
    save(tmp_path / "network", model.network, model.calibration, model.template, model.record)
    with Index(place, load(tmp_path / "network", device="cpu")) as index:
        assert len(index) == 12


def test_places_that_cannot_be_written_are_named(photos, trained, siamese, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    run = siamese("embed", photos, "--weights", trained)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "XDG_CACHE_HOME" in run.stderr
    assert "disk full" not in run.stderr


def test_indexes_are_listed_and_deleted(photos, model, trained, siamese, tmp_path, monkeypatch):
    network = "--weights", trained
    other = tmp_path / "other"
    shutil.copytree(photos / "0", other)
    for folder in (photos, other):
        siamese("embed", folder, *network)
    shutil.rmtree(other)
    lines = siamese("index").stdout.splitlines()
    assert [line.startswith(f"{other} (not there), 0.") for line in lines] == [True, False]
    with IndexWriter(default_place(other, model), model, other):
        assert siamese("index", "--forget", default_place(other, model)).returncode == 2
        # Without file locks nobody can use it, so it is no reason to wait.
        monkeypatch.setattr(storage, "has_locks", lambda folder: False)
        assert [index.problem for index in storage.stored_indexes()] == ["damaged", ""]
    assert siamese("index", "--forget", other).returncode == 0
    assert not default_place(other, model).exists()
    (default_place(photos, model) / "notes.txt").write_text("of the user")
    assert siamese("index", "--forget", default_place(photos, model)).returncode == 0
    assert [file.name for file in default_place(photos, model).iterdir()] == ["notes.txt"]
    run = siamese("index")
    assert (run.returncode, run.stdout, run.stderr.count(str(tmp_path))) == (0, "", 1)
    blocked = tmp_path / "cache" / "siamese" / "indexes" / "a-blocked-one"  # of another version, and not in use
    blocked.mkdir()
    sqlite3.connect(blocked / "faces.sqlite").execute("CREATE TABLE other (value)").connection.close()
    assert "damaged" in siamese("index").stdout
    assert siamese("index", "--forget", blocked).returncode == 0
    assert not blocked.exists()
    run = siamese("index", "--forget", photos)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert len(list(photos.glob("*/*.png"))) == 12


def test_folder_with_a_long_name_has_an_index(digits, tmp_path, model, siamese):
    folder = tmp_path / ("é" * 125)
    shutil.copytree(digits / "0", folder)
    assert update_index(model, folder).faces == 8


# --- Copies


def everyone(place, model) -> tuple[People, Path]:
    with Index(place, model) as index:
        return People((tuple(index.faces()),), (), 1.0, None), index.source


@pytest.mark.parametrize("link", [False, True])
def test_no_photo_is_lost_among_copies_and_links(digits, tmp_path, model, place, link):
    folder = tmp_path / "photos"
    deep = "/".join(["x" * 120] * 3)
    names = ("2019/a/IMG.png", "2019/a_IMG.png", "2019_a_IMG.png", "2019_A_img.png", f"{deep}.png", f"{deep[:-1]}y.png")
    files = sorted(digits.glob("*/0.png"))
    for name, file in zip(names, files, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / name)
        os.utime(folder / name, (978_307_200, 978_307_200))
    update_index(model, folder, place)
    write_folders(*everyone(place, model), tmp_path / "out", link=link)
    copies = list((tmp_path / "out" / "person-1").iterdir())
    assert sorted(copy.read_bytes() for copy in copies) == sorted(file.read_bytes() for file in files[: len(names)])
    assert len({copy.name.casefold() for copy in copies}) == len(names)
    assert {copy.is_symlink() for copy in copies} == {link}
    assert {copy.stat().st_mtime for copy in copies} == {978_307_200}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("out")) == ["out"]


@pytest.mark.parametrize("link", [False, True])
def test_no_photo_is_lost_where_more_names_are_equal(photos, model, place, tmp_path, monkeypatch, link):
    """Simulates ext4 with casefold, which ignores characters that are not shown, such as the one for color emoji."""

    def shown(name):
        return name.replace("\ufe0f", "")

    names = "\u2764.png", "\u2764\ufe0f.png", "\u2764\ufe0f\ufe0f.png"
    for file, name in zip(sorted((photos / "0").iterdir()), names, strict=False):
        file.rename(photos / "0" / name)
    update_index(model, photos, place)

    def create(do):
        def only_new(path, *arguments):
            if shown(path.name) in map(shown, os.listdir(path.parent)):
                raise FileExistsError(17, "File exists")
            return do(path, *arguments)

        return only_new

    people = everyone(place, model)
    open_file = Path.open
    new_file = create(open_file)
    monkeypatch.setattr(Path, "symlink_to", create(Path.symlink_to))
    monkeypatch.setattr(Path, "open", lambda path, mode: (new_file if mode == "xb" else open_file)(path, mode))
    write_folders(*people, tmp_path / "out", link=link)
    copies = list((tmp_path / "out" / "person-1").iterdir())
    assert len({shown(copy.name) for copy in copies}) == 12
    assert sorted(map(Path.read_bytes, copies)) == sorted(map(Path.read_bytes, photos.glob("*/*.png")))


def test_a_folder_has_one_index_in_any_letter_case(photos, model, siamese, trained, tmp_path, monkeypatch):
    """Simulates macOS, where `PHOTOS` opens `photos`, and its path does not tell."""
    update_index(model, photos)
    exists = Path.exists

    def any_case(path):
        return exists(path) or (exists(path.parent) and path.name.lower() in map(str.lower, os.listdir(path.parent)))

    monkeypatch.setattr(Path, "exists", any_case)
    other = tmp_path / "PHOTOS"
    again = update_index(model, other)
    assert (again.index, again.embedded, again.photos) == (default_place(photos, model), 0, 12)
    with pytest.raises(ValueError, match="inside the folder"):
        write_folders(People((), (), 1.0, None), photos, other / "out", link=False)
    assert [index.source for index in storage.forget_indexes(other)] == [photos]
    assert as_stored(tmp_path / "new" / "a") == tmp_path / "new" / "a"
    (tmp_path / "Photos").mkdir()  # and no other folder is taken where letter case counts
    assert as_stored(other) == other


def test_photos_that_are_not_where_they_were_are_named_and_nothing_is_written(
    photos, model, place, tmp_path, siamese, trained
):
    update_index(model, photos, place)
    (photos / "1").rename(photos / "moved")
    (tmp_path / "out").mkdir()
    for link in (False, True):
        with pytest.raises(FileNotFoundError, match="not where it was: 4 photos"):
            write_folders(*everyone(place, model), tmp_path / "out", link=link)
    assert list((tmp_path / "out").iterdir()) == []
    html = tmp_path / "found.html"
    run = siamese("find", photos / "0" / "0.png", place, "--html", html, "--weights", trained)
    assert run.returncode == 0
    assert "not where it was: 4 photos" in run.stderr


def test_links_that_the_system_refuses_are_one_sentence(photos, model, place, tmp_path, monkeypatch):
    """Simulates Windows, where only some users may make links."""
    update_index(model, photos, place)

    def refuse(*arguments):
        raise OSError(22, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(OSError, match=r"privilege is not held.*--copy"):
        write_folders(*everyone(place, model), tmp_path / "out", link=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


# --- What is shown


def test_control_characters_in_names_do_not_reach_the_terminal(photos, trained, siamese, digits, tmp_path):
    forged = "\x1b[2K\n  match  over 99.9%  0.000  b.png"
    shutil.copy(photos / "0" / "0.png", photos / forged)
    (photos / "\x1b]0;title\x07.png").write_bytes(b"no image")
    network = "--weights", trained
    runs = [
        siamese("embed", photos, *network),
        siamese("find", digits / "0" / "0.png", photos, *network),
        siamese("group", photos, *network),
        siamese("compare", photos / "\x1b]0;title\x07.png", digits / "0" / "0.png", *network),
    ]
    for run in runs:
        output = run.stdout + run.stderr
        assert "\x1b" not in output
        assert "\x07" not in output
        assert not any(line.startswith("  match  over 99.9%  0.000  b.png") for line in output.splitlines())
        assert r"\x1b" in output
    files = tmp_path / "found.html", tmp_path / "people.csv"
    siamese("find", digits / "0" / "0.png", photos, "--html", files[0], *network)
    siamese("group", photos, "--csv", files[1], *network)
    for file in files:
        assert r"\x1b[2K\n  match" in file.read_text("utf-8")
        assert "\x1b" not in file.read_text("utf-8")


def test_no_file_of_the_user_is_overwritten(photos, trained, siamese, tmp_path):
    """It is said before the photos are read."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nothing")
    (tmp_path / "pairs.csv").write_text(f"{photos}/0/0.png,{photos}/0/1.png\n")
    portrait, network = photos / "0" / "0.png", ("--weights", trained)
    for command in (
        ("find", portrait, photos, "--html"),
        ("group", photos, "--csv"),
        ("group", photos, "--copy"),
        ("group", photos, "--link"),
        ("embed", photos, "--out"),
        ("compare", "--pairs", tmp_path / "pairs.csv", "--csv"),
    ):
        for name in ("pairs.csv", "folder", "gone.csv", "none/out"):
            if command[-1] not in ("--html", "--csv") and name in ("gone.csv", "none/out"):
                continue  # a folder is made with its parents
            run = siamese(*command, tmp_path / name, *network)
            assert (run.returncode, run.stderr.count("\n"), run.stdout) == (2, 1, "")
            assert str(tmp_path / name) in run.stderr
    assert not (tmp_path / "cache").exists()
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "gone.csv", "pairs.csv", "photos"]


def test_photos_that_cannot_be_read_are_in_every_answer(photos, model, trained, siamese, digits):
    (photos / "bad.png").write_bytes(b"no image")
    network, portrait = ("--weights", trained), digits / "0" / "0.png"
    assert "bad.png" in siamese("find", portrait, photos, *network).stdout
    assert "bad.png" in siamese("group", photos, *network).stdout
    for answer in (siamese("find", portrait, photos, "--json", *network), siamese("group", photos, "--json", *network)):
        assert any("bad.png" in text for text in json.loads(answer.stdout)["warnings"])
    files = [photos / "0" / "0.png", photos / "bad.png", photos / "nope.png"]
    for answer in (find(portrait, files, model=model), group(files, model=model)):
        assert [("bad.png" in text, "nope.png" in text) for text in answer.warnings] == [(True, False), (False, True)]


# --- Runs that are killed


def run_killed(action: str, count: int | None, place: Path, photos: Path, trained: Path, target: Path, calls) -> None:
    """Count the Python calls of an action in the code of the search, and kill this process at the one with a number."""
    model, done = load(trained, device="cpu"), 0

    def watch(frame, event, argument):
        nonlocal done
        if "/siamese/search/" in frame.f_code.co_filename:
            done += 1
            if done == count:
                os.kill(os.getpid(), signal.SIGKILL)

    people = None if action == "embed" else everyone(place, model)
    sys.setprofile(watch)
    if people is None:
        update_index(model, photos, place)
    else:
        write_folders(*people, target, link=action == "link")
    sys.setprofile(None)
    calls.put(done)


@pytest.mark.parametrize("action", ["embed", "copy", "link"])
@pytest.mark.parametrize("places", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_lose_nothing(action, places, photos, model, trained, tmp_path):
    """At random places: the index equals a fresh one after the next run, and copies are complete or not there."""

    def start(count: int | None, place: Path, target: Path):
        calls = forks.SimpleQueue()
        process = forks.Process(target=run_killed, args=(action, count, place, photos, trained, target, calls))
        process.start()
        process.join(120)
        assert process.exitcode == (0 if count is None else -signal.SIGKILL)
        return calls

    before = {file: file.read_bytes() for file in photos.rglob("*.png")}
    update_index(model, photos, tmp_path / "expected")
    expected, (people, source) = content(tmp_path / "expected", model), everyone(tmp_path / "expected", model)
    total = start(None, tmp_path / ("first" if action == "embed" else "expected"), tmp_path / "out-first").get()
    for number, count in enumerate(np.random.default_rng(places).integers(1, total + 1, places)):
        place, target = tmp_path / f"index-{number}", tmp_path / f"out-{number}"
        start(int(count), place if action == "embed" else tmp_path / "expected", target)
        if action == "embed":
            update_index(model, photos, place)
            assert same(content(place, model), expected)
            continue
        if not target.exists():
            write_folders(people, source, target, link=action == "link")
        copies = [copy.read_bytes() for copy in (target / "person-1").iterdir()]
        assert sorted(copies) == sorted(before.values())
    assert {file: file.read_bytes() for file in photos.rglob("*.png")} == before
