"""Two pictures → how unlike they are, what that means, and how sure it is."""

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from siamese import faces, images
from siamese.calibrate import Calibration
from siamese.faces import Found
from siamese.network import SiameseNetwork, distance

# Beyond three to one either way the verdict is given; between, it is "unsure".
SURE = 0.75

# Beyond these a face is hard to compare, and the answer says so. In LFW's photographs under 1 in 100 faces is.
SMALL = 60  # pixels
BLURRED = 0.186  # see `_sharpness`
DARK = 40  # mean gray level, of 255
TURNED = 0.5  # see `Found.turn`

BATCH = 32

Verdict = Literal["same", "unsure", "different"]


@dataclass(frozen=True)
class Face:
    """What the network saw of one picture.

    Attributes:
        crop: the image at the network's input size, "L" or "RGB".
        box, landmarks, angle, score: where in the upright picture the face was found, see `faces.Found`; None for plain
            images, which are taken whole.
    """

    crop: Image.Image
    box: tuple[float, float, float, float] | None = None
    landmarks: tuple[tuple[float, float], ...] | None = None
    angle: float | None = None
    score: float | None = None


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
    """

    dissimilarity: float
    threshold: float
    probability: float
    band: tuple[float, float] | None
    verdict: Verdict
    faces: tuple[Face | None, Face | None]
    found: tuple[tuple[Found, ...], tuple[Found, ...]] = ((), ())
    warnings: tuple[str, ...] = ()

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
    """

    def __init__(self, network: SiameseNetwork, calibration: Calibration, record: dict, name: str, align: str = "none"):
        if align not in ("faces", "none"):
            raise ValueError(f"{name}: unknown align {align!r}; this version knows: faces, none")
        self.network, self.calibration, self.record, self.name = network.eval(), calibration, record, name
        self.align = align

    def embed(self, pictures: Iterable[images.ImageSource]) -> np.ndarray:
        """Turn pictures into embeddings; the Euclidean distance of two rows is the dissimilarity of the pictures.

        Args:
            pictures: N paths, PIL images or uint8 arrays, see `images.read`.

        Returns:
            (N, D) float32; a row of NaN where a face was to be found and there is none.

        Raises:
            FileNotFoundError, ValueError: for a picture that cannot be read.
        """
        if isinstance(pictures, str):
            raise ValueError(f"expected several pictures, got one path: write [{pictures!r}]")
        pictures = list(pictures)
        batches = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)] or [[]]
        return np.concatenate([self._embed([face for face, _ in self._see(batch)]).numpy() for batch in batches])

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
            a: a path, PIL image or uint8 array, see `images.read`.
            b: the other; the order does not matter.
            face: which face of each picture, an index into `Comparison.found`; one number stands for both.
            fmr: the false-match rate that "same" is to keep to, one of `Calibration.points`; None for even odds.

        Raises:
            FileNotFoundError, ValueError: for a picture that cannot be read, a face that is not there, or a false-match
                rate that was not measured; the sentence says what is wrong.
        """
        which = tuple(map(operator.index, face)) if isinstance(face, Sequence) else (operator.index(face),) * 2
        if len(which) != 2 or (self.align == "none" and any(which)):
            raise ValueError(f"face chooses one face of each of two pictures in which faces are found, got {face!r}")
        threshold = self.calibration.threshold if fmr is None else self.calibration.point(fmr).distance
        (face1, found1), (face2, found2) = self._see([a, b], which)
        warnings = []
        for seen, found, number, name in ((face1, found1, which[0], "first"), (face2, found2, which[1], "second")):
            if self.align == "faces":
                warnings += _warnings(seen, found, number, name)
        found = tuple(found1), tuple(found2)
        if face1 is None or face2 is None:
            nan = math.nan
            return Comparison(nan, threshold, nan, None, "unsure", (face1, face2), found, tuple(warnings))
        if face1.crop.tobytes() == face2.crop.tobytes():
            warnings.append("Both pictures are the same image.")
        dissimilarity = float(distance(*self._embed([face1, face2])))
        probability = float(self.calibration.probability(dissimilarity))
        alike = probability >= SURE if fmr is None else dissimilarity <= threshold
        verdict = "same" if alike else "different" if probability <= 1 - SURE else "unsure"
        band = self.calibration.band(dissimilarity)
        return Comparison(dissimilarity, threshold, probability, band, verdict, (face1, face2), found, tuple(warnings))

    def _see(
        self, pictures: Sequence[images.ImageSource], which: Sequence[int] | None = None
    ) -> list[tuple[Face | None, list[Found]]]:
        """Return for each picture what the network is to see of it, and all faces in it."""
        if self.align == "none":
            return [(Face(images.fit(images.read(picture), self.network.input_shape)), []) for picture in pictures]
        read = [images.read_at_least(picture, faces.LONGEST) for picture in pictures]
        seen = []
        for row, found in enumerate(faces.find([photo for photo, _ in read], self.network.device)):
            photo, scale = read[row]
            number = which[row] if which else 0
            if found and not 0 <= number < len(found):
                raise ValueError(
                    f"picture {row + 1} shows {len(found)} face{'s' * (len(found) > 1)}: choose one from 0 to "
                    f"{len(found) - 1}, got {number}"
                )
            in_picture = [one.scaled(scale) for one in found]
            face = None
            if found:
                shape, one = self.network.input_shape, in_picture[number]
                crop = images.fit(faces.align(photo, found[number], shape[1]), shape)
                face = Face(crop, one.box, one.landmarks, one.angle, one.score)
            seen.append((face, in_picture))
        return seen

    @torch.inference_mode()
    def _embed(self, seen: Sequence[Face | None]) -> torch.Tensor:
        crops = [images.to_tensor(face.crop) for face in seen if face]
        x = torch.stack(crops) if crops else torch.empty((0, *self.network.input_shape), dtype=torch.uint8)
        z = self.network.embed(x.to(self.network.device)).float().cpu()
        rows = z.new_full((len(seen), z.shape[1]), math.nan)
        rows[torch.tensor([face is not None for face in seen], dtype=torch.bool)] = z
        return rows


def _warnings(face: Face | None, found: Sequence[Found], number: int, name: str) -> list[str]:
    """Say what makes the face of the first or second picture hard to compare."""
    if face is None:
        return [
            f"No face was found in the {name} picture. Try one where the whole face is in view, larger and well lit; a "
            "drawing or a back of a head will not do."
        ]
    warnings = []
    if len(found) > 1:
        chosen = "the largest near the middle" if number == 0 else f"number {number}"
        warnings.append(f"{len(found)} faces in the {name} picture; {chosen} was compared.")
    edge = face.crop.height // 8
    gray = np.asarray(face.crop.convert("L"), dtype=float)[edge:-edge, edge:-edge]
    if found[number].size < SMALL:
        warnings.append(f"The face in the {name} picture is small: {found[number].size:.0f} pixels.")
    elif _sharpness(gray) < BLURRED:
        warnings.append(f"The face in the {name} picture is blurred.")
    if gray.mean() < DARK:
        warnings.append(f"The face in the {name} picture is very dark.")
    if found[number].turn > TURNED:
        warnings.append(f"The face in the {name} picture is strongly turned to the side.")
    return warnings


def _sharpness(gray: np.ndarray) -> float:
    """Return how much a gray level changes from one pixel to the next, as a share of how much it does over six: 1/6
    where all is smooth, more where there is detail."""

    def step(pixels: int) -> float:
        return float(
            np.abs(gray[pixels:] - gray[:-pixels]).mean() + np.abs(gray[:, pixels:] - gray[:, :-pixels]).mean()
        )

    return step(1) / (step(6) or 1.0)
