"""How well a person is found in a photo with several faces, on group photos made of LFW.

    python benchmarks/group_photos.py --data DIR --json benchmarks/results/group_photos.json

DIR holds LFW, see `siamese.data.lfw.Lfw`. Only people that are not in View 1, which the calibration was fitted on, are
used. A portrait is compared with a group photo of 3 to 8 people at random sizes; in every second one, one of them is
the person of the portrait. An answer is right if it is "same" with the right face, or "different". It is compared with
the rule that only the main face of a photo counts: the largest one near the middle.

The false-match rates are from the embeddings alone: for each draw, a portrait and 3 to 8 photos of other people.
Takes fifteen minutes on one CPU core.
"""

import math
import random
from collections import Counter, defaultdict

import common
import numpy as np
from PIL import Image
from scipy.stats import binomtest

import siamese
from siamese import images
from siamese.data.lfw import LFW_ALIASES, Lfw
from siamese.evaluation.lfw import embed_main_faces, person
from siamese.model import Model

GROUP_PHOTOS = 300
PEOPLE = range(3, 9)
HEAD_BOX = (45, 25, 205, 225)  # of 250 × 250
CELL = 200  # pixels of a group photo for each person
SCALES = (0.5, 1.0)
DRAWS = 300_000
RATES = (1e-2, 1e-3, 1e-4, 1e-5)


def photos_of_new_people(lfw: Lfw) -> dict[str, list[str]]:
    """Return the files in View 2 of each person who is not in View 1."""
    seen = {person(file) for pair in lfw.view1() for file in (pair.first, pair.second)}
    people = defaultdict(list)
    for file in sorted({file for fold in lfw.folds() for pair in fold for file in (pair.first, pair.second)}):
        if person(file) not in seen:
            people[LFW_ALIASES.get(person(file), person(file))].append(file)
    return people


def photos_of_view(lfw: Lfw, view: int) -> dict[str, list[str]]:
    """Return the files of each person: of View 1, or of View 2 without the people of View 1."""
    if view != 1:
        return photos_of_new_people(lfw)
    people = defaultdict(list)
    for file in sorted({file for pair in lfw.view1() for file in (pair.first, pair.second)}):
        people[LFW_ALIASES.get(person(file), person(file))].append(file)
    return people


def group_photo(contents: list[bytes], rng: random.Random) -> tuple[Image.Image, list[tuple[int, int, int, int]]]:
    """Place heads of random size in rows. Returns the photo and the box of each person."""
    columns = math.ceil(math.sqrt(len(contents)))
    photo = Image.new("RGB", (columns * CELL, math.ceil(len(contents) / columns) * CELL), (96, 104, 112))
    boxes = []
    for place, content in enumerate(contents):
        head = images.read(content).crop(HEAD_BOX)
        scale = rng.uniform(*SCALES)
        head = head.resize((round(head.width * scale), round(head.height * scale)), Image.Resampling.LANCZOS)
        left, top = place % columns * CELL + (CELL - head.width) // 2, place // columns * CELL + CELL - head.height
        photo.paste(head, (left, top))
        boxes.append((left, top, left + head.width, top + head.height))
    return photo, boxes


def is_inside(face: siamese.Face, box: tuple[int, int, int, int]) -> bool:
    """Whether the centre of a face is inside a box."""
    assert face.box
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def measure_photos(model: Model, lfw: Lfw, people: dict[str, list[str]]) -> dict:
    """Count the answers to `GROUP_PHOTOS` comparisons, with all faces and with the main face only."""
    rng = random.Random(0)
    twice = sorted(name for name, files in people.items() if len(files) > 1)
    cases = []
    for number in range(GROUP_PHOTOS):
        names = rng.sample(sorted(people), rng.choice(PEOPLE))
        asked = rng.choice(twice)
        names = [name for name in names if name != asked]
        portrait, other = rng.sample(people[asked], 2)
        members = [rng.choice(people[name]) for name in names]
        place = rng.randrange(len(members)) if number % 2 else None
        if place is not None:
            members[place] = other
        cases.append((portrait, members, place))
    contents = dict(lfw.read({file for portrait, members, _ in cases for file in (portrait, *members)}))
    answers = {"all_faces": Counter(), "main_face": Counter()}
    for portrait, members, place in cases:
        photo, boxes = group_photo([contents[file] for file in members], rng)
        for rule, face in (("all_faces", None), ("main_face", (None, 1))):
            answer = model.compare(contents[portrait], photo, face=face)
            right_face = place is not None and is_inside(answer.faces[1], boxes[place])
            if place is None:
                outcome = f"stranger_{answer.verdict}"
            elif answer.verdict == "same" and not right_face:
                outcome = "member_wrong_face"
            else:
                outcome = f"member_{answer.verdict}"
            answers[rule][outcome.replace(" ", "_")] += 1
    return {
        rule: {"right": (count["member_same"] + count["stranger_different"]) / GROUP_PHOTOS, "answers": dict(count)}
        for rule, count in answers.items()
    }


def measure_rates(model: Model, lfw: Lfw, people: dict[str, list[str]]) -> dict:
    """Return the share of draws of strangers with the verdict "same", at each strictness."""
    files = [file for group in people.values() for file in group]
    z_of, quality_of = embed_main_faces(model, lfw.read(files), len(files))
    numbers = np.array([number for number, group in enumerate(people.values()) for _ in group])
    z, quality = np.array([z_of[file] for file in files]), np.array([quality_of[file] for file in files])
    found = ~np.isnan(quality)  # photos in which a face was found
    z, quality, numbers = z[found], quality[found], numbers[found]
    rng = np.random.default_rng(0)
    count = Counter()
    for _ in range(DRAWS):
        rows = rng.integers(len(z), size=1 + rng.choice(PEOPLE))
        portrait, group = rows[:1], rows[1:][numbers[rows[1:]] != numbers[rows[0]]]
        distance = np.linalg.norm(z[portrait] - z[group], axis=1)
        pairs = np.stack(np.broadcast_arrays(quality[portrait], quality[group]), axis=1)
        score = model.calibration.score(distance, pairs).max()
        for rate in ("default", *RATES):
            fmr = None if rate == "default" else rate
            count[rate] += score >= model.calibration.needed(fmr, len(group))
    return {
        str(rate): {
            "rate": count[rate] / DRAWS,
            "interval": list(binomtest(int(count[rate]), DRAWS).proportion_ci(method="wilson")),
        }
        for rate in ("default", *RATES)
    }


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    model, lfw = siamese.load(), Lfw(args.data)
    people = photos_of_new_people(lfw)
    result = {
        "people": len(people),
        "group_photos": GROUP_PHOTOS,
        "draws": DRAWS,
        "photos": measure_photos(model, lfw, people),
        "false_match_rates": measure_rates(model, lfw, people),
    }
    common.finish(result, args.json, {})


if __name__ == "__main__":
    main()
