"""Reading images."""

import importlib.abc
import io
import os
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZipFile
from zipfile import Path as ZipPath

import numpy as np
import pytest
import torch
from PIL import Image

from siamese import images
from siamese.network import resize_to_input, to_tensor

DATA = Path(__file__).parent

PHOTO = Image.effect_noise((40, 60), 80).convert("RGB")


def saved(folder, name, image=PHOTO, **options):
    path = folder / name
    image.save(path, **options)
    return path


def same_pixels(a, b, tolerance=0):
    return a.size == b.size and np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= tolerance


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "a.ppm"])
def test_reads_lossless_formats_to_the_same_pixels(tmp_path, name):
    assert same_pixels(images.read(saved(tmp_path, name, **({"lossless": True} if "webp" in name else {}))), PHOTO)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGBA", "LA"])
def test_reads_every_mode_as_rgb(tmp_path, mode):
    name = "a.jpg" if mode in ("CMYK", "YCbCr") else "a.png"
    image = images.read(saved(tmp_path, name, PHOTO.convert(mode)))
    assert (image.mode, image.size) == ("RGB", PHOTO.size)


def test_reads_the_first_frame_of_an_animation(tmp_path):
    red, blue = (Image.new("RGB", (20, 20), color) for color in ("red", "blue"))
    path = saved(tmp_path, "a.gif", red, save_all=True, append_images=[blue])
    assert images.read(path).getpixel((5, 5)) == (255, 0, 0)


def test_applies_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    path = saved(tmp_path, "a.png", PHOTO.transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert same_pixels(images.read(path), PHOTO)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_applies_each_orientation_whatever_else_is_in_the_exif_data(orientation):
    """The resolution is -1/0 as a signed fraction, which Pillow reads but cannot write."""
    entries = struct.pack("<HHIHHHHII", 0x112, 3, 1, orientation, 0, 0x11A, 10, 1, 38) + bytes(4)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<ii", -1, 0)
    file = io.BytesIO()
    PHOTO.save(file, "JPEG")
    content = file.getvalue()
    photo = images.read(content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:])
    expected = np.asarray(images.read(content))
    expected = expected.swapaxes(0, 1) if orientation >= 5 else expected
    flips = {2: (1,), 3: (0, 1), 4: (0,), 5: (), 6: (1,), 7: (0, 1), 8: (0,)}[orientation]
    assert np.array_equal(np.asarray(photo), np.flip(expected, flips))
    assert same_pixels(images.read(photo), photo)  # it is not turned again


def test_scales_sixteen_bits(tmp_path):
    gray = PHOTO.convert("L")
    wide = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    assert same_pixels(images.read(saved(tmp_path, "a.png", wide)).convert("L"), gray, tolerance=1)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_rounds_sixteen_bits_to_the_nearest_of_eight(tmp_path, order):
    samples = np.arange(65536).reshape(256, 256)
    nearest = [[round(255 * int(sample) / 65535) for sample in row] for row in samples]
    image = Image.fromarray(samples.astype(order))
    for source in (image, saved(tmp_path, "a.tiff", image)):
        assert np.array_equal(images.read(source), np.stack([nearest] * 3, axis=2))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_scales_fewer_bits_in_sixteen(tmp_path, bits, mode):
    gray = np.asarray(PHOTO.convert("L"))
    gray = ((gray - gray.min()) / np.ptp(gray) * 255).round()
    samples = (gray * ((1 << bits) - 1) / 255).round().astype(np.uint16 if mode == "I;16" else np.int32)
    image = Image.fromarray(samples)
    assert image.mode == mode
    for source in (image, saved(tmp_path, "a.tiff", image)):
        assert np.abs(np.asarray(images.read(source))[..., 0] - gray).max() <= 1


@pytest.mark.parametrize("largest", [1.0, 255.0])
def test_scales_floats(largest):
    gray = PHOTO.convert("L")
    image = Image.fromarray(np.asarray(gray, np.float32) * (largest / 255))
    if largest == 1:
        assert same_pixels(images.read(image).convert("L"), gray, tolerance=1)
    for samples in (np.asarray(image) * 2 - largest, np.asarray(image) * 300, np.full((9, 9), np.nan, np.float32)):
        with pytest.raises(ValueError, match="scale them"):
            images.read(Image.fromarray(samples.astype(np.float32)))


def test_does_not_change_the_image_it_is_given():
    for orientation in (1, 6):
        image = PHOTO.copy()
        image.getexif()[0x0112] = orientation
        images.read(image).paste("red", (0, 0, 9, 9))
        assert same_pixels(image, PHOTO)


def test_puts_transparent_parts_on_white(tmp_path):
    path = saved(tmp_path, "a.png", Image.new("RGBA", (20, 20), (0, 0, 0, 0)))
    assert images.read(path).getpixel((5, 5)) == (255, 255, 255)


def test_reads_bytes_like_a_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, "a.jpg", PHOTO.resize((1200, 800)), exif=exif)
    for longest in (None, 300):
        (of_file, scale), (of_bytes, other) = (
            images.read_reduced(source, longest) for source in (path, path.read_bytes())
        )
        assert same_pixels(of_bytes, of_file)
        assert scale == other


def test_reads_arrays_and_pil_images():
    array = np.asarray(PHOTO)
    assert same_pixels(images.read(array), PHOTO)
    assert same_pixels(images.read(PHOTO), PHOTO)
    assert images.read(array[:, :, 0]).size == PHOTO.size


def huge_png() -> bytes:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\1\0IDAT"


def truncated_jpeg() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(file, "JPEG")
    return file.getvalue()[:5000]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"not an image\0", "not an image"),
        (b"la la la" * 1000, "not an image"),
        (b"\0\0\0\x14ftypqt  " + bytes(500), "not an image"),  # a video
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n" + bytes(range(256)), "not an image"),  # Ghostscript
        (truncated_jpeg(), "damaged or incomplete"),
        (huge_png(), "use a smaller version"),
    ],
)
def test_error_names_the_problem_of_a_file(tmp_path, content, says):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"photo\.jpg.*{says}"):
        images.read(path)
    with pytest.raises(ValueError, match=rf"^the file .*{says}"):
        images.read(content)


def test_rejects_images_that_are_too_small_or_too_large():
    with pytest.raises(ValueError, match="only 1 × 1 pixels"):
        images.read(Image.new("L", (1, 1)))
    with pytest.raises(ValueError, match="more than 65 million"):
        images.read(Image.new("1", (10_000, 7_000)))


@pytest.mark.parametrize("size", [(8160, 6144), (8688, 5792), (9504, 6336), (9248, 6936)])
def test_reads_photos_of_the_largest_common_sensors(tmp_path, size):
    path = saved(tmp_path, "a.jpg", Image.new("L", size))
    assert max(images.read_reduced(path, 2000)[0].size) >= 2000


@pytest.mark.parametrize("size", [(20_000, 60), (12, 4000), (8, 60_000)])
def test_thin_photos_keep_the_smallest_side(tmp_path, size):
    for source in (saved(tmp_path, "a.jpg", Image.new("L", size)), Image.new("L", size)):
        reduced, factor = images.read_reduced(source, 2000)
        assert min(images.read(reduced).size) >= images.MIN_SIDE
        assert max(size) == pytest.approx(factor * max(reduced.size), rel=0.01)


def test_error_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nobody\.jpg"):
        images.read(tmp_path / "nobody.jpg")
    with pytest.raises(ValueError, match="folder"):
        images.read(tmp_path)


def progressive_jpeg(scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    file = io.BytesIO()
    PHOTO.save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * (scans - content.count(b"\xff\xda") + 1) + content[-2:]


def test_rejects_jpegs_with_too_many_scans():
    assert images.read(progressive_jpeg(20)).size == PHOTO.size
    with pytest.raises(ValueError, match="scans"):
        images.read(progressive_jpeg(1000))
    content = progressive_jpeg(20)
    assert images.read(content + b"\xff\xda" * 1000).size == PHOTO.size  # the video of a motion photo
    preview = b"\xff\xe1" + struct.pack(">H", 3002) + b"\xff\xd9" + b"\xff\xda" * 1499
    assert images.read(content[:2] + preview + content[2:]).size == PHOTO.size
    with pytest.raises(ValueError, match="scans"):
        images.read(content[:2] + preview + progressive_jpeg(1000)[2:])


def test_reads_avif_files_of_the_general_brand(monkeypatch):
    file = io.BytesIO()
    PHOTO.save(file, "AVIF", quality=90)
    content = file.getvalue()
    assert content[4:12] == b"ftypavif"
    assert b"mif1" in content[16:40]
    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    swapped = content[:8] + b"mif1" + content[12:40].replace(b"mif1", b"avif") + content[40:]
    assert same_pixels(images.read(swapped), images.read(content))


def test_raw_files_are_named(tmp_path):
    path = saved(tmp_path, "a.tiff")
    path = path.rename(tmp_path / "a.DNG")
    with pytest.raises(ValueError, match=r"a\.DNG is a RAW file"):
        images.read(path)


class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("pi_heif", "pillow_heif"):
            raise ImportError(name)


def test_reads_heic_if_a_package_for_it_is_installed(monkeypatch):
    content = (DATA / "photo.heic").read_bytes()
    photo = images.read(content)
    assert photo.size == (64, 48)
    assert np.asarray(photo).std() > 20
    for package in ("pi_heif", "pillow_heif"):
        monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    with pytest.raises(ValueError, match=r"HEIC photo.*pip install"):
        images.read(content)


SECRET = "/9j/4AAQSkZJRgABAQAAAQABAAD" * 20


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (None, "got NoneType"),
        (3, "got int"),
        (torch.zeros(3, 9, 9), "Tensor of shape"),
        (np.zeros((9, 9, 3), np.float32), "float32"),
        (f"data:image/jpeg;base64,{SECRET}", "data: address"),
        (SECRET, "base64"),
        (b"/home/somebody/photo.jpg", "text"),
        (io.StringIO(SECRET), "binary mode"),
    ],
    ids=["none", "number", "tensor", "floats", "data", "base64", "path as bytes", "text file"],
)
def test_names_the_cause_of_a_wrong_input(source, says):
    with pytest.raises(ValueError, match=says) as raised:
        images.read(source)
    assert len(str(raised.value)) < 200
    assert SECRET[:30] not in str(raised.value)


def test_closed_images_and_files_are_named(tmp_path):
    image = Image.open(saved(tmp_path, "a.png"))
    image.close()
    with pytest.raises(ValueError, match="is closed"):
        images.read(image)
    with (tmp_path / "a.png").open("rb") as file:
        pass
    with pytest.raises(ValueError, match="closed"):
        images.read(file)


def test_names_that_are_too_long_and_files_that_may_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="too long") as raised:
        images.read("a photo " * 1000 + ".jpg")
    assert len(str(raised.value)) < 200
    with pytest.raises(FileNotFoundError) as raised:
        images.read("é" * 100 + ".jpg")
    assert len(str(raised.value)) < 200
    path = tmp_path / ("folder" * 20) / "nosuffix"  # looks like base64
    path.parent.mkdir()
    saved(tmp_path, "a.png").rename(path)
    assert images.read(str(path)).size == PHOTO.size
    path = saved(tmp_path, "a.png")

    def deny(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", deny)
    with pytest.raises(ValueError, match=r"a\.png cannot be read: Permission denied"):
        images.read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_only_regular_files_of_a_sane_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(ValueError, match="not a regular file"):
            images.read(path)
    with pytest.raises(ValueError, match="empty"):
        images.read("/proc/self/pagemap")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(600_000_000)  # sparse
    with pytest.raises(ValueError, match="more than 500 MB"):
        images.read(tmp_path / "large.jpg")
    with ZipFile(tmp_path / "a.zip", "w", ZIP_DEFLATED) as archive, archive.open("large.jpg", "w") as member:
        for _ in range(600):
            member.write(bytes(1_000_000))
    with pytest.raises(ValueError, match="more than 500 MB"):
        images.read(ZipPath(tmp_path / "a.zip", "large.jpg"))
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        images.read(ZipPath(tmp_path / "a.zip", "none.jpg"))


@pytest.mark.parametrize("method", [ZIP_DEFLATED, ZIP_BZIP2])
def test_members_of_archives_are_unpacked_only_to_the_announced_size(tmp_path, method):
    with ZipFile(tmp_path / "a.zip", "w", method) as archive, archive.open("a.jpg", "w") as member:
        for _ in range(250):
            member.write(bytes(1_000_000))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for start, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(start) + offset
        content[place : place + 4] = struct.pack("<I", 1000)
    (tmp_path / "a.zip").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.jpg is damaged"):
        images.read(ZipPath(tmp_path / "a.zip", "a.jpg"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150_000_000


@pytest.mark.parametrize("array", [np.zeros((9, 9)), np.zeros((9, 9, 2), np.uint8), np.zeros(9, np.uint8)])
def test_rejects_arrays_that_are_not_images(array):
    with pytest.raises(ValueError, match="expected a uint8 array"):
        images.read(array)


def test_resize_to_gray_and_color_inputs():
    for channels, mode in ((1, "L"), (3, "RGB")):
        image = resize_to_input(PHOTO, (channels, 30, 50))
        assert (image.mode, image.size) == (mode, (50, 30))
        tensor = to_tensor(image)
        assert tensor.shape == (channels, 30, 50)
        assert np.array_equal(tensor[0].numpy(), np.asarray(image).reshape(30, 50, -1)[:, :, 0])
