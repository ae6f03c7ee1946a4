"""Whether two people count as the same because both wear a mask or dark glasses of a kind that was not fitted on.

    python benchmarks/covers.py --data DIR --json benchmarks/results/covers.json

DIR holds LFW, see `siamese.data.lfw.Lfw`. Masks and dark glasses of several kinds are drawn on photos, see
`siamese.evaluation.degraded`. For each kind, the face network is fitted and calibrated as by tools/build_weights.py,
but on fewer photos of View 1, of which none wears this kind. It is judged on people of View 2 that are not in View 1,
with two photos of each, which all wear it. All pairs of photos of different people are impostor pairs. For a mask with
dark glasses, both kinds are left out. Takes 15 minutes on two CPU cores.
"""

import zlib
from itertools import combinations

import common
import numpy as np
from group_photos import photos_of_view
from PIL import Image

import siamese
from siamese.calibration import Calibration
from siamese.data.lfw import Lfw, LfwPair
from siamese.evaluation import degraded, face_network
from siamese.evaluation.degraded import COVERS, DEGRADATIONS, GLASSES, MASKS, DegradedFeatures, draw_cover
from siamese.evaluation.lfw import person
from siamese.faces.detection import Detection
from siamese.network import SiameseNetwork
from siamese.record import People

FITTED_STEP = 8  # every eighth genuine pair of View 1
PEOPLE = 100
Kind = tuple[str, ...]  # the names of the covers that are worn together
BOTH = [(mask, list(GLASSES)[number % len(GLASSES)]) for number, mask in enumerate(MASKS)]
KINDS = {
    "mask": [(name,) for name in MASKS],
    "dark glasses": [(name,) for name in GLASSES],
    "mask and dark glasses": BOTH,
}


def wear(kind: Kind) -> degraded.Degradation:
    """Return a function that draws these covers."""

    def draw(photo: Image.Image, face: Detection) -> Image.Image:
        for name in kind:
            photo = draw_cover(photo, face, (MASKS | GLASSES)[name])
        return photo

    return draw


EACH = {"+".join(kind): wear(kind) for kinds in KINDS.values() for kind in kinds}


def without(features: DegradedFeatures, left_out: Kind) -> DegradedFeatures:
    """Return features in which each covered photo wears one of the kinds that share no cover with `left_out`."""
    result = {name: rows for name, rows in features.items() if name not in EACH}
    for cover, kinds in KINDS.items():
        names = ["+".join(kind) for kind in kinds if not set(kind) & set(left_out)]
        files = features[degraded.UNTOUCHED]
        result[cover] = {file: features[names[zlib.crc32(file.encode()) % len(names)]][file] for file in files}
    return result


def fit(
    network: SiameseNetwork, features: DegradedFeatures, pairs: list[LfwPair], reference_norm: float
) -> tuple[SiameseNetwork, Calibration]:
    """Return the network with quality scores, and its calibration, as `face_network.fit` does."""
    rated = face_network.add_quality(network, features, reference_norm)
    return rated, degraded.fit_calibration(degraded.degraded_pairs(rated, features, pairs), with_people=False)


def judge(
    fitted: tuple[SiameseNetwork, Calibration], features: DegradedFeatures, name: str, pairs: list[LfwPair]
) -> dict:
    """Return the shares of pairs with the verdict "same" if all wear a kind."""
    network, calibration = fitted
    chosen = {degraded.UNTOUCHED: features[degraded.UNTOUCHED], name: features[name]}
    _, worn, _ = degraded.degraded_pairs(network, chosen, pairs)
    is_same = calibration.score(worn.scored.distance, worn.scored.quality) >= calibration.needed()
    genuine = worn.scored.same
    return {
        "genuine": int(genuine.sum()),
        "impostor": int((~genuine).sum()),
        "missing": 1 - len(genuine) / worn.total,
        "true_matches": float(is_same[genuine].mean()),
        "false_matches": float(is_same[~genuine].mean()),
    }


def summarize(rows: list[dict]) -> dict:
    """Return the mean shares of several kinds, the number of their impostor pairs, and the worst kind."""
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("missing", "true_matches", "false_matches")}
    worst = max(row["false_matches"] for row in rows)
    return {"kinds": len(rows), "impostor": sum(row["impostor"] for row in rows), **means, "worst": worst}


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    model, lfw = siamese.load(), Lfw(args.data)
    assert model.template
    assert model.network.reference_norm
    plain = SiameseNetwork("mobilefacenet", 192, mirror=True, unit=True).eval()
    plain.backbone = model.network.backbone
    start = face_network.unmeasured(plain, model.template, People([], []))
    fitting = face_network.fitting_pairs(lfw, FITTED_STEP)
    others = {name: degrade for name, degrade in DEGRADATIONS.items() if name not in COVERS}
    fitted_on = degraded.embed_degraded(start, lfw, face_network.files_of(fitting), others | EACH)

    people = [files[:2] for files in photos_of_view(lfw, 2).values() if len(files) > 1][:PEOPLE]
    files = [file for two in people for file in two]
    judged = degraded.embed_degraded(start, lfw, files, EACH)
    pairs = [LfwPair(a, b, person(a) == person(b)) for a, b in combinations(files, 2)]
    kinds = {}
    for cover, names in KINDS.items():
        for kind in names:
            name = "+".join(kind)
            fitted = fit(plain, without(fitted_on, kind), fitting, model.network.reference_norm)
            kinds[name] = {"cover": cover, **judge(fitted, judged, name, pairs)}
    covers = {cover: summarize([row for row in kinds.values() if row["cover"] == cover]) for cover in KINDS}
    result = {"people": len(people), "photos": len(files), "covers": covers, "kinds": kinds}
    promises = {
        'at most 2% of the impostor pairs are "same"': all(row["false_matches"] <= 0.02 for row in covers.values())
    }
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
