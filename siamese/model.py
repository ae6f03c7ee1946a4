"""Two pictures → how unlike they are, what that means, and how sure it is."""

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from siamese import images
from siamese.calibration import Calibration
from siamese.faces.detection import Found
from siamese.faces.face import Face, quality_warnings, see
from siamese.network import SiameseNetwork, distance

# Beyond three to one either way the verdict is given; between, it is "unsure".
SURE = 0.75

BATCH = 32

Verdict = Literal["same", "unsure", "different"]


@dataclass(frozen=True)
class Comparison:
    """The answer for two pictures.

    Attributes:
        dissimilarity: Euclidean distance of the two embeddings, ≥ 0; lower is more alike. NaN where a face is missing.
        threshold: the distance up to which the verdict may be "same": where both are equally likely, or that of the
            false-match rate asked for.
        probability: P(same) in [0, 1] if both were equally likely beforehand. NaN where a face is missing.
        band: the 95 % confidence limits of `probability`; None where the calibration has none or a face is missing.
        verdict: "same" or "different" where the odds are at least three to one, else "unsure". Where a false-match rate
            was asked for, "same" up to its threshold.
        faces: what the network saw of each; None where no face was found.
        found: all faces in each picture, the one to compare first; empty for plain images.
        warnings: sentences for the person who asked; often none.
        model: which network answered, see `Model.id`.
    """

    dissimilarity: float
    threshold: float
    probability: float
    band: tuple[float, float] | None
    verdict: Verdict
    faces: tuple[Face | None, Face | None]
    found: tuple[tuple[Found, ...], tuple[Found, ...]] = ((), ())
    warnings: tuple[str, ...] = ()
    model: str = ""

    def to_dict(self) -> dict:
        """Return the answer as JSON holds it: all but the crops, and null for NaN."""
        known = not math.isnan(self.dissimilarity)
        return {
            "dissimilarity": self.dissimilarity if known else None,
            "threshold": self.threshold,
            "probability": self.probability if known else None,
            "band": self.band and list(self.band),
            "verdict": self.verdict,
            "faces": [
                face and {"box": face.box, "landmarks": face.landmarks, "angle": face.angle, "score": face.score}
                for face in self.faces
            ],
            "found": [[asdict(face) for face in found] for found in self.found],
            "warnings": list(self.warnings),
            "model": self.model,
        }


class Model:
    """A trained network with its calibration; made by `load`, safe to share between threads.

    Attributes:
        network: the network, in evaluation mode.
        calibration: distance → P(same).
        record: the contents of its metrics.json: what it was trained on and how well it does.
        name: the folder or Hub id that it came from.
        align: how a picture comes to the network: "faces" finds the face in it and cuts it out upright, "none" takes
            the picture whole.
        revision: of one from the Hub, its commit; else None.
        note: a sentence where the Hub was not reached, and this is a copy that was kept; else empty.
    """

    def __init__(
        self,
        network: SiameseNetwork,
        calibration: Calibration,
        record: dict,
        name: str,
        align: str = "none",
        revision: str | None = None,
        note: str = "",
    ):
        if align not in ("faces", "none"):
            raise ValueError(f"{name}: unknown align {align!r}; this version knows: faces, none")
        self.network, self.calibration, self.record, self.name = network.eval(), calibration, record, name
        self.align, self.revision, self.note = align, revision, note

    @property
    def id(self) -> str:
        """USER/NAME@COMMIT of a network from the Hub, which `load` takes; else the name of its folder."""
        return f"{self.name}@{self.revision}" if self.revision else Path(self.name).resolve().name

    def embed(self, pictures: Iterable[images.ImageSource]) -> np.ndarray:
        """Turn pictures into embeddings; the Euclidean distance of two rows is the dissimilarity of the pictures.

        Args:
            pictures: N paths, PIL images, uint8 arrays or others, see `images.read`.

        Returns:
            (N, D) float32; a row of NaN where a face was to be found and there is none.

        Raises:
            FileNotFoundError, ValueError: for a picture that cannot be read.
        """
        if images.is_one(pictures):
            raise ValueError("expected several pictures, got one: put it into a list")
        pictures = list(pictures)
        batches = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)] or [[]]
        return np.concatenate(
            [self._embed([found[0] if found else None for found in self.see(batch)]).numpy() for batch in batches]
        )

    def embed_faces(self, seen: Sequence[Face]) -> np.ndarray:
        """Turn N things of `see` into (N, D) float32 embeddings."""
        return self._embed(seen).numpy()

    def see(self, pictures: Sequence[images.ImageSource]) -> list[list[Face]]:
        """Return what the network may see of each picture, see `see`."""
        return see(pictures, self.network.input_shape, self.align, self.network.device)

    def compare(
        self,
        a: images.ImageSource,
        b: images.ImageSource,
        *,
        face: int | tuple[int, int] = 0,
        fmr: float | None = None,
    ) -> Comparison:
        """Compare two pictures. A picture without a face is an answer, not an error: see `Comparison`.

        Args:
            a: a path, PIL image, uint8 RGB array or another, see `images.read`.
            b: the other; the order does not matter.
            face: which face of each picture, an index into `Comparison.found`; one number stands for both.
            fmr: the false-match rate that "same" is to keep to, one of `Calibration.points`; None for odds of three to
                one.

        Raises:
            FileNotFoundError, ValueError: for a picture that cannot be read, a face that is not there, or a false-match
                rate that was not measured; the sentence says what is wrong.
        """
        which = tuple(map(operator.index, face)) if isinstance(face, Sequence) else (operator.index(face),) * 2
        if len(which) != 2:
            raise ValueError(f"face is one number, or one for each of the two pictures, got {face!r}")
        if self.align == "none" and any(which):
            raise ValueError("this network takes pictures whole: leave out face")
        threshold = self.calibration.threshold if fmr is None else self.calibration.operating_point(fmr).distance
        seen, chosen, warnings = self.see([a, b]), [], []
        for everyone, number, name in zip(seen, which, ("first", "second"), strict=True):
            if everyone and not 0 <= number < len(everyone):
                several = f"{len(everyone)} faces: choose one from 0 to {len(everyone) - 1}"
                one = "one face, which is number 0"
                raise ValueError(f"the {name} picture shows {several if len(everyone) > 1 else one}, got {number}")
            chosen.append(everyone[number] if everyone else None)
            if self.align == "faces":
                warnings += quality_warnings(chosen[-1], len(everyone), number, name)
        face1, face2 = chosen
        found = tuple(tuple(face.found for face in everyone if face.found) for everyone in seen)
        if face1 is None or face2 is None:
            nan = math.nan
            return Comparison(nan, threshold, nan, None, "unsure", (face1, face2), found, tuple(warnings), self.id)
        if face1.crop.tobytes() == face2.crop.tobytes():
            warnings.append("Both pictures are the same image.")
        dissimilarity = float(distance(*self._embed([face1, face2])))
        probability = float(self.calibration.probability(dissimilarity))
        alike = probability >= SURE if fmr is None else dissimilarity <= threshold
        verdict = "same" if alike else "different" if probability <= 1 - SURE else "unsure"
        band = self.calibration.confidence_interval(dissimilarity)
        return Comparison(
            dissimilarity, threshold, probability, band, verdict, (face1, face2), found, tuple(warnings), self.id
        )

    @torch.inference_mode()
    def _embed(self, seen: Sequence[Face | None]) -> torch.Tensor:
        crops = [images.to_tensor(face.crop) for face in seen if face]
        x = torch.stack(crops) if crops else torch.empty((0, *self.network.input_shape), dtype=torch.uint8)
        z = self.network.embed(x.to(self.network.device)).float().cpu()
        rows = z.new_full((len(seen), z.shape[1]), math.nan)
        rows[torch.tensor([face is not None for face in seen], dtype=torch.bool)] = z
        return rows
