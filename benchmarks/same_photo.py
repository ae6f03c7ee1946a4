"""How well the faces of group photos are grouped, with and without the rule that a photo shows each person once.

    python benchmarks/same_photo.py --data DIR --json benchmarks/results/same_photo.json

DIR holds LFW, see `siamese.data.lfw.Lfw`. The group photos are made of 200 people who are not in View 1, which the
calibration was fitted on. In one half, four random people are in a photo. In the other half, two of the four look
alike, as relatives do: to one person comes the one of the 199 others whose photo is closest. Without the rule, each
face counts as if it was on a photo of its own. Takes three minutes on one CPU core.
"""

import random

import common
import numpy as np
from group_photos import group_photo, is_inside, photos_of_new_people
from search_lfw import b_cubed, to_labels

import siamese
from siamese.data.lfw import Lfw
from siamese.model import Model
from siamese.search.embedding import embed_photos
from siamese.search.people import GROUP_FMR, partition

PEOPLE, PHOTOS, FACES = 200, 150, 4  # people, group photos of each kind, people in each


def draw_groups(closest: list[int], rng: random.Random) -> dict[str, list[list[int]]]:
    """Return the people in each photo."""
    everybody = range(PEOPLE)
    alike = [[number, closest[number]] for number in rng.choices(everybody, k=PHOTOS)]
    others = [rng.sample([number for number in everybody if number not in two], FACES - 2) for two in alike]
    return {
        "random_people": [rng.sample(everybody, FACES) for _ in range(PHOTOS)],
        "look_alikes": [two + rest for two, rest in zip(alike, others, strict=True)],
    }


def measure(model: Model, contents: dict[str, bytes], files: list[list[str]], groups: list[list[int]]) -> dict:
    """Group the faces of photos that show these people."""
    rng = random.Random(0)
    z, quality, photos, truth = [], [], [], []
    for number, group in enumerate(groups):
        photo, boxes = group_photo([contents[rng.choice(files[person])] for person in group], rng)
        (found,) = embed_photos(model, [photo])
        for row, face in zip(found.z, found.faces, strict=True):
            inside = [person for person, box in zip(group, boxes, strict=True) if is_inside(face, box)]
            if inside:
                z.append(row)
                quality.append(face.quality)
                photos.append(number)
                truth.append(inside[0])
    vectors, qualities, photo, person = np.stack(z), np.array(quality), np.array(photos), np.array(truth)
    needed = model.calibration.needed(GROUP_FMR, len(vectors))
    result: dict = {"photos": len(groups), "faces": len(vectors)}
    for name, numbers in (("without_rule", np.arange(len(vectors))), ("with_rule", photo)):
        people, left_over = partition(vectors, qualities, numbers, model.calibration, needed)
        together = sum(len(rows) - len(set(photo[rows].tolist())) for rows in people)
        scores = {key: round(float(value), 4) for key, value in b_cubed(to_labels(people, len(z)), person).items()}
        result[name] = {"faces_grouped_with_one_of_their_photo": together, "left_over": len(left_over), **scores}
    return result


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    model, lfw, rng = siamese.load(device="cpu"), Lfw(args.data), random.Random(0)
    known = photos_of_new_people(lfw)
    files = [known[name] for name in rng.sample([name for name in sorted(known) if len(known[name]) > 1], PEOPLE)]
    contents = dict(lfw.read({file for several in files for file in several}))
    portraits = np.stack([model.embed([contents[several[0]]])[0] for several in files])
    distances = np.linalg.norm(portraits[:, None] - portraits, axis=2)
    np.fill_diagonal(distances, np.inf)
    groups = draw_groups(np.nan_to_num(distances, nan=np.inf).argmin(1).tolist(), rng)
    result = {"people": PEOPLE, "fmr": GROUP_FMR}
    result |= {kind: measure(model, contents, files, several) for kind, several in groups.items()}
    promises = {
        f"{kind}: the rule joins no two people of a photo and does not lower F": (
            part["with_rule"]["faces_grouped_with_one_of_their_photo"] == 0
            and part["with_rule"]["f"] >= part["without_rule"]["f"]
        )
        for kind, part in ((kind, result[kind]) for kind in groups)
    }
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
