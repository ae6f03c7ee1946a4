"""Data sets, their split by person, pairs, and memory."""

import errno
import hashlib
import http.server
import itertools
import os
import re
import shutil
import threading
import unicodedata
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from siamese.data import att as att_module
from siamese.data import dataset as dataset_module
from siamese.data import pairs
from siamese.data.att import find_att
from siamese.data.dataset import MAX_PERSON_SHARE, IdentityDataset, load_dataset
from siamese.data.folders import list_people, natural_order

SHAPE = (1, 16, 16)


@pytest.fixture
def people(digits, tmp_path) -> Path:
    """A copy of the digits that a test may change."""
    return Path(shutil.copytree(digits, tmp_path / "people"))


def zip_folder(folder: Path, archive: Path, pattern: str = "*.png") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob(pattern)):
            file.write(path, path.relative_to(folder))
    return archive


# Folders and zip archives


def test_att_has_its_own_test_people(att):
    assert len(att) == 400
    assert att.names == tuple(f"s{n}" for n in range(1, 41))
    training, test = att.split()
    assert test.names == ("s5", "s6", "s7")
    assert (len(training), len(test)) == (370, 30)
    assert att.pixels.nbytes == 4_000_000


def test_att_unpacked_is_the_same_data(att, tmp_path, monkeypatch):
    with zipfile.ZipFile(find_att()) as archive:
        archive.extractall(tmp_path)
    monkeypatch.setenv("SIAMESE_DATA", str(tmp_path))
    assert find_att() == tmp_path / "data" / "faces"
    unpacked = load_dataset(tmp_path, (1, 100, 100))
    assert unpacked.fingerprint() == att.fingerprint()
    assert unpacked.test_names == att.test_names


def test_reads_a_folder_of_classes(digits):
    dataset = load_dataset(digits, SHAPE)
    assert dataset.names == tuple("0123456789")
    assert np.bincount(dataset.identity).tolist() == [8] * 10
    assert dataset.pixels.shape == (80, *SHAPE)
    assert dataset.image(0).shape == SHAPE[1:]


def test_ignores_files_of_the_operating_system(digits, people):
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (people / "3" / name).write_bytes(b"content")
    for name in ("__MACOSX", ".git"):
        (people / name).mkdir()
    (people / "README.txt").write_text("about the digits")
    assert load_dataset(people, SHAPE).fingerprint() == load_dataset(digits, SHAPE).fingerprint()
    shutil.copytree(digits / "0", people / "__init__")
    assert "__init__" in list_people(people).names


def test_all_unusable_images_and_people_are_listed(digits, people, tmp_path):
    (people / "3" / "broken.png").write_bytes(b"broken")
    (people / "4" / "cut.png").write_bytes((people / "4" / "0.png").read_bytes()[:60])
    (people / "5" / "0.png").unlink()
    (people / "5" / "0.png").symlink_to(tmp_path / "annex" / "0.png")
    (people / "loop").symlink_to("loop")
    shutil.copytree(digits / "6", people / "6" / "album")
    (people / "alone").mkdir()
    Image.new("L", (9, 9)).save(people / "alone" / "1.png")
    with pytest.raises(ValueError, match="cannot be used") as error:
        load_dataset(people, SHAPE)
    for text in ("3: broken.png", "4: cut.png", "5: ", "6 holds a folder, album", "alone has 1 image;"):
        assert f"\n  {text}" in str(error.value)


def test_a_folder_that_may_not_be_read_does_not_hide_other_problems(people, monkeypatch):
    (people / "3" / "broken.png").write_bytes(b"broken")
    scandir = os.scandir

    def deny(folder):
        if Path(folder).name == "5":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(ValueError, match="cannot be used") as error:
        load_dataset(people, SHAPE)
    lines = str(error.value).splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["3:", "5"]
    assert os.strerror(errno.EACCES) in lines[1]


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_dataset(tmp_path / "nowhere", SHAPE)
    with pytest.raises(ValueError, match="holds no classes"):
        load_dataset(tmp_path, SHAPE)


def test_a_folder_name_that_is_not_utf8_is_refused(people):
    os.rename(people / "5", os.fsencode(people) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"'caf\\udce9' is not in UTF-8"):
        list_people(people)


def test_the_same_image_in_the_folders_of_different_people_is_noted(people, tmp_path, capsys):
    """Also if it was saved again in another format. Copies within one folder are not noted."""
    load_dataset(people, SHAPE)
    shutil.copy(people / "2" / "1.png", people / "2" / "copy.png")
    load_dataset(people, SHAPE)
    assert capsys.readouterr().err == ""
    shutil.copy(people / "2" / "1.png", people / "7" / "other name.png")
    Image.open(people / "4" / "0.png").save(people / "5" / "0.bmp")
    lines = ["2/1.png, 2/copy.png, 7/other name.png", "4/0.png, 5/0.bmp"]
    for source in (people, zip_folder(people, tmp_path / "people.zip", "*")):
        load_dataset(source, SHAPE)
        assert sorted(capsys.readouterr().err.splitlines()[1:]) == [f"  {line}" for line in lines]
    for file in (people / "0").iterdir():
        shutil.copy(file, people / "1" / f"wrong-{file.name}")
    load_dataset(people, SHAPE)
    assert capsys.readouterr().err.splitlines()[1:][-1] == "  … and 5 more"
    assert load_dataset(people, SHAPE).select("24").path(9) == "4/0.png"


def test_names_do_not_depend_on_how_accents_are_encoded(digits, tmp_path):
    """macOS decomposes accents, and its zip archives do not flag their names as UTF-8."""
    folder = tmp_path / "folder"
    for number, name in enumerate((unicodedata.normalize("NFD", "Zoë"), "José", "ΑΒΓ")):
        shutil.copytree(digits / str(number), folder / name)
        (folder / name / "0.png").rename(folder / name / "été.png")
        (folder / name / "1.png").rename(folder / name / "eve.png")
    archive = tmp_path / "mac.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*.png"):
            name = unicodedata.normalize("NFD", str(path.relative_to(folder)))
            file.write(path, name.encode().decode("cp437"))
    of_folder, of_archive = load_dataset(folder, SHAPE), load_dataset(archive, SHAPE)
    assert of_folder.names == of_archive.names == ("José", "Zoë", "ΑΒΓ")
    assert of_folder.fingerprint() == of_archive.fingerprint()
    shutil.copytree(digits / "4", folder / "Zoë")
    with pytest.raises(ValueError, match="two folders are named Zoë"):
        list_people(folder)


def test_an_image_damaged_in_its_zip_is_named(digits, tmp_path):
    archive = zip_folder(digits, tmp_path / "digits.zip")
    content = bytearray(archive.read_bytes())
    content[60:90] = bytes(30)
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"\n  0: 0\.png"):
        load_dataset(archive, SHAPE)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_all_unusable_images_in_a_zip_are_listed(digits, tmp_path, method):
    """One is damaged, one encrypted, and one compressed by a method that Python does not know."""
    archive = tmp_path / "digits.zip"
    with zipfile.ZipFile(archive, "w", method) as file:
        for path in sorted(digits.rglob("*.png")):
            file.write(path, path.relative_to(digits))
        damaged, encrypted, unknown = file.infolist()[:3]
    content = bytearray(archive.read_bytes())
    content[damaged.header_offset + 50 : damaged.header_offset + 90] = bytes(40)
    first, second, third = (match.start() for match in itertools.islice(re.finditer(b"PK\x01\x02", content), 3))
    assert content[first + 46 :].startswith(b"0/0.png")
    content[second + 8] |= 1
    content[encrypted.header_offset + 6] |= 1
    content[third + 10] = content[unknown.header_offset + 8] = 97
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be used") as error:
        load_dataset(archive, SHAPE)
    names = [line.split(" is ")[0] for line in str(error.value).splitlines()[1:]]
    assert names == ["  0: 0.png", "  0: 1.png", "  0: 2.png"]


def test_a_zip_is_indexed_once(tmp_path):
    """Listing it once per person would take quadratic time. Names that occur twice are used once."""
    archive = tmp_path / "many.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(2000):
            file.writestr(f"all/{number // 2}/{number}.png", b"")
        file.writestr("all/7/", b"")
        for name in ("all/7/", "all/7/15.png"):
            with pytest.warns(UserWarning, match="Duplicate name"):
                file.writestr(name, b"")
    listed, iterdir = [], zipfile.Path.iterdir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.Path, "iterdir", lambda self: listed.append(self) or iterdir(self))
        people = list_people(archive)
    assert (len(people.names), len(people.files), listed) == (1000, 2000, [])
    assert people.names[:3] == ("0", "1", "2")
    assert (people.folders[7] / people.files[15]).read_bytes() == b""


def test_a_hostile_or_incomplete_zip_is_refused(tmp_path):
    archive = tmp_path / "evil.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../evil.txt", "content")
        file.writestr("/tmp/evil.txt", "content")
    with pytest.raises(ValueError, match=r"evil\.zip"):
        load_dataset(archive, SHAPE)
    assert not (tmp_path.parent / "evil.txt").exists()
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(ValueError, match="complete zip"):
        load_dataset(archive, SHAPE)


def test_natural_order_sorts_numbers_by_value():
    assert natural_order(["s10", "s2", "a", "s1b3", "s1b20"]) == ["a", "s1b3", "s1b20", "s2", "s10"]


# The split by person


def test_no_person_and_no_image_is_in_both_training_and_test(att):
    for training, test in [att.split(), *att.folds(5)]:
        assert sorted(training.names + test.names) == sorted(att.names)
        hashes = [
            {hashlib.sha1(side.image(number).tobytes()).digest() for number in range(len(side))}
            for side in (training, test)
        ]
        assert [len(each) for each in hashes] == [len(training), len(test)]
        assert not hashes[0] & hashes[1]


def test_each_person_is_in_one_test_fold(att):
    tested = [name for _, test in att.folds(5) for name in test.names]
    assert sorted(tested) == sorted(att.names)
    assert [len(test.names) for _, test in att.folds(5)] == [8] * 5


def test_the_seed_decides_who_is_held_out(digits):
    dataset = load_dataset(digits, SHAPE)
    training, test = dataset.split(seed=1)
    assert (len(training.names), len(test.names)) == (8, 2)
    assert dataset.split(seed=1)[1].names == test.names
    assert {dataset.split(seed=seed)[1].names for seed in range(9)} != {test.names}


def test_too_few_people_cannot_be_split(digits):
    dataset = load_dataset(digits, SHAPE).select("012")
    with pytest.raises(ValueError, match="at least 4 classes"):
        dataset.split()
    with pytest.raises(ValueError, match="folds"):
        dataset.folds(2)


@pytest.mark.parametrize("names", [("training", "testing"), ("train", "val"), ("Train", "valid", "test")])
def test_folders_named_like_parts_of_a_data_set_split_it(digits, tmp_path, names):
    for person in range(10):
        part = tmp_path / names[person % len(names)]
        part.mkdir(exist_ok=True)
        shutil.copytree(digits / str(person), part / str(person))
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / names[0] / "#recycle").mkdir()
    people = list_people(tmp_path)
    assert people.names == tuple(map(str, range(10)))
    assert people.test_names == {str(person) for person in range(10) if person % len(names)}
    assert people.problems == []


def test_people_named_like_parts_of_a_data_set_are_people(digits, tmp_path):
    for name, number in (("train", 0), ("test", 1)):
        shutil.copytree(digits / str(number), tmp_path / name)
    assert list_people(tmp_path).names == ("test", "train")


def test_a_person_in_training_and_testing_is_refused(digits, tmp_path):
    for side in ("training", "testing"):
        shutil.copytree(digits / "1", tmp_path / side / "1")
    with pytest.raises(ValueError, match="in several of testing, training: 1"):
        list_people(tmp_path)


def test_select_shares_the_pixels(digits):
    dataset = load_dataset(digits, SHAPE)
    selected = dataset.select(["7", "2"])
    assert selected.names == ("2", "7")
    assert selected.pixels is dataset.pixels
    assert np.array_equal(selected.pixels[selected.rows[8:]], dataset.pixels[dataset.identity == 7])
    assert selected.identity.tolist() == [0] * 8 + [1] * 8


def test_selecting_nobody_gives_one_empty_batch():
    dataset = IdentityDataset(torch.zeros(4, 3, 2, 2), np.array([0, 0, 1, 1]), ("a", "b"))
    assert [x.shape for x in dataset.select([]).batches()] == [(0, 3, 2, 2)]


def test_subsample_keeps_whole_people():
    sizes = np.random.default_rng(0).integers(2, 7, 100)
    names = tuple(map(str, range(100)))
    dataset = IdentityDataset(torch.zeros(sizes.sum(), 1, 1, 1), np.repeat(np.arange(100), sizes), names)
    assert dataset.subsample(sizes.sum()) is dataset
    sample = dataset.subsample(200)
    assert 194 <= len(sample) <= 200
    assert np.bincount(sample.identity).tolist() == [sizes[int(name)] for name in sample.names]
    assert sample.names == dataset.subsample(200).names
    assert len(dataset.subsample(1).names) == 2


@pytest.mark.parametrize("largest", range(10))
def test_subsample_limits_the_images_of_one_person(largest):
    sizes = np.full(10, 20)
    sizes[largest] = 5000
    identity = np.repeat(np.arange(10), sizes)
    dataset = IdentityDataset(torch.arange(len(identity)).reshape(-1, 1, 1, 1), identity, tuple("abcdefghij"))
    sample = dataset.subsample(1000)
    assert sample.names == dataset.names
    counts = np.bincount(sample.identity)
    assert counts[largest] == 1000 * MAX_PERSON_SHARE
    assert (np.delete(counts, largest) == 20).all()
    assert np.array_equal(identity[sample.rows], sample.identity)
    assert (np.diff(sample.rows) > 0).all()
    assert np.array_equal(sample.rows, dataset.subsample(1000).rows)


# Pairs


@given(st.lists(st.integers(2, 6), min_size=2, max_size=6), st.integers(0, 2**32), st.randoms())
def test_drawn_pairs_have_the_right_labels(sizes, seed, random):
    identity = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(identity)
    first, second, same = pairs.draw_pairs(identity, 50, np.random.default_rng(seed))
    assert (first != second).all()
    assert np.array_equal(identity[first] == identity[second], same)


def test_drawn_pairs_are_half_genuine_seeded_and_cover_all_pairs():
    identity = np.repeat(np.arange(5), 4)
    drawn = pairs.draw_pairs(identity, 20_000, np.random.default_rng(0))
    assert abs(drawn[2].mean() - 0.5) < 0.02
    assert len(set(zip(drawn[0], drawn[1], strict=True))) == 20 * 19
    again = pairs.draw_pairs(identity, 20_000, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_all_pairs_of_few_images():
    first, second, same = pairs.all_pairs(np.array([0, 1, 0]))
    assert list(zip(first, second, same, strict=True)) == [(0, 1, False), (0, 2, True), (1, 2, False)]


def test_all_pairs_of_many_images_are_a_sample(monkeypatch):
    monkeypatch.setattr(pairs, "MAX_EXHAUSTIVE_IMAGES", 100)
    identity = np.repeat(np.arange(40), 5)
    first, second, same = pairs.all_pairs(identity)
    assert (first < second).all()
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == len(first) <= 5000
    assert np.array_equal(same, identity[first] == identity[second])
    assert same.sum() > 0.98 * 40 * 10  # nearly all of the 400 genuine pairs are among 2,500 draws
    assert (~same).sum() > 2000
    assert all(map(np.array_equal, pairs.all_pairs(identity), (first, second, same)))


# The download of AT&T


class Server:
    """A web server on the loopback interface that answers every request with `content`, announcing `length` bytes."""

    def __init__(self, content: bytes, length: int | None = None):
        length = len(content) if length is None else length

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/at%26t.zip"


@pytest.fixture
def empty_cache(monkeypatch, tmp_path) -> Path:
    """The cache folder of a user who has no data yet."""
    monkeypatch.delenv("SIAMESE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "siamese"


def test_att_is_downloaded_once_and_checked(empty_cache, monkeypatch):
    content = b"the archive" * 10_000
    server = Server(content)
    monkeypatch.setattr(att_module, "ATT_URL", server.url)
    monkeypatch.setattr(att_module, "ATT_SHA256", hashlib.sha256(content).hexdigest())
    assert find_att().read_bytes() == content
    server.server.shutdown()
    assert find_att() == empty_cache / "at&t.zip"


@pytest.mark.parametrize(("content", "length"), [(b"another file", None), (b"too sh", 3_797_060)])
def test_a_wrong_or_short_download_leaves_no_file(empty_cache, monkeypatch, content, length):
    monkeypatch.setattr(att_module, "ATT_URL", Server(content, length).url)
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        find_att()
    assert list(empty_cache.iterdir()) == []


def test_a_failed_download_says_where_to_put_the_file(empty_cache, monkeypatch):
    monkeypatch.setattr(att_module, "ATT_URL", "http://127.0.0.1:9/at%26t.zip")
    with pytest.raises(ConnectionError, match=r"Download http://127\.0\.0\.1:9.* save it as .*at&t\.zip"):
        find_att()


def test_another_file_with_the_name_of_att_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("SIAMESE_DATA", str(tmp_path))
    (tmp_path / "at&t.zip").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the AT&T archive"):
        find_att()


# Memory


def test_data_larger_than_memory_is_mapped_from_a_deleted_file(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    in_memory = load_dataset(digits, SHAPE)
    monkeypatch.setattr(dataset_module, "free_bytes", lambda device: 0)
    mapped = load_dataset(digits, SHAPE)
    assert list((tmp_path / "siamese").iterdir()) == []
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert "(deleted)" in next(line for line in maps if str(tmp_path) in line)
    assert torch.equal(mapped.pixels, in_memory.pixels)
    assert mapped.fingerprint() == in_memory.fingerprint()


def test_a_full_disk_is_reported_before_anything_is_read(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(dataset_module, "free_bytes", lambda device: 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="XDG_CACHE_HOME"):
        load_dataset(digits, SHAPE)


def test_free_bytes_respects_the_container_and_other_processes(monkeypatch, tmp_path):
    cpu, limit = torch.device("cpu"), tmp_path / "memory.max"
    monkeypatch.setattr(dataset_module, "CGROUP_LIMIT", limit)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8000))
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(rss=1000))
    for written, free in (("5000\n", 4000), ("max\n", 8000), ("90000\n", 8000)):
        limit.write_text(written)
        assert dataset_module.free_bytes(cpu) == free // 2
    monkeypatch.setattr(dataset_module, "LOCAL_PROCESSES", 2)
    limit.write_text("5000\n")
    assert dataset_module.free_bytes(cpu) == (5000 - 2 * 1000) // 2 // 2
    limit.unlink()
    assert dataset_module.free_bytes(cpu) == 8000 // 2 // 2


def test_members_of_a_zip_may_start_with_a_dot(digits, tmp_path):
    archive = tmp_path / "digits.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for image in digits.rglob("*.png"):
            member = zipfile.ZipInfo(f"./data/{image.relative_to(digits).as_posix()}")
            file.writestr(member, image.read_bytes())
    assert load_dataset(archive, SHAPE).fingerprint() == load_dataset(digits, SHAPE).fingerprint()
