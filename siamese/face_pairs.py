"""Compare two photos that may show several faces: which faces to compare, and P(same) for the photos."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from siamese import wording
from siamese.calibration import Calibration
from siamese.comparison import Comparison
from siamese.faces import Face
from siamese.wording import VERDICT_PROBABILITY, Verdict, verdict_of

VERDICT_ODDS = VERDICT_PROBABILITY / (1 - VERDICT_PROBABILITY)
MIN_FACE_SCORE = 0.9  # of faces other than the main one of a photo; below it, many detections are no faces
MAX_FACES = 32  # of a photo that are compared
LOWEST_ODDS = 1e-12  # for which a threshold is computed


@dataclass(frozen=True)
class ClosestPair:
    """The pair of faces that is most likely the same person, and what it says about the two photos.

    Attributes:
        rows: which face of each photo, from 0.
        distance: Euclidean distance of the two embeddings, ≥ 0.
        probability: P(same) of the photos, in [0, 1].
        confidence_interval: 95 % confidence interval of `probability`; None if it is not known.
        threshold: the distance up to which the photos show the same person: at odds of 3 to 1, or at the requested
            false-match rate.
        verdict: at this threshold. A requested false-match rate also needs faces of `Calibration.min_quality`.
        is_too_poor: whether the two faces are too poor for the requested false-match rate.
    """

    rows: tuple[int, int]
    distance: float
    probability: float
    confidence_interval: tuple[float, float] | None
    threshold: float
    verdict: Verdict
    is_too_poor: bool


def closest_pair(
    calibration: Calibration,
    z: tuple[np.ndarray, np.ndarray],
    quality: tuple[np.ndarray, np.ndarray] | None,
    fmr: float | None,
) -> ClosestPair:
    """Compare every face of one photo with every face of the other.

    The prior is that the photos share a person with probability 1/2, and that each of the n pairs of faces is equally
    likely to be that person. So the odds are the mean of the n likelihood ratios. A false-match rate is divided by n,
    so that it holds for the photos as a whole.

    Args:
        calibration: of the network.
        z: (n1, D) and (n2, D), the embeddings of the faces of each photo; n = n1 · n2.
        quality: (n1,) and (n2,), their qualities, in [0, 1]; None if the network has no quality scores.
        fmr: the false-match rate for the photos; None for odds of 3 to 1.

    Raises:
        ValueError: if the false-match rate was not measured.
    """
    distance = np.linalg.norm(z[0][:, None].astype(float) - z[1], axis=2)  # (n1, n2)
    qualities = None if quality is None else np.stack(np.broadcast_arrays(quality[0][:, None], quality[1]), axis=2)
    log_odds = calibration.log_odds(distance, qualities)  # (n1, n2)
    row, column = divmod(int(log_odds.argmax()), log_odds.shape[1])
    closest, pair_quality = float(distance[row, column]), None if qualities is None else qualities[row, column]
    others = np.delete(log_odds.ravel(), log_odds.argmax())

    def probability(pair: float) -> float:
        """Return P(same) of the photos if these are the log-odds of the closest pair."""
        return 1 / (1 + math.exp(-float(np.logaddexp.reduce([pair, *others])) + math.log(log_odds.size)))

    margin = calibration.log_odds_margin(closest, pair_quality)
    best = float(log_odds[row, column])
    if fmr is None:
        needed = max(VERDICT_ODDS * log_odds.size - float(np.exp(others).sum()), LOWEST_ODDS)
        threshold, is_too_poor = calibration.distance_at(needed / (1 + needed), pair_quality), False
    else:
        threshold = _threshold_at(calibration, fmr, log_odds.size)
        is_too_poor = _are_too_poor(calibration, () if pair_quality is None else pair_quality.tolist())
    return ClosestPair(
        (row, column),
        closest,
        probability(best),
        None if margin is None else (probability(best - margin), probability(best + margin)),
        threshold,
        _decide(closest <= threshold and not is_too_poor, probability(best)),
        is_too_poor,
    )


def at_fmr(calibration: Calibration, answer: Comparison, fmr: float) -> Comparison:
    """Return what `Model.compare` answers at a false-match rate, from its answer at odds of 3 to 1.

    Args:
        calibration: of the network that gave the answer.
        answer: without a requested false-match rate.
        fmr: the false-match rate for the photos.

    Raises:
        ValueError: if the false-match rate was not measured.
    """
    threshold = _threshold_at(calibration, fmr, answer.pairs)
    answer = replace(answer, fmr=calibration.operating_point(fmr).fmr, threshold=threshold)
    if not answer.pairs:
        return answer
    is_too_poor = _are_too_poor(calibration, (face.quality for face in answer.faces if face))
    verdict = _decide(answer.dissimilarity <= threshold and not is_too_poor, answer.probability)
    too_poor = (f"The photos are too poor for a false-match rate of {wording.one_in(fmr)}.",) if is_too_poor else ()
    return replace(answer, verdict=verdict, warnings=answer.warnings + too_poor)


def _threshold_at(calibration: Calibration, fmr: float, pairs: int) -> float:
    """Return the distance up to which the closest of some pairs of faces is the same person."""
    point = calibration.operating_point(fmr)
    return point.distance if pairs <= 1 else calibration.distance_at_fmr(point.fmr / pairs)


def _are_too_poor(calibration: Calibration, qualities: Iterable[float | None]) -> bool:
    """Return whether two faces, of which some qualities may be unknown, are too poor for any false-match rate."""
    return any(quality is not None and quality < calibration.min_quality for quality in qualities)


def _decide(is_same: bool, probability: float) -> Verdict:
    """Return the verdict: "same" only if `is_same`, else what P(same) says, but at most "unsure"."""
    verdict = verdict_of(probability)
    return "same" if is_same else "unsure" if verdict == "same" else verdict


def face_numbers(face: int | tuple[int | None, int | None] | None) -> tuple[int | None, int | None]:
    """Return the requested face of each photo, from 1; None for all.

    Raises:
        ValueError: if there are not two numbers.
    """
    numbers = tuple(face) if isinstance(face, Sequence) else (face, face)
    if len(numbers) != 2:
        raise ValueError(f"face must be one number, or one for each of the two photos, got {face!r}")
    first, second = (None if number is None else operator.index(number) for number in numbers)
    return first, second


def rows_to_compare(faces: list[Face], number: int | None, photo: str) -> list[int]:
    """Return which faces of a photo to compare, from 0: the requested one, or all that are certainly faces.

    Of more than `MAX_FACES` faces, those are the largest.

    Raises:
        ValueError: if the photo does not show the requested face.
    """
    if number is None:
        largest = faces[:MAX_FACES]
        return [row for row, face in enumerate(largest) if row == 0 or (face.score or 0) >= MIN_FACE_SCORE]
    if faces and not 1 <= number <= len(faces):
        expected = f"1 to {len(faces)}" if len(faces) > 1 else "1"
        plural = "s" if len(faces) > 1 else ""
        raise ValueError(f"the {photo} photo shows {len(faces)} face{plural}: face must be {expected}, got {number}")
    return [number - 1] if faces else []


def name_left_out(found: list[list[Face]], rows: list[list[int]], chosen: tuple[int | None, int | None]) -> list[str]:
    """Name the faces that were too poor to compare."""
    sentences = []
    for photo, faces, compared, number in zip(wording.PHOTOS, found, rows, chosen, strict=True):
        if number is not None:
            continue
        if len(faces) > MAX_FACES:
            sentences.append(
                f"Of the {len(faces)} faces in the {photo} photo, only the {MAX_FACES} largest are compared."
            )
        others = [row + 1 for row in range(len(faces[:MAX_FACES])) if row not in compared]
        if others:
            subject = f"faces {wording.listed(others)} are" if len(others) > 1 else f"face {others[0]} is"
            sentences.append(f"In the {photo} photo, {subject} too poor to compare.")
    return sentences
