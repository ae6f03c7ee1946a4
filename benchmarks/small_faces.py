"""How well a small or lying face is found beside a large one, on photos of 12 megapixels made of LFW.

    python benchmarks/small_faces.py --data DIR --json benchmarks/results/small_faces.json

DIR holds LFW, see `siamese.data.lfw.Lfw`, and grocery.zip, for backgrounds: photos of the Grocery Store Dataset (github
marcusklasson/GroceryStoreDataset; Klasson et al., WACV 2019). Each composed photo shows two heads of LFW, and is saved
as JPEG. One face is large. The other one is asked for: it is small, or the head is rotated by 90, 180 or 270 degrees.
Sizes are those of the detector's box, see `Detection.size`. The composed photo is compared with another photo of the
person asked for, or, in every second case, with a photo of a stranger.

    found   a detected face has its centre in the box of the face asked for, and its size up to a factor of 1.5
    right   "same" with the face asked for; for a stranger, "different"
    alone   the same question, with the face asked for cut out of the composed photo: what the network itself misses

By default the people are those of View 2 that are not in View 1. Choose settings with `--view 1`, whose people are
those of View 1. Takes an hour and a half on two CPU cores.
"""

import io
import random
import statistics
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
from group_photos import is_inside, photos_of_view
from PIL import Image
from tqdm import tqdm

import siamese
from siamese import images
from siamese.data.lfw import Lfw
from siamese.faces.detection import ROTATE, Box
from siamese.model import Model

PHOTOS = 300  # of each set
SIZE = (4000, 3000)
QUALITY = 92  # of the JPEG files
HEAD_MARGIN = 0.5  # around a face, in face sizes
ALONE_MARGIN = 1.0
SIZE_FACTOR = 1.5
BACKGROUND_PICTURES = 12
BACKGROUND_SIDES = (300, 1500)  # of a picture in the background, in pixels
NOISE = 5.0  # standard deviation in the background, of 255
TILES = 4  # of noise, in each direction
TIMED = 10  # comparisons


class Set(NamedTuple):
    """A kind of composed photos: the sizes of both faces in pixels, and whether the face asked for is rotated."""

    sizes: tuple[int, int]
    large_sizes: tuple[int, int] = (600, 1000)
    lying: bool = False


SETS = {
    "60 to 120 pixels": Set((60, 120)),
    "40 to 60 pixels": Set((40, 60)),
    "lying": Set((300, 600), (300, 600), lying=True),
}


class Case(NamedTuple):
    """A question: a photo to compare with, the photos of both heads, and whether the first two show one person."""

    other: str
    asked: str
    large: str
    genuine: bool


class Head(NamedTuple):
    """A head to paste, and the box of its face in it."""

    image: Image.Image
    box: Box


def choose_cases(people: dict[str, list[str]], count: int, rng: random.Random) -> list[Case]:
    """Choose the people of each composed photo. Every second one is compared with a stranger."""
    twice, cases = sorted(name for name, files in people.items() if len(files) > 1), []
    for number in range(count):
        name = rng.choice(twice)
        asked, other = rng.sample(people[name], 2)
        large, stranger = rng.sample(sorted(people.keys() - {name}), 2)
        other = rng.choice(people[stranger]) if number % 2 else other
        cases.append(Case(other, asked, rng.choice(people[large]), not number % 2))
    return cases


def cut_head(content: bytes, box: Box, size: float, quarter_turns: int = 0) -> Head:
    """Cut the head out of a photo, scale it so that its face has a size in pixels, and rotate it."""
    photo, face_size = images.read(content), face_size_of(box)
    margin = HEAD_MARGIN * face_size
    left, top = max(0, round(box[0] - margin)), max(0, round(box[1] - margin))
    right, bottom = min(photo.width, round(box[2] + margin)), min(photo.height, round(box[3] + margin))
    scale = size / face_size
    head = photo.crop((left, top, right, bottom))
    head = head.resize((round(head.width * scale), round(head.height * scale)), Image.Resampling.LANCZOS)
    x1, y1, x2, y2 = ((value - start) * scale for value, start in zip(box, (left, top, left, top), strict=True))
    for _ in range(quarter_turns):
        x1, y1, x2, y2 = y1, head.width - x2, y2, head.width - x1
        head = head.transpose(ROTATE[1])
    return Head(head, (x1, y1, x2, y2))


def face_size_of(box: Box) -> float:
    return ((box[2] - box[0]) * (box[3] - box[1])) ** 0.5


def background(pictures: zipfile.ZipFile, rng: random.Random) -> Image.Image:
    """Return a photo without people: a gradient, pictures of groceries, and noise."""
    numbers = np.random.default_rng(rng.randrange(1 << 32))
    corners = Image.fromarray(numbers.integers(0, 256, (2, 3, 3), dtype=np.uint8))
    photo = corners.resize(SIZE, Image.Resampling.BICUBIC)
    files = [name for name in sorted(pictures.namelist()) if name.endswith(".jpg")]
    for file in rng.sample(files, BACKGROUND_PICTURES):
        side = rng.randint(*BACKGROUND_SIDES)
        picture = images.read(pictures.read(file)).resize((side, side), Image.Resampling.BICUBIC)
        photo.paste(picture, (rng.randint(-side // 2, SIZE[0]), rng.randint(-side // 2, SIZE[1])))
    noise = numbers.normal(0, NOISE, (SIZE[1] // TILES, SIZE[0] // TILES, 1)).round().astype(np.int16)
    return Image.fromarray((np.asarray(photo) + np.tile(noise, (TILES, TILES, 1))).clip(0, 255).astype(np.uint8))


def paste(photo: Image.Image, large: Head, asked: Head, rng: random.Random) -> Box:
    """Paste two heads at random places that do not overlap. Returns the box of the face asked for."""
    gap = round((ALONE_MARGIN - HEAD_MARGIN) * face_size_of(asked.box))  # so that it can be cut out alone
    while True:
        places = [
            (rng.randint(0, SIZE[0] - head.image.width), rng.randint(0, SIZE[1] - head.image.height))
            for head in (large, asked)
        ]
        (x1, y1), (x2, y2) = places
        beside = x2 + asked.image.width + gap <= x1 or x1 + large.image.width + gap <= x2
        if beside or y2 + asked.image.height + gap <= y1 or y1 + large.image.height + gap <= y2:
            break
    for head, place in zip((large, asked), places, strict=True):
        photo.paste(head.image, place)
    left, top, right, bottom = asked.box
    return left + x2, top + y2, right + x2, bottom + y2


def as_jpeg(photo: Image.Image) -> bytes:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def compose(
    kind: Set, cases: list[Case], contents: dict[str, bytes], boxes: dict[str, Box], pictures: zipfile.ZipFile
) -> Iterator[tuple[Case, bytes, Box]]:
    """Yield each case, with its composed photo and the box of the face asked for."""
    rng = random.Random(0)
    for case in cases:
        large = cut_head(contents[case.large], boxes[case.large], rng.uniform(*kind.large_sizes))
        turns = rng.choice((1, 2, 3)) if kind.lying else 0
        asked = cut_head(contents[case.asked], boxes[case.asked], rng.uniform(*kind.sizes), turns)
        photo = background(pictures, rng)
        box = paste(photo, large, asked, rng)
        yield case, as_jpeg(photo), box


def judge(model: Model, case: Case, other: bytes, photo: images.ImageSource, box: Box) -> tuple[bool, str]:
    """Ask one question. Returns whether the face asked for was found, and the outcome."""
    answer = model.compare(other, photo)
    size = face_size_of(box)
    found = any(
        is_inside(face, box) and 1 / SIZE_FACTOR <= face.detection.size / size <= SIZE_FACTOR
        for face in answer.found[1]
    )
    if case.genuine and answer.verdict == "same" and not is_inside(answer.faces[1], box):
        return found, "genuine_wrong_face"
    return found, f"{'genuine' if case.genuine else 'stranger'}_{answer.verdict}".replace(" ", "_")


def cut_out(photo: bytes, box: Box) -> tuple[Image.Image, Box]:
    """Cut a face with a margin out of a photo. Returns the part, and the box of the face in it."""
    margin = ALONE_MARGIN * face_size_of(box)
    left, top = max(0, round(box[0] - margin)), max(0, round(box[1] - margin))
    right, bottom = min(SIZE[0], round(box[2] + margin)), min(SIZE[1], round(box[3] + margin))
    part = images.read(photo).crop((left, top, right, bottom))
    return part, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def summarize(judged: list[tuple[bool, str]]) -> dict:
    answers = Counter(outcome for _, outcome in judged)
    return {
        "found": sum(found for found, _ in judged) / len(judged),
        "right": (answers["genuine_same"] + answers["stranger_different"]) / len(judged),
        "answers": dict(sorted(answers.items())),
    }


def measure(model: Model, lfw: Lfw, people: dict[str, list[str]], pictures: zipfile.ZipFile, count: int) -> dict:
    """Measure each set of composed photos, and the time of a comparison of two of them."""
    chosen = {title: choose_cases(people, count, random.Random(title)) for title in SETS}
    contents = dict(lfw.read({file for cases in chosen.values() for case in cases for file in case[:3]}))
    heads = {file for cases in chosen.values() for case in cases for file in (case.asked, case.large)}
    detected = {file: model.detect([contents[file]])[0] for file in tqdm(sorted(heads), desc="heads")}
    boxes = {file: faces[0].box for file, faces in detected.items() if faces}
    sets, kept = {}, []
    for title, kind in SETS.items():
        cases = [case for case in chosen[title] if case.asked in boxes and case.large in boxes]
        together, alone = [], []
        photos = compose(kind, cases, contents, boxes, pictures)
        for case, photo, box in tqdm(photos, total=len(cases), desc=title):
            together.append(judge(model, case, contents[case.other], photo, box))
            alone.append(judge(model, case, contents[case.other], *cut_out(photo, box)))
            kept = (*kept, photo)[-2:]
        sets[title] = {"photos": len(cases), **summarize(together), "alone": summarize(alone)}
    return {"sets": sets, "compare_s": time_of_comparison(model, kept)}


def time_of_comparison(model: Model, photos: tuple[bytes, bytes]) -> float:
    """Return the median time in seconds of a comparison of two files."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.jpg") for number in range(2)]
        for file, photo in zip(files, photos, strict=True):
            file.write_bytes(photo)
        model.compare(*files)
        return statistics.median(common.timed(model.compare, *files)[0] for _ in range(TIMED))


def main() -> None:
    parser = common.parser(__doc__, data=True, view=2)
    parser.add_argument("--count", type=int, default=PHOTOS, help="composed photos of each set (default: %(default)s)")
    args = parser.parse_args()
    model, lfw = siamese.load(), Lfw(args.data)
    people = photos_of_view(lfw, args.view)
    with zipfile.ZipFile(args.data / "grocery.zip") as pictures:
        result = {"view": args.view, "people": len(people), **measure(model, lfw, people, pictures, args.count)}
    common.finish(result, args.json, common.two_cores(args.json))


if __name__ == "__main__":
    main()
