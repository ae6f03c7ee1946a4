import hashlib
import http.server
import itertools
import os
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

from siamese.data import dataset as data
from siamese.data import folders
from siamese.data import sources as datasets
from siamese.evaluation import pairs
from siamese.training import trainer as loop
from siamese.training.config import TrainConfig

SHAPE = (1, 100, 100)


def test_reads_the_seeds_archive_and_split(att):
    assert len(att) == 400
    assert att.names == tuple(f"s{n}" for n in range(1, 41))
    training, test = att.split()
    assert test.names == ("s5", "s6", "s7")
    assert len(training.names) == 37
    assert (len(training), len(test)) == (370, 30)
    assert att.pixels.nbytes == 4_000_000


def test_nobody_is_on_both_sides(att):
    for training, test in [att.split(), *att.folds(5)]:
        assert not set(training.names) & set(test.names)
        assert len(training.names) + len(test.names) == 40
        hashes = [
            {hashlib.sha1(side.picture(number).tobytes()).digest() for number in range(len(side))}
            for side in (training, test)
        ]
        assert [len(of_side) for of_side in hashes] == [len(training), len(test)]
        assert not hashes[0] & hashes[1]


def test_each_person_is_tested_in_one_fold(att):
    tested = [name for _, test in att.folds(5) for name in test.names]
    assert sorted(tested) == sorted(att.names)
    assert [len(test.names) for _, test in att.folds(5)] == [8] * 5


def test_a_zip_and_its_unpacked_folder_are_the_same_data(att, tmp_path):
    with zipfile.ZipFile(datasets.find_att()) as archive:
        archive.extractall(tmp_path)
    unpacked = data.load(tmp_path, SHAPE)
    assert unpacked.fingerprint() == att.fingerprint()
    assert unpacked.test_names == att.test_names


def test_finds_att_unpacked(att, tmp_path, monkeypatch):
    with zipfile.ZipFile(datasets.find_att()) as archive:
        archive.extractall(tmp_path)
    monkeypatch.setenv("SIAMESE_DATA", str(tmp_path))
    assert datasets.find_att() == tmp_path / "data" / "faces"


def test_names_a_picture_that_is_damaged_inside_its_zip(digits, tmp_path):
    archive = tmp_path / "digits.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(digits.rglob("*.png")):
            file.write(path, path.relative_to(digits))
    content = bytearray(archive.read_bytes())
    content[60:90] = bytes(30)
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"0: 0\.png is damaged inside its zip"):
        data.load(archive, SHAPE)


def test_reads_any_folder_of_classes(digits):
    dataset = data.load(digits, SHAPE)
    assert dataset.names == tuple("0123456789")
    assert np.bincount(dataset.identity).tolist() == [8] * 10
    training, test = dataset.split(seed=1)
    assert (len(training.names), len(test.names)) == (8, 2)
    assert dataset.split(seed=1)[1].names == test.names
    assert {dataset.split(seed=s)[1].names for s in range(9)} != {test.names}


def test_only_keeps_pixels_with_their_people(digits):
    dataset = data.load(digits, SHAPE)
    some = dataset.select(["7", "2"])
    assert some.names == ("2", "7")
    assert np.array_equal(some.pixels[some.rows[8:]], dataset.pixels[dataset.identity == 7])
    assert some.pixels is dataset.pixels
    assert some.identity.tolist() == [0] * 8 + [1] * 8


@given(st.lists(st.integers(2, 6), min_size=2, max_size=6), st.integers(0, 2**32), st.randoms())
def test_pairs_are_true_to_their_labels(sizes, seed, random):
    identity = np.repeat(np.arange(len(sizes)), sizes)
    random.shuffle(identity)
    first, second, same = pairs.draw_pairs(identity, 50, np.random.default_rng(seed))
    assert (first != second).all()
    assert np.array_equal(identity[first] == identity[second], same)


def test_pairs_are_half_genuine_seeded_and_reach_everything():
    identity = np.repeat(np.arange(5), 4)
    drawn = pairs.draw_pairs(identity, 20_000, np.random.default_rng(0))
    assert abs(drawn[2].mean() - 0.5) < 0.02
    assert len(set(zip(drawn[0], drawn[1], strict=True))) == 20 * 19
    again = pairs.draw_pairs(identity, 20_000, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_all_pairs_are_all_pairs():
    first, second, same = pairs.all_pairs(np.array([0, 1, 0]))
    assert list(zip(first, second, same, strict=True)) == [(0, 1, False), (0, 2, True), (1, 2, False)]


@pytest.mark.parametrize("names", ["abcdef", "abc"])
def test_the_confused_are_those_whose_pairs_are_too_close(names):
    """Counted couple by couple; of six people there are 15 couples, of which ten are told, of three three."""
    rng = np.random.default_rng(0)
    identity = rng.permutation(np.repeat(np.arange(len(names)), 5))
    first, second, same = pairs.all_pairs(identity)
    people = identity[np.stack([first, second], axis=1)]
    distance = rng.random(len(same)) + 0.2 * np.ptp(people, axis=1)
    told = pairs.Scored(distance, same, people).confused(0.6, names)
    share = {
        (one, other): np.mean(
            [d <= 0.6 for d, who in zip(distance, people, strict=True) if {names[i] for i in who} == {one, other}]
        )
        for one, other in itertools.combinations(names, 2)
    }
    worst = sorted((value for value in share.values() if value), reverse=True)[:10]
    assert [row[2] for row in told] == pytest.approx(worst)
    assert [share[one, other] for one, other, *_ in told] == pytest.approx(worst)
    assert {row[3] for row in told} == {25}
    assert pairs.Scored(distance, same, people).confused(0.0, names) == []


def test_refuses_a_folder_it_cannot_use(digits, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.load(tmp_path / "nowhere", SHAPE)
    with pytest.raises(ValueError, match="holds no people"):
        data.load(tmp_path, SHAPE)
    folder = tmp_path / "people"
    shutil.copytree(digits, folder)
    (folder / "3" / "broken.png").write_bytes(b"broken")
    (folder / "4" / "cut.png").write_bytes((folder / "4" / "0.png").read_bytes()[:60])
    (folder / "alone").mkdir()
    Image.new("L", (9, 9)).save(folder / "alone" / "1.png")
    with pytest.raises(ValueError, match="cannot be used") as refusal:
        data.load(folder, SHAPE)
    for name in ("broken.png", "cut.png", "alone has 1 image"):
        assert name in str(refusal.value)


def test_leaves_out_what_systems_leave_beside_images(digits, tmp_path):
    folder = tmp_path / "people"
    shutil.copytree(digits, folder)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (folder / "3" / name).write_bytes(b"left")
    for name in ("__MACOSX", ".git"):
        (folder / name).mkdir()
    (folder / "README.txt").write_text("about the digits")
    assert data.load(folder, SHAPE).fingerprint() == data.load(digits, SHAPE).fingerprint()
    shutil.copytree(digits / "0", folder / "__init__")
    assert "__init__" in data.load(folder, SHAPE).names


def test_names_what_it_would_have_to_leave_out(digits, tmp_path):
    folder = tmp_path / "people"
    shutil.copytree(digits, folder)
    shutil.copytree(digits / "3", folder / "3" / "album")
    (folder / "4" / "0.png").unlink()
    (folder / "4" / "0.png").symlink_to(tmp_path / "annex" / "0.png")
    with pytest.raises(ValueError, match="cannot be used") as refusal:
        data.load(folder, SHAPE)
    assert "3 holds a folder, album: images must lie in that of their person itself" in str(refusal.value)
    assert "4: there is no file" in str(refusal.value)
    os.rename(folder / "5", os.fsencode(folder) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"'caf\\udce9' is not in UTF-8: rename it"):
        data.load(folder, SHAPE)


def test_a_name_is_the_same_however_its_accents_are_written(digits, tmp_path):
    """macOS takes accents apart, and its zips do not say that their names are in UTF-8."""
    apart = unicodedata.normalize("NFD", "Zoë")
    plain = tmp_path / "plain"
    for number, name in enumerate((apart, "José", "ΑΒΓ")):
        shutil.copytree(digits / str(number), plain / name)
        (plain / name / "0.png").rename(plain / name / "été.png")
        (plain / name / "1.png").rename(plain / name / "eve.png")
    archive = tmp_path / "mac.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in plain.rglob("*.png"):
            name = unicodedata.normalize("NFD", str(path.relative_to(plain)))
            file.write(path, name.encode().decode("cp437"))
    of_plain, of_archive = data.load(plain, SHAPE), data.load(archive, SHAPE)
    assert of_plain.names == of_archive.names == ("José", "Zoë", "ΑΒΓ")
    assert of_plain.fingerprint() == of_archive.fingerprint()
    shutil.copytree(digits / "4", plain / "Zoë")
    with pytest.raises(ValueError, match="two folders are called Zoë"):
        data.load(plain, SHAPE)


def test_a_zip_is_gone_through_once(tmp_path):
    """And not for each of a thousand people. What was added to it twice is there once."""
    archive = tmp_path / "many.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(2000):
            file.writestr(f"all/{number // 2}/{number}.png", b"")
        file.writestr("all/7/", b"")
        for name in ("all/7/", "all/7/15.png"):
            with pytest.warns(UserWarning, match="Duplicate name"):
                file.writestr(name, b"")
    listed, looked = [], zipfile.Path.iterdir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.Path, "iterdir", lambda self: listed.append(self) or looked(self))
        people = folders.list_people(archive)
    assert (len(people.names), len(people.files), listed) == (1000, 2000, [])
    assert people.names[:3] == ("0", "1", "2")
    assert (people.folders[7] / people.files[15]).read_bytes() == b""


def test_refuses_too_few_people(digits, tmp_path):
    for name in "012":
        shutil.copytree(digits / name, tmp_path / name)
    dataset = data.load(tmp_path, SHAPE)
    with pytest.raises(ValueError, match="3 people are too few"):
        dataset.split()
    with pytest.raises(ValueError, match="folds"):
        dataset.folds(2)


def test_refuses_a_person_in_training_and_testing(digits, tmp_path):
    for side in ("training", "testing"):
        shutil.copytree(digits / "1", tmp_path / side / "1")
    with pytest.raises(ValueError, match="in both training and testing: 1"):
        data.load(tmp_path, SHAPE)


def test_a_hostile_archive_writes_nothing(tmp_path):
    archive, outside = tmp_path / "evil.zip", tmp_path / "evil.txt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../evil.txt", "out")
        file.writestr("/tmp/evil.txt", "out")
    with pytest.raises(ValueError, match=r"evil\.zip"):
        data.load(archive, SHAPE)
    assert not outside.exists()
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(ValueError, match="whole zip"):
        data.load(archive, SHAPE)


class Serve:
    """A web server on loopback that answers every request with `content`, announcing `length` bytes."""

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
def no_data(monkeypatch, tmp_path):
    """A user who has no data yet: an empty cache, and no SIAMESE_DATA."""
    monkeypatch.delenv("SIAMESE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "siamese"


def test_downloads_once_and_checks(no_data, monkeypatch):
    content = b"the archive" * 10_000
    serve = Serve(content)
    monkeypatch.setattr(datasets, "ATT_URL", serve.url)
    monkeypatch.setattr(datasets, "ATT_SHA256", hashlib.sha256(content).hexdigest())
    assert datasets.find_att().read_bytes() == content
    serve.server.shutdown()
    assert datasets.find_att() == no_data / "at&t.zip"


@pytest.mark.parametrize(("content", "length"), [(b"another file", None), (b"too sh", 3_797_060)])
def test_a_wrong_or_short_download_leaves_nothing_behind(no_data, monkeypatch, content, length):
    monkeypatch.setattr(datasets, "ATT_URL", Serve(content, length).url)
    with pytest.raises(ConnectionError, match=r"whole file|could not be downloaded"):
        datasets.find_att()
    assert list(no_data.iterdir()) == []


def test_without_network_says_where_to_put_the_file(no_data, monkeypatch):
    monkeypatch.setattr(datasets, "ATT_URL", "http://127.0.0.1:9/at%26t.zip")
    with pytest.raises(ConnectionError, match=r"fetch http://127\.0\.0\.1:9.* and put it at .*at&t\.zip"):
        datasets.find_att()


def test_refuses_another_file_of_that_name(monkeypatch, tmp_path):
    monkeypatch.setenv("SIAMESE_DATA", str(tmp_path))
    (tmp_path / "at&t.zip").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the AT&T archive"):
        datasets.find_att()


def test_what_memory_does_not_hold_is_read_from_a_file_that_leaves_nothing_behind(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = TrainConfig("…", tmp_path, epochs=1)
    start, cpu = loop.first_network(config)[0], torch.device("cpu")
    held = data.load(digits, start.input_shape)
    monkeypatch.setattr(data, "room", lambda device: 0)
    mapped = data.load(digits, start.input_shape)
    assert list((tmp_path / "siamese").iterdir()) == []
    assert "(deleted)" in next(
        line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line
    )
    assert torch.equal(mapped.pixels, held.pixels)
    assert mapped.fingerprint() == held.fingerprint()
    of_held, of_mapped = (
        loop.fit(start, dataset, config, cpu, tmp_path / f"{number}.pt", "test").losses
        for number, dataset in enumerate((held, mapped))
    )
    assert of_held == of_mapped


def test_a_disk_without_room_is_told_in_a_sentence(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "room", lambda device: 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(OSError, match=r"the data take 0\.0 GB.* make room there, or name another folder"):
        data.load(digits, SHAPE)


def test_of_many_images_a_sample_of_pairs_is_measured(monkeypatch):
    monkeypatch.setattr(pairs, "EVERY", 100)
    identity = np.repeat(np.arange(40), 5)
    first, second, same = pairs.all_pairs(identity)
    assert (first < second).all()
    assert len({*zip(first.tolist(), second.tolist(), strict=True)}) == len(first) <= 5000
    assert np.array_equal(same, identity[first] == identity[second])
    assert same.sum() > 0.98 * 40 * 10  # of 400 genuine pairs, nearly each is among 2,500 draws
    assert (~same).sum() > 2000
    assert all(map(np.array_equal, pairs.all_pairs(identity), (first, second, same)))


def test_a_sample_is_of_whole_people():
    sizes = np.random.default_rng(0).integers(2, 7, 100)
    names = tuple(map(str, range(100)))
    dataset = data.IdentityDataset(torch.zeros(sizes.sum(), 1, 1, 1), np.repeat(np.arange(100), sizes), names)
    assert dataset.subsample(sizes.sum()) is dataset
    sample = dataset.subsample(200)
    assert 194 <= len(sample) <= 200
    assert np.bincount(sample.identity).tolist() == [sizes[int(name)] for name in sample.names]
    assert sample.names == dataset.subsample(200).names
    assert len(dataset.subsample(1).names) == 2


@pytest.mark.parametrize("giant", range(10))
def test_of_somebody_with_very_many_images_some_are_measured_and_the_others_too(giant):
    sizes = np.full(10, 20)
    sizes[giant] = 5000
    identity = np.repeat(np.arange(10), sizes)
    dataset = data.IdentityDataset(torch.arange(len(identity)).reshape(-1, 1, 1, 1), identity, tuple("abcdefghij"))
    sample = dataset.subsample(1000)
    assert sample.names == dataset.names
    counts = np.bincount(sample.identity)
    assert counts[giant] == 1000 // data.OF_ONE
    assert (np.delete(counts, giant) == 20).all()
    assert np.array_equal(identity[sample.rows], sample.identity)
    assert (np.diff(sample.rows) > 0).all()
    assert np.array_equal(sample.rows, dataset.subsample(1000).rows)


def test_a_container_has_the_memory_that_it_was_given(monkeypatch, tmp_path):
    cpu, limit = torch.device("cpu"), tmp_path / "memory.max"
    monkeypatch.setattr(data, "MEMORY_LIMIT", limit)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8000))
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(rss=1000))
    for written, free in (("5000\n", 4000), ("max\n", 8000), ("90000\n", 8000)):
        limit.write_text(written)
        assert data.room(cpu) == free // 2
    monkeypatch.setattr(data, "PROCESSES", 2)
    limit.write_text("5000\n")
    assert data.room(cpu) == (5000 - 2 * 1000) // 2 // 2
    limit.unlink()
    assert data.room(cpu) == 8000 // 2 // 2


def test_of_nobody_there_is_an_empty_batch():
    dataset = data.IdentityDataset(torch.zeros(4, 3, 2, 2), np.array([0, 0, 1, 1]), ("a", "b"))
    assert [x.shape for x in dataset.select([]).batches()] == [(0, 3, 2, 2)]
