"""Reading uploads in other processes."""

import io
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from siamese import images
from siamese.page import uploads
from siamese.page.uploads import ReadPhoto, Upload, read_together

from .conftest import EXAMPLES, ROOT

PHOTO = EXAMPLES / "biden.jpg"


def same_pixels(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("min_long_side", [None, 640, 100])
def test_reads_the_same_pixels(min_long_side):
    image, factor = Upload(str(PHOTO)).read_reduced(min_long_side)
    expected, expected_factor = images.read_reduced(PHOTO, min_long_side)
    assert same_pixels(image, expected)
    assert factor == expected_factor


def test_an_upload_is_an_image_for_the_network(model):
    answer = model.compare(Upload(str(PHOTO)), *read_together([Upload(str(EXAMPLES / "collins.jpg"))], None))
    assert answer.dissimilarity == model.compare(PHOTO, EXAMPLES / "collins.jpg").dissimilarity


def test_a_read_photo_can_be_reduced_again():
    photo = ReadPhoto(*Upload(str(PHOTO)).read_reduced(None))
    image, factor = photo.read_reduced(100)
    assert max(image.size) >= 100
    assert factor == max(photo.image.size) // 100
    assert same_pixels(image, photo.image.reduce(factor))


def test_errors_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        Upload(str(tmp_path / "gone.jpg")).read_reduced(None)
    (tmp_path / "broken.jpg").write_bytes(PHOTO.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"broken\.jpg is damaged"):
        Upload(str(tmp_path / "broken.jpg")).read_reduced(None)


def shared_exif() -> bytes:
    """Return a PNG whose 1,500 EXIF entries refer to the same megabyte."""
    size, entries = 1_000_000, 1500
    table = b"".join(struct.pack(">HHII", 0x8000 + i, 7, size, 8) for i in range(entries))
    exif = b"MM\0*" + struct.pack(">IH", 8, entries) + table + bytes(4 + size)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    content = io.BytesIO()
    Image.new("RGB", (9, 9)).save(content, "PNG")
    return content.getvalue()[:33] + chunk + content.getvalue()[33:]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"P5 3000 3000 100\n" + bytes(9_000_000), "too much time"),  # decoded in Python
        (shared_exif(), "too much memory"),
    ],
    ids=["time", "memory"],
)
def test_files_that_cost_too_much_are_refused(tmp_path, content, says):
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        Upload(str(tmp_path / "photo.png")).read_reduced(None)
    assert Upload(str(PHOTO)).read_reduced(640)[1] == images.read_reduced(PHOTO, 640)[1]


def test_a_process_that_was_killed_is_replaced():
    Upload(str(PHOTO)).read_reduced(640)
    children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    readers = [child for child in children if "siamese.page.uploads" in child.cmdline()]
    assert readers
    if sys.platform == "linux":  # without memory, the system ends them before the page
        assert {Path(f"/proc/{reader.pid}/oom_score_adj").read_text() for reader in readers} == {"1000\n"}
    for reader in readers:
        reader.kill()
        reader.wait()
    image, _ = Upload(str(PHOTO)).read_reduced(640)
    assert same_pixels(image, images.read_reduced(PHOTO, 640)[0])


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot stop a process")
def test_a_process_that_was_stopped_is_replaced(monkeypatch):
    for _ in range(uploads.PROCESSES):  # they take turns
        Upload(str(PHOTO)).read_reduced(640)
    monkeypatch.setattr(uploads, "MAX_WAIT", 1)
    for child in psutil.Process().children():
        if "siamese.page.uploads" in child.cmdline():
            child.suspend()
    for _ in range(uploads.PROCESSES):
        with pytest.raises(ValueError, match="too much time"):
            Upload(str(PHOTO)).read_reduced(640)
    monkeypatch.undo()
    assert Upload(str(PHOTO)).read_reduced(640)[1] == images.read_reduced(PHOTO, 640)[1]


def test_many_threads_at_once():
    photos = sorted(EXAMPLES.glob("*.jpg"))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda photo: Upload(str(photo)).read_reduced(640)[0], photos * 4))
    for photo, image in zip(photos * 4, read, strict=True):
        assert same_pixels(image, images.read_reduced(photo, 640)[0])


READ_AND_WAIT = """
import sys, time, psutil
from siamese.page.uploads import Upload
Upload(sys.argv[1]).read_reduced(None)
print(*(child.pid for child in psutil.Process().children()), flush=True)
time.sleep(60)
"""


def test_the_processes_end_with_the_page():
    page = subprocess.Popen([sys.executable, "-c", READ_AND_WAIT, PHOTO], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert page.stdout
    readers = list(map(int, page.stdout.readline().split()))
    assert readers
    page.send_signal(signal.SIGKILL)
    page.communicate()
    for _ in range(100):
        if not any(
            Path(f"/proc/{reader}").exists() and psutil.Process(reader).status() != "zombie" for reader in readers
        ):
            return
        time.sleep(0.1)
    os.kill(readers[0], signal.SIGKILL)
    pytest.fail("a process still runs")
