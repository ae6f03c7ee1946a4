"""The answer to a comparison of two photos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from siamese import wording
from siamese.faces import Face
from siamese.images import data_uri
from siamese.wording import Verdict, Vocabulary

SYMBOLS: dict[Verdict, str] = {"same": "=", "different": "≠", "unsure": "?", "no face": "–"}


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two photos. `print` shows it as a sentence, and a notebook as a card.

    If a photo shows several faces, the answer is for the pair of faces that is most likely the same person.

    Attributes:
        verdict: "same" or "different" at odds of at least 3 to 1, else "unsure"; "no face" if a photo shows none. For a
            requested false-match rate, "same" up to `threshold`, if both faces are good enough for this rate.
        probability: P(same) in [0, 1]. It assumes that the photos are as likely as not to show the same person, and
            that each pair of faces is equally likely to be that person: the odds are the mean of the likelihood ratios
            of all pairs. NaN if a face is missing.
        confidence_interval: 95 % confidence interval of `probability`; None if it is unknown or a face is missing.
        dissimilarity: Euclidean distance of the two embeddings, ≥ 0; lower is more alike. NaN if a face is missing.
        threshold: the distance that decides: largest distance with the verdict "same". Below 0 if no distance would be
            enough, because the faces are too poor.
        fmr: the requested false-match rate; None for a verdict at odds of 3 to 1.
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
    threshold: float
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
        verdict = wording.describe_verdict(self.verdict, self.probability, self.fmr, self.words)
        if self.verdict == "no face":
            return " ".join(self.warnings)
        chance = wording.describe_probability(self.verdict, self.probability, self.words)
        if self.verdict != "unsure":  # it would repeat the verdict
            chance = chance.partition(" likely ")[0]
        which = wording.describe_faces(self.numbers, (len(self.found[0]), len(self.found[1])))
        return f"{verdict} ({chance}){f': {which}' if which else ''}."

    def _repr_html_(self) -> str:
        crops = [
            f'<img src="{data_uri(face.crop)}" alt="Face in the {photo} photo" height="112" style="border-radius: 8px">'
            for face, photo in zip(self.faces, wording.PHOTOS, strict=True)
            if face
        ]
        symbol = f'<span style="font-size: 2em">{SYMBOLS[self.verdict]}</span>'
        warnings = "".join(f"<p>{escape(warning)}</p>" for warning in self.warnings if self.verdict != "no face")
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
            "fmr": self.fmr,
            "faces": [face and _face_to_dict(face) for face in self.faces],
            "numbers": list(self.numbers),
            "pairs": self.pairs,
            "found": [[_face_to_dict(face) for face in faces] for faces in self.found],
            "warnings": list(self.warnings),
            "model": self.model,
        }


def _face_to_dict(face: Face) -> dict:
    names = ("box", "landmarks", "angle", "score", "quality", "covered")
    return {name: getattr(face, name) for name in names}
