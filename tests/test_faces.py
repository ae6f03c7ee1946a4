"""Face detection and alignment, on the example photos and on images with a known result."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from siamese import images
from siamese.faces import crop, retinaface
from siamese.faces.detection import Detection, _main_face_first, find_faces
from siamese.faces.face import TEMPLATE

from .conftest import EXAMPLES

POINTS = np.array(TEMPLATE)
PHOTOS = sorted(EXAMPLES.glob("*.jpg"))


def find(photo: Image.Image) -> list[Detection]:
    return find_faces([photo])[0]


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference of two crops, in gray levels."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize("file", PHOTOS, ids=lambda file: file.stem)
def test_face_of_each_example_is_found(file):
    photo = images.read(file)
    face, *_ = find(photo)
    left, top, right, bottom = face.box
    assert face.score > 0.9
    assert all(left < x < right and top < y < bottom for x, y in face.landmarks)
    (x1, y1), (x2, y2), nose, mouth_left, mouth_right = face.landmarks
    assert x1 < nose[0] < x2
    assert mouth_left[0] < mouth_right[0]
    assert max(y1, y2) < nose[1] < min(mouth_left[1], mouth_right[1])
    assert abs(face.angle) < 20
    assert face.turn < 0.5


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("file", PHOTOS, ids=lambda file: file.stem)
def test_rotated_photo_gives_the_same_landmarks(file, quarters):
    photo = images.read(file)
    upright = find(photo)[0]
    (face, *_) = find(photo.rotate(90 * quarters, expand=True))
    assert (face.angle + 90 * quarters - upright.angle + 180) % 360 == pytest.approx(180, abs=8)
    points = np.array(face.landmarks) @ (1, 1j) * 1j**quarters
    points += (0, photo.width, complex(*photo.size), 1j * photo.height)[quarters]
    assert abs(points - np.array(upright.landmarks) @ (1, 1j)).max() < 0.08 * upright.size


@pytest.mark.parametrize("file", PHOTOS, ids=lambda file: file.stem)
def test_photo_cropped_to_the_face_gives_the_same_landmarks(file):
    """The detector pads with gray. Clamping crops to the image would move the landmarks."""
    photo = images.read(file)
    face = find(photo)[0]
    left, top, right, bottom = (round(value) for value in face.box)
    tight = photo.crop((left, top, right, bottom))
    again = find(tight)[0]
    moved = np.array(again.landmarks) + np.array([left, top]) - np.array(face.landmarks)
    assert np.abs(moved).max() < 0.1 * face.size


@pytest.mark.parametrize(("name", "sides"), [("collins", (0, 0.6)), ("obama-portrait", (0.4, 1)), ("biden", (0, 0.6))])
def test_face_that_the_edge_cuts_off_is_found(name, sides):
    photo = images.read(EXAMPLES / f"{name}.jpg")
    left, top, right, bottom = find(photo)[0].box
    x1, x2 = (round(left + side * (right - left)) for side in sides)
    tight = photo.crop((x1, round(top), x2, round(bottom)))
    tight.thumbnail((150, 150))
    (face,) = find(tight)
    assert abs(face.angle) < 20
    assert face.size == pytest.approx(math.hypot(*tight.size), rel=0.4)


def test_small_and_rotated_faces_are_found_beside_a_large_one():
    """In a photo of 12 megapixels: small upright faces, and larger ones on their side and upside down."""
    large, small = images.read(EXAMPLES / "biden.jpg"), images.read(EXAMPLES / "collins.jpg")
    size = find(small)[0].size
    photo = Image.new("RGB", (4000, 3000), "gray")
    photo.paste(large.resize((2000, 2500)), (0, 200))
    centres = []
    for row, (pixels, quarters) in enumerate(((70, 0), (110, 0), (320, 1), (320, 2), (320, 3))):
        scale = pixels / size
        head = small.resize((round(scale * small.width), round(scale * small.height)))
        head = head.rotate(90 * quarters, expand=True)
        corner = 2100 + row % 2 * 900, 50 + row // 2 * 950
        photo.paste(head, corner)
        centres.append((corner[0] + head.width / 2, corner[1] + head.height / 2, max(head.size) / 2, pixels, quarters))
    reduced = photo.reduce(2)
    found = [face.scaled(2) for face in find(reduced)]
    assert len(found) == 6
    for x, y, reach, pixels, quarters in centres:
        (face,) = [f for f in found if math.dist((x, y), np.mean(f.landmarks, axis=0)) < reach]
        assert face.size == pytest.approx(pixels, rel=0.2)
        assert (face.angle + 90 * quarters + 180) % 360 == pytest.approx(180, abs=15)


def test_face_partly_behind_another_is_kept():
    behind, front = (images.read(EXAMPLES / name) for name in ("biden.jpg", "obama-portrait.jpg"))
    boxes = [find(photo)[0].box for photo in (behind, front)]
    front = front.crop(tuple(map(round, boxes[1])))
    left, top, right, _ = boxes[0]
    behind.paste(front, (round(right - 0.3 * (right - left)), round(top)))
    found = find(behind)
    assert len(found) == 2
    (a, b), (c, d) = sorted((face.box[0], face.box[2]) for face in found)
    assert (b - c) / min(b - a, d - c) > 0.15


def test_all_faces_are_found_and_the_central_one_comes_first():
    photos = [images.read(EXAMPLES / name).resize((300, 400)) for name in ("biden.jpg", "obama-portrait.jpg")]
    wide = Image.new("RGB", (900, 400))
    for x, photo in ((0, photos[0]), (300, photos[1]), (600, photos[0])):
        wide.paste(photo, (x, 0))
    found = find(wide)
    assert len(found) == 3
    assert 300 < found[0].box[0] < 600
    assert found[1].size >= found[2].size


def test_largest_face_inside_the_photo_comes_first():
    def face(left, top, side):
        return Detection((left, top, left + side, top + side), ((0.0, 0.0),) * 5, 0.99)

    size = 1000, 600
    large, small, cut_off = face(100, 100, 300), face(600, 200, 100), face(-150, 100, 400)
    assert _main_face_first([small, large], size) == [large, small]
    assert _main_face_first([cut_off, small], size) == [small, cut_off]
    assert _main_face_first([small, cut_off, large], size) == [large, cut_off, small]
    assert _main_face_first([cut_off], size) == [cut_off]
    middle, aside = face(400, 150, 260), face(700, 150, 300)
    assert _main_face_first([aside, middle], size) == [middle, aside]


def test_tiny_face_is_found_if_there_is_no_other():
    photo = images.read(EXAMPLES / "collins.jpg").resize((80, 80))
    wide = Image.new("RGB", (700, 500), "gray")
    wide.paste(photo, (300, 200))
    (face,) = find(wide)
    assert face.size < 20
    assert 300 < face.box[0] < face.box[2] < 380


def test_batch_gives_the_results_of_single_photos():
    """Photos of different sizes, upright and on their side, with several faces, and without any."""
    photos = [images.read(file) for file in PHOTOS]
    wide = Image.new("RGB", (500, 300))
    for x, photo in enumerate(photos[:2]):
        wide.paste(photo.resize((240, 300)), (250 * x, 0))
    small = photos[3].resize((160, 213))
    photos += [wide, small, small.rotate(90, expand=True), Image.new("RGB", (8, 8)), Image.new("RGB", (90, 400))]
    for together, photo in zip(find_faces(photos), photos, strict=True):
        alone = find(photo)
        assert len(together) == len(alone)
        for a, b in zip(together, alone, strict=True):
            assert a.box == pytest.approx(b.box, abs=0.01)
            assert np.array(a.landmarks) == pytest.approx(np.array(b.landmarks), abs=0.01)
            assert a.score == pytest.approx(b.score, abs=1e-4)
    assert find_faces([]) == []


@pytest.mark.parametrize("size", [(8, 8), (2000, 8), (13, 640)])
def test_no_face_is_found_in_blank_images_and_noise(size):
    assert find(Image.new("RGB", size, "white")) == []
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert find(Image.fromarray(noise)) == []


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the (2, 3) matrix A of the paper's similarity transform, by SVD: target = A · (source, 1)."""
    s, t = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(t.T @ s)
    sign = np.diag([1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = (d * np.diag(sign)).sum() / (s**2).sum()
    return np.column_stack([scale * rotation, target.mean(0) - scale * rotation @ source.mean(0)])


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(0.6, 1.8),
    angle=st.floats(-math.pi, math.pi),
    jitter=st.integers(0, 10_000),
)
def test_crop_is_umeyamas_transform(scale, angle, jitter):
    """The red of the image is x and its green is y, so the colours of the crop give the source of each pixel."""
    grid = np.arange(256, dtype=np.uint8)
    ramp = Image.fromarray(np.stack([*np.meshgrid(grid, grid), np.zeros((256, 256), np.uint8)], axis=2))
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    landmarks = (POINTS - 0.5) @ turn.T * 60 + 128 + np.random.default_rng(jitter).normal(0, 3, (5, 2))
    cropped = crop(ramp, Detection((0, 0, 1, 1), tuple(map(tuple, landmarks)), 1.0), 60, TEMPLATE)

    matrix = umeyama(landmarks, POINTS * 60)
    for x, y in itertools.product((20, 30, 40), (20, 30, 40)):
        source = np.linalg.solve(matrix[:, :2], (x + 0.5, y + 0.5) - matrix[:, 2]) - 0.5
        red, green, _ = cropped.getpixel((x, y))
        assert (red, green) == pytest.approx(tuple(source), abs=1.6)


def test_crop_of_a_large_face_is_averaged():
    """A fine chessboard at a tenth of its size is gray, without an aliasing pattern."""
    board = Image.fromarray((np.indices((1500, 1500)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    pixels = np.asarray(crop(board, Detection((0, 0, 1, 1), tuple(map(tuple, POINTS * 1500)), 1.0), 150, TEMPLATE))
    assert abs(pixels[20:-20, 20:-20].astype(float) - 127.5).max() < 4


def test_crop_is_black_outside_the_photo():
    landmarks = tuple(map(tuple, (POINTS - 0.5) * 100))
    white = Image.new("RGB", (200, 200), "white")
    pixels = np.asarray(crop(white, Detection((0, 0, 1, 1), landmarks, 1.0), 100, TEMPLATE))
    assert pixels[:45].max() == 0
    assert pixels[55:, 55:].min() == 255


def test_scaled_detection():
    face = Detection((1, 2, 3, 4), ((1.0, 1.5),) * 5, 0.9).scaled(2)
    assert face == Detection((2, 4, 6, 8), ((2.0, 3.0),) * 5, 0.9)


def test_network_gives_the_outputs_of_the_published_file():
    """The reference was computed by onnxruntime, see tools/build_weights.py."""
    with np.load(Path(__file__).parent / "retinaface_reference.npz") as reference:
        image, scores, outputs = (reference[name] for name in ("image", "scores", "outputs"))  # (N,), (N, 14)
    x = torch.from_numpy(image).permute(2, 0, 1)[None] - torch.tensor(retinaface.MEAN)[:, None, None]
    with torch.inference_mode():
        levels = retinaface.load_network(torch.device("cpu"), torch.float32)(x.float())
    rows = []
    for level in levels:  # (1, 30, H, W): a row of the file for each cell and anchor
        cells = level[0].permute(1, 2, 0).flatten(0, 1)
        parts = cells[:, :2, None], cells[:, 2:10].unflatten(1, (2, 4)), cells[:, 10:].unflatten(1, (2, 10))
        rows.append(torch.cat(parts, dim=2).flatten(0, 1))
    ours = torch.cat(rows).numpy()
    assert scores.max() > 0.99
    assert 1 / (1 + np.exp(-ours[:, 0])) == pytest.approx(scores, abs=1e-5)
    assert ours[:, 1:] == pytest.approx(outputs, abs=1e-4)  # a tenth of this in sides of the anchor
