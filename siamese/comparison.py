"""Compare two photos that may show several faces: which faces, which pair, and the verdict."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from siamese import wording
from siamese.calibration import VERDICT_PROBABILITY, Calibration, logistic
from siamese.faces import Face
from siamese.images import data_uri
from siamese.wording import Verdict, Vocabulary

SYMBOLS: dict[Verdict, str] = {"same": "=", "different": "≠", "unsure": "?", "no face": "–", "not read": "–"}
MAX_COMPARED_FACES = 32  # of a photo
SMALL_SIZES = 1.5  # a face below this multiple of the smallest detectable size suggests that smaller ones were missed


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two photos. `print` shows it as a sentence, and a notebook as a card.

    If a photo shows several faces, the answer is for the pair of faces that is most likely the same person.

    Attributes:
        verdict: "same" if the score reaches `Calibration.needed` at the requested false-match rate; else "different" if
            `probability` is at most 0.25, or "unsure"; "no face" if a photo shows none; "not read" if
            `Model.compare_many` could not read a photo.
        probability: P(same) in [0, 1]. It assumes that the photos are as likely as not to show the same person, and
            that each pair of faces is equally likely to be that person: the odds are the mean of the likelihood ratios
            of all pairs. NaN if a face is missing.
        confidence_interval: 95 % confidence interval of `probability`; None if it is unknown or a face is missing.
        dissimilarity: Euclidean distance of the two embeddings, ≥ 0; lower is more alike. NaN if a face is missing.
        threshold: the largest distance at which this pair of faces, with their qualities, would be "same"; None if no
            distance would, because the faces are too poor, or a face is missing.
        score: of the pair, from distance and quality, see `Calibration.score`. NaN if a face is missing.
        fmr: the requested false-match rate; None for the default.
        faces: the two compared faces; None for a photo without a face.
        numbers: which of the `found` faces they are, from 1.
        pairs: how many pairs of faces were compared.
        found: all faces in each photo, the main one first; empty if the network compares whole images.
        warnings: sentences for the user, for example about a blurred face; often empty.
        model: the network that gave the answer, see `Model.id`.
    """

    verdict: Verdict
    probability: float
    confidence_interval: tuple[float, float] | None
    dissimilarity: float
    threshold: float | None
    score: float
    fmr: float | None
    faces: tuple[Face | None, Face | None]
    numbers: tuple[int, int]
    pairs: int
    found: tuple[tuple[Face, ...], tuple[Face, ...]]
    warnings: tuple[str, ...]
    model: str

    @property
    def same(self) -> bool | None:
        """True or False for the verdicts "same" and "different", else None."""
        return {"same": True, "different": False}.get(self.verdict)

    @property
    def words(self) -> Vocabulary:
        """Words for what was compared: faces or whole images."""
        return wording.IMAGES if all(face and face.box is None for face in self.faces) else wording.FACES

    def __bool__(self) -> bool:
        raise TypeError("a Comparison is neither true nor false; use answer.same, which is True, False or None")

    def __str__(self) -> str:
        if not self.pairs:
            return " ".join(self.warnings)
        verdict = wording.describe_verdict(self.verdict, self.probability, self.fmr, self.words)
        if self.verdict == "unsure":
            chance = wording.describe_probability(self.verdict, self.probability, self.words)
        else:  # the verdict names what is likely
            chance = wording.describe_chance(self.verdict, self.probability)
        which = wording.describe_faces(self.numbers, (len(self.found[0]), len(self.found[1])))
        return f"{verdict} ({chance}){f': {which}' if which else ''}."

    def _repr_html_(self) -> str:
        crops = [
            f'<img src="{data_uri(face.crop)}" alt="Face in the {photo} photo" height="112" style="border-radius: 8px">'
            for face, photo in zip(self.faces, wording.PHOTOS, strict=True)
            if face and face.crop
        ]
        symbol = f'<span style="font-size: 2em">{SYMBOLS[self.verdict]}</span>'
        warnings = "".join(f"<p>{escape(warning)}</p>" for warning in self.warnings if self.pairs)
        return f"""
<div style="display: flex; gap: 12px; align-items: center">{symbol.join(crops)}</div>
<p><b>{escape(str(self))}</b></p>
{warnings}"""

    def to_dict(self) -> dict:
        """Return all but the crops, for JSON, with None instead of NaN."""
        known = not math.isnan(self.dissimilarity)
        return {
            "verdict": self.verdict,
            "same": self.same,
            "probability": self.probability if known else None,
            "confidence_interval": self.confidence_interval and list(self.confidence_interval),
            "dissimilarity": self.dissimilarity if known else None,
            "threshold": self.threshold,
            "score": self.score if known else None,
            "fmr": self.fmr,
            "faces": [face and face.to_dict() for face in self.faces],
            "numbers": list(self.numbers),
            "pairs": self.pairs,
            "found": [[face.to_dict() for face in faces] for faces in self.found],
            "warnings": list(self.warnings),
            "model": self.model,
        }


def compare_faces(
    calibration: Calibration,
    faces: tuple[Sequence[Face], Sequence[Face]],
    z: tuple[np.ndarray, np.ndarray],
    fmr: float | None = None,
) -> Comparison:
    """Compare every face of one photo with every face of the other.

    Args:
        calibration: of the network.
        faces: n1 and n2 faces with their qualities, at least one each.
        z: (n1, D) and (n2, D), their embeddings.
        fmr: the false-match rate of the two photos, at most, see `Calibration.needed`.
    """
    distance = np.linalg.norm(z[0][:, None].astype(float) - z[1], axis=2)  # (n1, n2)
    q1, q2 = (np.array([face.quality for face in side], dtype=float) for side in faces)  # NaN without quality scores
    quality = np.stack(np.broadcast_arrays(q1[:, None], q2), axis=2)  # (n1, n2, 2)
    known = None if np.isnan(quality).any() else quality
    score, log_odds = calibration.score(distance, known), calibration.log_odds(distance, known)  # (n1, n2)
    row, column = divmod(int(score.argmax()), score.shape[1])
    others = np.delete(log_odds.ravel(), score.argmax())

    def probability(closest: float) -> float:
        """Return P(same) of the photos if these are the log-odds of the pair with the highest score."""
        return float(logistic(np.logaddexp.reduce([closest, *others]) - math.log(score.size)))

    best, pair = float(log_odds[row, column]), (faces[0][row], faces[1][column])
    margin = calibration.score_margin(float(distance[row, column]), _qualities(pair))
    answer = Comparison(
        verdict="unsure",
        probability=probability(best),
        confidence_interval=None if margin is None else (probability(best - margin), probability(best + margin)),
        dissimilarity=float(distance[row, column]),
        threshold=None,
        score=float(score[row, column]),
        fmr=None,
        faces=pair,
        numbers=(row + 1, column + 1),
        pairs=score.size,
        found=(tuple(faces[0]), tuple(faces[1])),
        warnings=(),
        model="",
    )
    return decide(calibration, answer, fmr)


def no_face(
    found: tuple[tuple[Face, ...], tuple[Face, ...]], reasons: Sequence[str | None], fmr: float | None
) -> Comparison:
    """Return the answer for two photos that cannot be compared.

    Args:
        found: the faces of each photo.
        reasons: for each photo, why it could not be read; empty if it shows no face, None if it can be compared.
        fmr: the false-match rate that was requested.
    """
    missing = [
        wording.NOT_READ.format(name, reason) if reason else wording.NO_FACE.format(f"{name} photo")
        for name, reason in zip(wording.PHOTOS, reasons, strict=True)
        if reason is not None
    ]
    first, second = found
    return Comparison(
        verdict="not read" if any(reasons) else "no face",
        probability=math.nan,
        confidence_interval=None,
        dissimilarity=math.nan,
        threshold=None,
        score=math.nan,
        fmr=fmr,
        faces=(first[0] if first else None, second[0] if second else None),
        numbers=(1, 1),
        pairs=0,
        found=found,
        warnings=tuple(missing),
        model="",
    )


def decide(calibration: Calibration, answer: Comparison, fmr: float | None) -> Comparison:
    """Return an answer with the verdict and the threshold at a false-match rate.

    Args:
        calibration: of the network that gave the answer.
        answer: at any false-match rate.
        fmr: see `Calibration.needed`.

    Raises:
        ValueError: see `Calibration.needed`.
    """
    needed = calibration.needed(fmr, max(answer.pairs, 1))
    if not answer.pairs:
        return replace(answer, fmr=fmr)
    threshold = calibration.distance_at(needed, _qualities(answer.faces))
    warnings = [warning for warning in answer.warnings if warning != wording.TOO_POOR]
    return replace(
        answer,
        verdict=verdict_of(answer.score >= needed, answer.probability),
        threshold=threshold if threshold >= 0 else None,
        fmr=fmr,
        warnings=(*warnings, wording.TOO_POOR) if threshold < 0 else tuple(warnings),
    )


def verdict_of(is_same: bool, probability: float) -> Verdict:
    """Return the verdict on a pair that is "same" or not, with P(same) in [0, 1]."""
    return "same" if is_same else "different" if probability <= 1 - VERDICT_PROBABILITY else "unsure"


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


def rows_to_compare(faces: Sequence[Face], number: int | None, photo: str) -> list[int]:
    """Return which faces of a photo to compare, from 0: the requested one, or the largest `MAX_COMPARED_FACES`.

    Raises:
        ValueError: if the photo does not show the requested face.
    """
    if number is None:
        return list(range(min(len(faces), MAX_COMPARED_FACES)))
    if faces and not 1 <= number <= len(faces):
        expected = f"1 to {len(faces)}" if len(faces) > 1 else "1"
        plural = "s" if len(faces) > 1 else ""
        raise ValueError(f"the {photo} shows {len(faces)} face{plural}: face must be {expected}, got {number}")
    return [number - 1] if faces else []


def left_out(faces: Sequence[Face], photo: str) -> list[str]:
    """Say which faces of a photo were not compared, or may have been missed, although no face was requested."""
    sentences = []
    if len(faces) > MAX_COMPARED_FACES:
        sentences.append(
            f"Of the {len(faces)} faces in the {photo} photo, only the {MAX_COMPARED_FACES} largest are compared."
        )
    detections = [face.detection for face in faces if face.detection]
    if any(face.size < SMALL_SIZES * face.smallest for face in detections):
        limit = detections[0].smallest
        sentences.append(f"Faces of less than {limit:.0f} pixels in the {photo} photo may have been missed.")
    return sentences


def _qualities(faces: Sequence[Face | None]) -> list[float] | None:
    """Return the qualities of two faces; None if the network has no quality scores."""
    known = [face.quality for face in faces if face and face.quality is not None]
    return known if len(known) == len(faces) else None
