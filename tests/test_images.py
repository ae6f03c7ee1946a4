"""Reading images."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from siamese import images

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
        (b"not an image", "not an image"),
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
    with pytest.raises(ValueError, match="more than 50 million"):
        images.read(Image.new("1", (10_000, 6_000)))


def test_error_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nobody\.jpg"):
        images.read(tmp_path / "nobody.jpg")
    with pytest.raises(ValueError, match="folder"):
        images.read(tmp_path)


@pytest.mark.parametrize("array", [np.zeros((9, 9)), np.zeros((9, 9, 2), np.uint8), np.zeros(9, np.uint8)])
def test_rejects_arrays_that_are_not_images(array):
    with pytest.raises(ValueError, match="expected a uint8 array"):
        images.read(array)


def test_fit_to_gray_and_colour_inputs():
    for channels, mode in ((1, "L"), (3, "RGB")):
        image = images.fit(PHOTO, (channels, 30, 50))
        assert (image.mode, image.size) == (mode, (50, 30))
        tensor = images.to_tensor(image)
        assert tensor.shape == (channels, 30, 50)
        assert np.array_equal(tensor[0].numpy(), np.asarray(image).reshape(30, 50, -1)[:, :, 0])
