"""The index of a folder: what is in it, and what happens if a run is interrupted or something is in the way."""

import os
import resource
import signal
import zipfile

import numpy as np
import pytest
from PIL import Image

from siamese import find, load
from siamese import model as networks
from siamese.faces.detection import MAX_PHOTO_SIDE
from siamese.search import scan
from siamese.search.index import Index, IndexWriter
from siamese.search.update import update_index

from .command import forks
from .conftest import EXAMPLES


@pytest.fixture(scope="module")
def model(trained):
    """A small network that compares whole images."""
    return load(trained, device="cpu")


@pytest.fixture
def photos(digits, tmp_path):
    """A folder tree of 80 images."""
    folder = tmp_path / "photos"
    for file in digits.glob("*/*.png"):
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def place(tmp_path):
    return tmp_path / "index"


def content(place, model) -> dict[tuple[str, int], np.ndarray]:
    """Return the embedding of each face by its photo and number, and check that rows and faces fit together."""
    with Index(place, model) as index:
        rows, z = (np.concatenate(column) for column in zip(*index.blocks(), strict=True))
        np.testing.assert_array_equal(np.load(place / "vectors.npy", mmap_mode="r")[: len(z)], z)
        faces = index.faces()
        assert [face.row for face in faces] == rows.tolist()
        assert index.faces(rows[:2]) == faces[:2]
        assert len(index) == len(faces) == len(z)
        return {(face.photo, face.number): row for face, row in zip(faces, z, strict=True)}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(np.allclose(first[key], second[key], atol=1e-5) for key in first)


def test_index_holds_the_embeddings_of_model_embed(model, photos, place):
    result = update_index(model, photos, place)
    assert (result.photos, result.embedded, result.faces, result.forgotten, result.created) == (80, 80, 80, 0, True)
    assert (result.problems, result.without_faces, result.others) == ([], [], 0)
    found = content(place, model)
    files = sorted(photos.glob("*/*.png"))
    expected = dict(zip([(f"{file.parent.name}/{file.name}", 1) for file in files], model.embed(files), strict=True))
    assert same(found, expected)
    assert place.stat().st_mode & 0o077 == 0


def test_second_run_reads_only_new_and_changed_files_and_forgets_deleted_ones(model, photos, place, monkeypatch):
    update_index(model, photos, place)
    read = []
    read_photo = scan.Photo.read
    monkeypatch.setattr(scan.Photo, "read", lambda photo: read.append(photo.path) or read_photo(photo))
    assert update_index(model, photos, place).embedded == 0
    before = content(place, model)
    (photos / "0" / "0.png").write_bytes((photos / "1" / "0.png").read_bytes() + b" ")
    (photos / "new.png").write_bytes((photos / "2" / "0.png").read_bytes())
    for number in range(7):
        (photos / "5" / f"{number}.png").unlink()
    result = update_index(model, photos, place)
    assert set(read) == {"0/0.png", "new.png"}
    assert (result.photos, result.embedded, result.moved, result.forgotten, result.faces) == (74, 1, 1, 7, 74)
    after = content(place, model)
    assert np.load(place / "vectors.npy").shape == (74, 2)
    np.testing.assert_allclose(after["0/0.png", 1], before["1/0.png", 1], atol=1e-5)
    np.testing.assert_allclose(after["new.png", 1], before["2/0.png", 1], atol=1e-5)
    kept = {key: z for key, z in before.items() if key[0] == "5/7.png" or key[0][:2] not in ("5/", "0/")}
    assert same(kept, {key: after[key] for key in kept})


def killed(place, source, trained, name: str, count: int) -> None:
    """Update an index, and kill this process at the call of a method of the index with this number."""
    calls = iter(range(count))
    method = getattr(IndexWriter, name)

    def call(*arguments):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments)

    setattr(IndexWriter, name, call)
    networks.PHOTOS_AT_ONCE = 8
    update_index(load(trained, device="cpu"), source, place)


@pytest.mark.parametrize(("name", "count"), [("_write", 0), ("_write", 3), ("_transaction", 4), ("compact", 0)])
def test_run_after_a_killed_one_makes_the_same_index(model, photos, place, trained, tmp_path, name, count):
    update_index(model, photos, tmp_path / "expected")
    process = forks.Process(target=killed, args=(place, photos, trained, name, count))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    with Index(place, model) as index:
        done = len(index)
        assert done % 8 == 0
        assert sum(len(z) for _, z in index.blocks()) == done
    assert update_index(model, photos, place).embedded == 80 - done
    assert same(content(place, model), content(tmp_path / "expected", model))


def test_killed_compaction_loses_nothing(model, photos, place, monkeypatch):
    update_index(model, photos, place)
    for number in range(8):
        (photos / "0" / f"{number}.png").unlink()
    monkeypatch.setattr(IndexWriter, "_transaction", interrupt_after(IndexWriter._transaction, 1))
    with pytest.raises(KeyboardInterrupt):
        update_index(model, photos, place, forget=True)
    monkeypatch.undo()
    with Index(place, model) as index:
        assert (len(index), sum(len(z) for _, z in index.blocks())) == (72, 72)
        ((_, vectors),) = index.blocks()
        gaps = {face.photo: z for face, z in zip(index.faces(), vectors, strict=True)}
    update_index(model, photos, place, forget=True)
    assert same({(photo, 1): z for photo, z in gaps.items()}, content(place, model))
    assert np.load(place / "vectors.npy").shape == (72, 2)


def interrupt_after(method, count):
    calls = iter(range(count))

    def call(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return method(*arguments)

    return call


def full_disk(place, source, trained, message) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, 24_000))
    networks.PHOTOS_AT_ONCE = 8
    try:
        update_index(load(trained, device="cpu"), source, place)
    except OSError as error:
        message.put(str(error))


def test_full_disk_is_one_sentence_and_loses_nothing(model, photos, place, trained, tmp_path):
    message = forks.Queue()
    process = forks.Process(target=full_disk, args=(place, photos, trained, message))
    process.start()
    text = message.get(timeout=120)
    process.join()
    assert "disk" in text
    assert str(place) in text
    assert "\n" not in text
    result = update_index(model, photos, place)
    assert result.photos == result.faces == 80
    update_index(model, photos, tmp_path / "expected")
    assert same(content(place, model), content(tmp_path / "expected", model))


def test_other_networks_and_other_folders_are_refused(model, photos, place):
    update_index(model, photos, place)
    other = load("weights/att", device="cpu")
    with pytest.raises(ValueError, match="another network, digits"):
        update_index(other, photos, place)
    with pytest.raises(ValueError, match="another network"):
        Index(place, other)
    with pytest.raises(ValueError, match=f"is the index of {photos}"):
        update_index(model, photos / "0", place)
    with pytest.raises(FileNotFoundError, match="holds no index"):
        Index(photos, model)
    (place / "faces.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ValueError, match="damaged"):
        Index(place, model)


def test_index_needs_a_folder_of_its_own(model, photos, place, trained, siamese):
    """Nothing in the folder is deleted or overwritten, whatever its name is and also through a link."""
    (photos / "0").rename(photos / "part-1")
    (photos / "vectors.npy").write_bytes(b"numbers of the user")
    place.symlink_to(photos)
    before = {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()}
    for out in (photos, place):
        run = siamese("embed", photos, "--out", out, "--weights", trained)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert {file: file.read_bytes() for file in photos.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", ["faces.sqlite", "vectors.npy"])
@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.9])
def test_index_that_was_cut_is_refused(model, photos, place, name, share):
    """For example by a full network drive. No face is compared with zeros."""
    update_index(model, photos, place)
    content = (place / name).read_bytes()
    (place / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="damaged"):
        find(photos / "0" / "0.png", place, model=model)
    with pytest.raises(ValueError, match="damaged"):
        update_index(model, photos, place)
    assert (photos / "0" / "0.png").is_file()


def test_two_runs_at_once_are_refused(model, photos, place, trained, siamese):
    update_index(model, photos, place)
    command = "embed", photos, "--out", place, "--weights", trained
    with IndexWriter(place, model, photos):
        run = siamese(*command)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1)
        assert "in use by another run" in run.stderr
        with pytest.raises(OSError, match="in use"):
            Index(place, model)
    with Index(place, model), Index(place, model):  # readers do not disturb each other
        assert "in use by another run" in siamese(*command).stderr
    assert siamese(*command).returncode == 0


def test_what_cannot_be_read_is_listed(model, photos, place):
    (photos / "loop").symlink_to(photos)
    (photos / "self.png").symlink_to("self.png")
    (photos / "again").symlink_to(photos / "3")
    os.link(photos / "0" / "0.png", bytes(photos) + b"/caf\xe9.png")  # not UTF-8
    os.mkfifo(photos / "pipe.png")
    os.mkfifo(photos / "pipe.zip")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (photos / "broken.zip").write_bytes(b"PK")
    (photos / "notes.txt").write_text("notes")
    (photos / ".hidden.png").write_bytes((photos / "0" / "0.png").read_bytes())
    outside = photos.parent / "outside"
    (photos / "9").rename(outside)
    (photos / "linked").symlink_to(outside)
    result = update_index(model, photos, place)
    problems = dict(result.problems)
    assert sorted(problems) == ["broken.png", "broken.zip", "caf\ufffd.png", "pipe.png", "pipe.zip", "self.png"]
    assert "can be read" in problems["broken.png"]
    assert "regular file" in problems["pipe.png"]
    assert (result.faces, result.others) == (80, 1)
    assert ("linked/0.png", 1) in content(place, model)
    (photos / "broken.png").write_bytes((photos / "0" / "0.png").read_bytes())
    (photos / "self.png").unlink()
    result = update_index(model, photos, place)
    assert sorted(dict(result.problems)) == ["broken.zip", "caf\ufffd.png", "pipe.png", "pipe.zip"]
    assert (result.faces, result.embedded, result.moved) == (81, 0, 1)


def test_photos_in_a_folder_that_cannot_be_opened_are_kept(model, photos, place, monkeypatch):
    update_index(model, photos, place)
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("/4"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    result = update_index(model, photos, place)
    assert result.problems == [("4", "the folder cannot be opened (Permission denied)")]
    assert (result.faces, result.forgotten) == (80, 0)
    monkeypatch.undo()
    result = update_index(model, photos, place)
    assert (result.problems, result.embedded, result.faces) == ([], 0, 80)


def test_photo_that_is_deleted_during_the_run_is_listed(model, photos, place):
    last = photos / "9" / "7.png"
    result = update_index(model, photos, place, lambda done, total: last.unlink(missing_ok=True))
    assert result.problems == [("9/7.png", "it was deleted before it was read")]
    assert result.faces == 79
    assert update_index(model, photos, place).problems == []


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_photo_that_changes_while_it_is_read_is_read_again(model, photos, place, tmp_path, monkeypatch, share):
    """Of the new content, a share was there already."""
    file, new = photos / "3" / "0.png", (photos / "4" / "0.png").read_bytes()
    read_photo = scan.Photo.read

    def read(photo):
        old = read_photo(photo)
        if photo.path != "3/0.png":
            return old
        file.write_bytes(new)
        return new[: int(share * len(new))] + old[int(share * len(new)) :]

    with monkeypatch.context() as patch:
        patch.setattr(scan.Photo, "read", read)
        update_index(model, photos, place)
    assert update_index(model, photos, place).embedded + update_index(model, photos, place).moved <= 1
    update_index(model, photos, tmp_path / "expected")
    assert same(content(place, model), content(tmp_path / "expected", model))


@pytest.mark.parametrize("seconds", [-1e9, 0, 4e9])
def test_photos_with_any_time_are_read_once_and_again_if_they_change(model, photos, place, seconds):
    """As after a jump of the clock: 1938, 1970 and 2096."""
    file = photos / "3" / "0.png"
    os.utime(file, (seconds, seconds))
    update_index(model, photos, place)
    assert update_index(model, photos, place).embedded == 0
    file.write_bytes((photos / "4" / "0.png").read_bytes())
    os.utime(file, (seconds - 1e6, seconds - 1e6))  # before
    update_index(model, photos, place)
    found = content(place, model)
    np.testing.assert_array_equal(found["3/0.png", 1], found["4/0.png", 1])


def test_missing_folder_does_not_empty_the_index(model, photos, place):
    update_index(model, photos, place)
    photos.rename(photos.parent / "away")
    with pytest.raises(FileNotFoundError):
        update_index(model, photos, place)
    assert len(content(place, model)) == 80


def test_zip_archives_are_folders(model, photos, place, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in sorted(photos.glob("*/*.png")):
            archive.write(file, file.relative_to(photos))
        archive.writestr("__MACOSX/0/._0.png", b"x")
        archive.writestr("notes.txt", b"x")
    update_index(model, photos, place)
    expected = content(place, model)
    result = update_index(model, tmp_path / "all.zip", tmp_path / "zipped")
    assert (result.photos, result.others) == (80, 1)
    assert same(content(tmp_path / "zipped", model), expected)
    (tmp_path / "tree").mkdir()
    (tmp_path / "all.zip").rename(tmp_path / "tree" / "all.zip")
    update_index(model, tmp_path / "tree", tmp_path / "nested")
    nested = content(tmp_path / "nested", model)
    assert same({(photo.removeprefix("all.zip/"), number): z for (photo, number), z in nested.items()}, expected)
    assert update_index(model, tmp_path / "tree", tmp_path / "nested").embedded == 0


def test_faces_of_large_rotated_photos_are_those_of_detect(tmp_path):
    model = load(device="cpu")
    photo = Image.open(EXAMPLES / "obama-standing.jpg")
    large = photo.resize((photo.width * 8, photo.height * 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees
    (tmp_path / "photos").mkdir()
    large.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photos" / "large.jpg", exif=exif)
    assert max(large.size) >= 2 * MAX_PHOTO_SIDE
    update_index(model, tmp_path / "photos", tmp_path / "index")
    (expected,) = model.detect([tmp_path / "photos" / "large.jpg"])[0]
    with Index(tmp_path / "index", model) as index:
        (face,) = index.faces()
    np.testing.assert_allclose(face.box, expected.box, rtol=1e-4)
    np.testing.assert_allclose(face.face.landmarks, expected.landmarks, rtol=1e-4)
