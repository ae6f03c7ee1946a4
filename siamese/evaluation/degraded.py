"""Make photographs worse on purpose, and fit and test the network and its probabilities on them."""

import io
import math
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from siamese import images
from siamese.calibration import LOWEST_SCORE, VERDICT_PROBABILITY, Calibration
from siamese.data.lfw import Lfw, LfwPair
from siamese.distributed import progress_bar
from siamese.evaluation import calibrate, metrics
from siamese.evaluation.lfw import score_lfw
from siamese.evaluation.pairs import Scored
from siamese.faces.detection import Detection, find_faces
from siamese.faces.quality import REGIONS, part_changes, visible_quality
from siamese.model import Model
from siamese.network import SiameseNetwork

UNTOUCHED = "none"
UNTOUCHED_WEIGHT = 20.0  # of the untouched pairs in the calibration, relative to those of each degradation
NUISANCE_DIM = 5  # chosen by cross-validation over people on View 1
CONFIDENT = 0.97  # an error with at least this probability, or at most its complement, is a confident error

# Half of an outline, in units of the distance between the eyes, from the midpoint of the eyes. x is along the line
# through the eyes, y points to the mouth, see `_frame`.
Outline = tuple[tuple[float, float], ...]


class Cover(NamedTuple):
    """Something that hides a part of a face."""

    outlines: tuple[Outline, ...]  # polygons, each drawn together with its mirror image
    top: tuple[int, int, int]  # RGB color
    bottom: tuple[int, int, int]
    bands: int = 1  # how often the color changes from `top` to `bottom`
    opacity: int = 255  # which hides everything


_PLAIN: Outline = ((0, 0.3), (0.95, 0.45), (0.8, 1.35), (0, 1.95))
_PLEATED: Outline = ((0, 0.42), (0.4, 0.4), (0.85, 0.6), (0.8, 1.45), (0.45, 1.8), (0, 1.9))
_CONE: Outline = ((0, 0.25), (0.2, 0.42), (0.6, 0.65), (0.72, 1.0), (0.68, 1.45), (0.4, 1.75), (0, 1.85))
_SCARF: Outline = ((0, 0.24), (0.5, 0.26), (1.05, 0.2), (1.15, 1.2), (1.0, 2.2), (0, 2.4))
_BAR: Outline = ((0, -0.05), (1.0, -0.08), (1.0, 0), (0, 0.03))
_ROUND: Outline = tuple((0.5 + 0.36 * math.cos(k * math.pi / 12), 0.27 * math.sin(k * math.pi / 12)) for k in range(24))
_RECTANGLE: Outline = ((0.14, -0.2), (0.9, -0.24), (0.86, 0.24), (0.18, 0.24))
_DROP: Outline = ((0.12, -0.2), (0.55, -0.26), (0.92, -0.2), (0.92, 0.1), (0.7, 0.42), (0.4, 0.42), (0.16, 0.15))
_GOGGLES: Outline = ((0, -0.42), (0.6, -0.45), (1.0, -0.25), (1.0, 0.25), (0.7, 0.45), (0.25, 0.42), (0, 0.2))

MASKS = {
    "plain": Cover((_PLAIN,), (110, 150, 190), (110, 150, 190)),
    "surgical": Cover((_PLEATED,), (150, 190, 215), (120, 160, 190), 4),
    "respirator": Cover((_CONE,), (240, 240, 238), (205, 205, 200)),
    "cloth": Cover((_PLEATED,), (30, 30, 32), (12, 12, 14)),
    "pattern": Cover((_PLAIN,), (180, 50, 60), (235, 220, 200), 7),
    "scarf": Cover((_SCARF,), (120, 40, 40), (70, 20, 25), 3),
}
GLASSES = {
    "round": Cover((_ROUND, _BAR), (15, 15, 15), (15, 15, 15)),
    "rectangle": Cover((_RECTANGLE, _BAR), (20, 20, 24), (35, 35, 40)),
    "aviator": Cover((_DROP, _BAR), (60, 35, 15), (130, 90, 50), opacity=225),
    "goggles": Cover((_GOGGLES,), (30, 60, 110), (220, 120, 40), opacity=245),
    "mirrored": Cover((_DROP, _BAR), (170, 190, 210), (40, 50, 70)),
}

Degradation = Callable[[Image.Image, Detection], Image.Image]


# --- degradations


def shrink(photo: Image.Image, face: Detection, pixels: float) -> Image.Image:
    """Shrink a photograph until its face has a size of `pixels`, see `Detection.size`."""
    factor = pixels / face.size
    size = max(1, round(photo.width * factor)), max(1, round(photo.height * factor))
    return photo.resize(size, Image.Resampling.BICUBIC)


def blur(photo: Image.Image, face: Detection) -> Image.Image:
    """Apply a Gaussian blur with a standard deviation of 4 % of the face's size."""
    return photo.filter(ImageFilter.GaussianBlur(0.04 * face.size))


def compress(photo: Image.Image, face: Detection) -> Image.Image:
    """Compress as JPEG at quality 10."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=10)
    return Image.open(file).convert("RGB")


def darken(photo: Image.Image, face: Detection) -> Image.Image:
    """Reduce the brightness to a fifth."""
    return ImageEnhance.Brightness(photo).enhance(0.2)


def decolor(photo: Image.Image, face: Detection) -> Image.Image:
    """Remove all color."""
    return photo.convert("L").convert("RGB")


def draw_glasses(photo: Image.Image, face: Detection) -> Image.Image:
    """Draw dark glasses over the eyes, of one of several kinds."""
    return draw_cover(photo, face, _choose(GLASSES, photo))


def draw_mask(photo: Image.Image, face: Detection) -> Image.Image:
    """Draw a mask from the nose to below the chin, of one of several kinds."""
    return draw_cover(photo, face, _choose(MASKS, photo))


def draw_both(photo: Image.Image, face: Detection) -> Image.Image:
    """Draw a mask and dark glasses, each of one of several kinds."""
    return draw_cover(draw_mask(photo, face), face, _choose(GLASSES, photo))


def draw_cover(photo: Image.Image, face: Detection, cover: Cover) -> Image.Image:
    """Draw a cover over a face."""
    place = _frame(face)
    stencil = Image.new("L", photo.size)
    for outline in cover.outlines:
        for side in (-1, 1):
            points = [place(complex(side * x, y)) for x, y in outline]
            ImageDraw.Draw(stencil).polygon(points, fill=cover.opacity)
    box = stencil.getbbox() or (0, 0, 1, 1)
    shade = Image.linear_gradient("L").resize((box[2] - box[0], box[3] - box[1]))
    shade = shade.point([value * cover.bands % 256 for value in range(256)])
    photo = photo.copy()
    photo.paste(ImageOps.colorize(shade, cover.top, cover.bottom), box, stencil.crop(box))
    return photo


def _choose(covers: dict[str, Cover], photo: Image.Image) -> Cover:
    """Return one of several covers, always the same for a photo."""
    return list(covers.values())[zlib.crc32(photo.tobytes()) % len(covers)]


def _frame(face: Detection) -> Callable[[complex], tuple[float, float]]:
    """Return a map from the face's coordinates to the photograph's.

    The origin is the midpoint of the eyes, 1 is the distance between them, and y points to the mouth. The coordinates
    are sheared so that (0, 1.1) is the middle of the mouth.
    """
    left, right, _, mouth_left, mouth_right = (complex(*point) for point in face.landmarks)
    middle, across = (left + right) / 2, right - left
    down = ((mouth_left + mouth_right) / 2 - middle) / 1.1

    def place(point: complex) -> tuple[float, float]:
        at = middle + point.real * across + point.imag * down
        return at.real, at.imag

    return place


COVERS: dict[str, Degradation] = {"dark glasses": draw_glasses, "mask": draw_mask, "mask and dark glasses": draw_both}
DEGRADATIONS: dict[str, Degradation] = {
    **{f"{n} pixels": lambda photo, face, n=n: shrink(photo, face, n) for n in (40, 30, 20, 14)},
    "blur": blur,
    "JPEG at quality 10": compress,
    "dark": darken,
    "gray": decolor,
    **COVERS,
}


# --- pairs of degraded photographs


class Features(NamedTuple):
    """The unscaled embedding of a photo, (D,), and its `part_changes`, (2,). NaN if no face was found."""

    embedding: np.ndarray
    changes: np.ndarray


# For each degradation and `UNTOUCHED`, the features of each photo.
DegradedFeatures = dict[str, dict[str, Features]]


@dataclass(frozen=True)
class DegradedPairs:
    """Pairs with one or both photographs degraded."""

    degradation: str  # a key of `DEGRADATIONS`, or `UNTOUCHED`
    both: bool  # whether both photographs are degraded, or only the first
    scored: Scored  # the pairs in which both faces were found
    total: int  # number of all pairs


@dataclass(frozen=True)
class DegradedResult:
    """Metrics of the probabilities of pairs with degraded photos. Genuine and impostor pairs count half each."""

    degradation: str  # a key of `DEGRADATIONS`, or `UNTOUCHED`
    both: bool  # whether both photos of a pair are degraded, or one
    pairs: int  # number of pairs in which both faces were found
    missing: float  # share of all pairs with a photo in which no face was found
    calibration_error: float  # see `Report`
    confident_errors: float  # share of pairs with a confident error, see `CONFIDENT`
    unsure: float  # share of pairs with the verdict "unsure"
    errors: float  # share of pairs on the wrong side of a probability of 0.5
    false_matches: float  # share of impostor pairs with the verdict "same"


@torch.inference_mode()
def embed_degraded(
    model: Model, lfw: Lfw, files: Collection[str], degradations: Mapping[str, Degradation] = DEGRADATIONS
) -> DegradedFeatures:
    """Embed photographs and their degraded versions. The face is detected anew in each version."""
    network, names = model.network, (UNTOUCHED, *degradations)
    result: DegradedFeatures = {name: {} for name in names}
    for file, content in progress_bar(lfw.read(files), total=len(files), unit=" images", desc="degrading"):
        photo = images.read(content)
        (faces,) = find_faces([photo], network.device)
        if not faces:
            continue
        versions = [photo, *(degrade(photo, faces[0]) for degrade in degradations.values())]
        found = model.detect(versions)
        x = torch.stack([faces[0].pixels for faces in found if faces]).to(network.device)
        embeddings = network.features(x)
        rows = zip(embeddings.float().cpu().numpy(), part_changes(network, x, embeddings).numpy(), strict=True)
        for name, faces in zip(names, found, strict=True):
            missing = (np.full(size, np.nan, np.float32) for size in (network.embedding_dim, len(REGIONS)))
            result[name][file] = Features(*(next(rows) if faces else missing))
    return result


def nuisance_directions(features: DegradedFeatures) -> np.ndarray:
    """Compute the main directions in which degradations move embeddings of length 1 on average.

    Returns:
        (`NUISANCE_DIM`, D) float32, orthonormal; for `SiameseNetwork.nuisance`.
    """

    def mean(name: str) -> np.ndarray:
        rows = np.stack([row.embedding for row in features[name].values()])
        return np.nanmean(rows / np.linalg.norm(rows, axis=1, keepdims=True), axis=0)

    shifts = np.stack([mean(name) - mean(UNTOUCHED) for name in DEGRADATIONS])
    return np.linalg.svd(shifts, full_matrices=False)[2][:NUISANCE_DIM]


@torch.inference_mode()
def degraded_pairs(
    network: SiameseNetwork, features: DegradedFeatures, pairs: Iterable[LfwPair]
) -> list[DegradedPairs]:
    """Score pairs with no, both, or one photograph degraded, for each degradation.

    The network turns the features into embeddings and qualities. Pairs without a face in an untouched photograph are
    left out.
    """
    z, quality = {}, {}
    for name, rows in features.items():
        embeddings, changes = (torch.from_numpy(np.stack(column)) for column in zip(*rows.values(), strict=True))
        stacked = embeddings.to(network.device)  # (N, D)
        known = network.quality(stacked)
        qualities = None if known is None else visible_quality(known.float().cpu(), changes)
        z[name] = dict(zip(rows, network.head(stacked).cpu().numpy(), strict=True))
        quality[name] = {} if qualities is None else dict(zip(rows, qualities.tolist(), strict=True))
    known = features[UNTOUCHED]
    pairs = [pair for pair in pairs if pair.first in known and pair.second in known]
    result = []
    for name in features:
        for both in (True, False) if name != UNTOUCHED else (True,):
            second = name if both else UNTOUCHED
            # The degraded version of a photograph has a name of its own, in the folder of the same person.
            versions = {f"{file}*": row for file, row in z[name].items()} | z[second]
            values = {f"{file}*": value for file, value in quality[name].items()} | quality[second]
            renamed = [pair._replace(first=f"{pair.first}*") for pair in pairs]
            scored, found = score_lfw(versions, renamed, values)
            result.append(DegradedPairs(name, both, scored.select(found), len(found)))
    return result


def fit_calibration(results: Sequence[DegradedPairs], with_people: bool) -> Calibration:
    """Fit a calibration of distance and quality on untouched and degraded pairs.

    Each kind of pair has the same weight, half of it for genuine pairs; the untouched pairs have `UNTOUCHED_WEIGHT`
    times as much. `with_people` also estimates the covariance.
    """
    weights = []
    for kind in results:
        factor = UNTOUCHED_WEIGHT if kind.degradation == UNTOUCHED else 1.0
        weights.append(metrics.balance(kind.scored.same) * factor * len(results[0].scored.same))
    scored = Scored.concatenate([kind.scored for kind in results])
    people = scored.people if with_people else None
    return calibrate.fit_calibration(scored.distance, scored.same, people, scored.quality, np.concatenate(weights))


def judge(
    network: SiameseNetwork,
    features: DegradedFeatures,
    folds: Sequence[Sequence[LfwPair]],
    calibrations: Sequence[Calibration],
) -> list[DegradedResult]:
    """Compute metrics of the probabilities of degraded pairs, each fold with its own calibration."""
    kinds = zip(*(degraded_pairs(network, features, fold) for fold in folds), strict=True)
    return [_judge(parts, calibrations) for parts in kinds]


def _judge(parts: Sequence[DegradedPairs], calibrations: Sequence[Calibration]) -> DegradedResult:
    """Compute metrics of one kind of pairs, given their folds. Genuine and impostor pairs count half each."""
    fits = list(zip(parts, calibrations, strict=True))
    probability = np.concatenate([fit.probability(part.scored.distance, part.scored.quality) for part, fit in fits])
    score = np.concatenate([fit.score(part.scored.distance, part.scored.quality) for part, fit in fits])
    same = np.concatenate([part.scored.same for part in parts])
    weight = metrics.balance(same)
    wrong = np.where(same, probability <= 1 - CONFIDENT, probability >= CONFIDENT)
    unsure = (probability > 1 - VERDICT_PROBABILITY) & (score < LOWEST_SCORE)
    return DegradedResult(
        degradation=parts[0].degradation,
        both=parts[0].both,
        pairs=len(same),
        missing=1 - len(same) / sum(part.total for part in parts),
        calibration_error=metrics.calibration_error(probability, same),
        confident_errors=float((weight * wrong).sum()),
        unsure=float((weight * unsure).sum()),
        errors=float((weight * ((probability >= 0.5) != same)).sum()),
        false_matches=float((score[~same] >= LOWEST_SCORE).mean()),
    )
