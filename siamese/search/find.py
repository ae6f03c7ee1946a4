"""Find a person among many faces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np

from siamese import images
from siamese.calibration import LOWEST_SCORE
from siamese.checkpoint import default_model
from siamese.comparison import rows_to_compare
from siamese.faces import Face, quality_warnings
from siamese.model import Model
from siamese.search.embedding import Block, FoundFace
from siamese.search.people import squared_distances
from siamese.search.update import Photos, open_photos
from siamese.wording import FACES, NO_FACE, Vocabulary, counted

FIND_FMR = 0.01  # expected false matches of a search, by default
DEFAULT_LIMIT = 20
TIE_DECIMALS = 4  # distances that are equal after rounding are a tie


@dataclass(frozen=True)
class Match(FoundFace):
    """A face that was found.

    Attributes:
        dissimilarity: distance from the portrait, ≥ 0.
        probability: that it is this person, if one of the faces is expected to be, in [0, 1].
        match: whether its score is high enough for the false-match rate of the search, see `Calibration.needed`.
    """

    dissimilarity: float
    probability: float
    match: bool

    def to_dict(self) -> dict:
        """Return all but the crop, for JSON."""
        found = {"dissimilarity": self.dissimilarity, "probability": self.probability, "match": self.match}
        return super().to_dict() | found


@dataclass(frozen=True)
class Matches:
    """The result of a search.

    Attributes:
        ranked: the closest faces, the closest first.
        portraits: the faces of the person that were searched for.
        faces: N, number of faces that were searched.
        threshold: the largest dissimilarity of a match between good faces; it is lower for poor ones.
        fmr: expected number of false matches among the N faces, at most; None if no rate was measured for the network.
        warnings: sentences for the user: about portraits, and photos that could not be read; often empty.
        words: what the network compares.
    """

    ranked: tuple[Match, ...]
    portraits: tuple[Face, ...]
    faces: int
    threshold: float
    fmr: float | None
    warnings: tuple[str, ...] = ()
    words: Vocabulary = FACES

    @property
    def matches(self) -> tuple[Match, ...]:
        """The faces that count as this person."""
        return tuple(face for face in self.ranked if face.match)

    def __str__(self) -> str:
        count = len(self.matches)
        may_be_more = count == len(self.ranked) < self.faces
        text = (
            f"{'at least ' if may_be_more else ''}{counted(count, 'match', 'matches')} among "
            f"{counted(self.faces, self.words.item)}"
        )
        return text if self.fmr is None else f"{text}; expect at most {self.fmr:g} false matches"

    def to_dict(self) -> dict:
        """Return all but the crops, for JSON."""
        return {
            "ranked": [face.to_dict() for face in self.ranked],
            "faces": self.faces,
            "threshold": self.threshold,
            "fmr": self.fmr,
            "warnings": list(self.warnings),
        }


def find(
    portraits: images.ImageSource | Iterable[images.ImageSource],
    photos: Photos,
    *,
    model: Model | None = None,
    face: int | None = None,
    fmr: float | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Matches:
    """Find a person in many photos.

    Args:
        portraits: a photo of the person, or several, which count together.
        photos: a folder or zip archive, whose faces are kept in an index so that the next search is fast; an index;
            images; or a collection.
        model: the network; None for the default face network.
        face: which face of a single portrait to search for, from 1 in the order of `Model.detect`; None for the main
            face of each portrait.
        fmr: expected number of false matches among all N faces, at most, see `Calibration.needed`. By default
            `FIND_FMR`, or odds of 3 N to 1 if no rate was measured for the network.
        limit: how many faces to return, at most.

    Raises:
        FileNotFoundError, ValueError, OSError: if a portrait, the photos or the index cannot be used, the portraits
            show different people, or the face or the false-match rate is invalid.
    """
    model = model or default_model()
    calibration = model.calibration
    several: list[Any] = [portraits] if images.is_single_image(portraits) else list(cast(Iterable, portraits))
    if fmr is None and calibration.operating_points:
        fmr = FIND_FMR
    with open_photos(model, photos) as collection:
        query, faces, warnings = embed_portraits(model, several, face)
        count = len(collection)
        needed = calibration.needed(fmr, max(count, 1))
        rows, distances = nearest(query, collection.blocks(), limit)
        closest = collection.faces(rows.tolist())
        best = np.max(np.array([face.quality for face in faces], dtype=float))  # NaN without quality scores
        qualities = np.array([(best, face.quality) for face in closest], dtype=float).reshape(-1, 2)
        scores = calibration.score(distances, None if np.isnan(best) else qualities)
        probabilities = calibration.probability_among(scores, count)
        ranked = [
            Match(found.row, found.photo, found.number, found.face, distance, probability, score >= needed)
            for found, distance, probability, score in zip(
                closest, distances.tolist(), probabilities.tolist(), scores.tolist(), strict=True
            )
        ]
        # Processors round differently, so faces at nearly the same distance are in the order of their names.
        ranked.sort(key=lambda match: (round(match.dissimilarity, TIE_DECIMALS), match.photo, match.number))
        warnings += collection.problems
    threshold = calibration.distance_at(needed)
    return Matches(tuple(ranked), tuple(faces), count, threshold, fmr, tuple(warnings), model.words)


def embed_portraits(
    model: Model, portraits: Sequence[images.ImageSource], chosen: int | None
) -> tuple[np.ndarray, list[Face], list[str]]:
    """Embed a face of each portrait of one person, and join them: (D,) float32, the faces, and warnings.

    The result is the mean of the embeddings, scaled to length 1 if the network does that. Its distances from strangers
    are like those of a single portrait, so the thresholds hold; those from the person are smaller, because what differs
    between the portraits averages out. In LFW's View 1 this finds more than the closest portrait or the mean of the
    likelihood ratios, with fewer false matches.

    Raises FileNotFoundError or ValueError if a portrait cannot be read, none shows a face, the number of the face is
    invalid, or some show other people.
    """
    if chosen is not None and len(portraits) > 1:
        raise ValueError("face can only be chosen in a single portrait")
    found = model.detect(portraits)
    main = [each[row] for each in found for row in rows_to_compare(each, chosen, "portrait")[:1]]
    z, faces = model.embed_faces(main)
    names, warnings = [], []
    for number, (portrait, each) in enumerate(zip(portraits, found, strict=True), 1):
        name = f"Portrait {number}" if len(portraits) > 1 else "The portrait"
        if not each:
            warnings.append(f"{name} shows no face and is left out.")
            continue
        if len(each) > 1 and chosen is None:
            warnings.append(f"{name} shows {len(each)} faces; the largest near the middle is searched for.")
        if model.align == "faces":
            warnings += quality_warnings(faces[len(names)], name.lower())
        is_path = isinstance(portrait, str | PathLike)
        names.append(f"{name} ({images.shorten(Path(portrait).name)})" if is_path else name)
    if not faces:
        raise ValueError(NO_FACE.format("portrait"))
    if others := _strangers(model, z, faces):
        shown = ", ".join(names[other] for other in others)
        raise ValueError(
            f"the portraits show {model.words.different}: {shown}; {names[0]} looks like none of them. Search for each "
            f"{model.words.group} alone"
        )
    query = z.mean(axis=0)
    if model.network.unit:
        query = query / np.linalg.norm(query)
    return query.astype(np.float32), faces, warnings


def _strangers(model: Model, z: np.ndarray, faces: Sequence[Face]) -> list[int]:
    """Return which of N portraits are not of the same person as the first.

    Two portraits that the network does not call different belong together, and so do those that are linked by others.
    """
    quality = np.array([face.quality for face in faces], dtype=float)
    pairs = np.stack(np.meshgrid(quality, quality), axis=-1)  # (N, N, 2)
    distances = np.sqrt(squared_distances(z, z))
    odds = model.calibration.log_odds(distances, None if np.isnan(quality).any() else pairs)
    same, alike = np.arange(len(z)) == 0, odds > -LOWEST_SCORE
    for _ in z:
        same = same | alike[same].any(axis=0)
    return np.flatnonzero(~same).tolist()


def nearest(query: np.ndarray, blocks: Iterable[Block], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the embeddings nearest to a query, (D,) float32, nearest first, and their distances."""
    rows, distances = np.empty(0, int), np.empty(0, np.float32)
    for block_rows, z in blocks:
        # The squared distance without |query|²: one product, because memory bandwidth is the limit.
        squared = np.einsum("nd,nd->n", z, z) - 2 * (z @ query)
        close = np.argpartition(squared, limit)[:limit] if len(z) > limit else np.arange(len(z))
        rows = np.append(rows, block_rows[close])
        distances = np.append(distances, np.linalg.norm(z[close] - query, axis=1))
        kept = np.lexsort((rows, distances))[:limit]
        rows, distances = rows[kept], distances[kept]
    return rows, distances
