"""Find a person among many faces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from siamese import images
from siamese.faces.detection import Box
from siamese.search.collection import Collection
from siamese.search.embedder import Embedder
from siamese.search.embedding import embed_photos
from siamese.search.strictness import FIND_FMR, probability_among, search_threshold

DEFAULT_LIMIT = 20
TIE_DECIMALS = 4  # distances that are equal after rounding are a tie


@dataclass(frozen=True)
class Match:
    """A face that was found.

    Attributes:
        photo: path or name of the photo.
        number: which face of the photo, from 1; the main one first.
        box: left, top, right, bottom in pixels of the upright photo; None if the network compares whole images.
        dissimilarity: distance from the portrait, ≥ 0.
        probability: that it is this person, if one of the faces is expected to be, in [0, 1].
        match: whether it is at most `Matches.threshold` away, and good enough for its false-match rate.
        quality: of the face, in [0, 1]; None if the network has no quality scores.
    """

    photo: str
    number: int
    box: Box | None
    dissimilarity: float
    probability: float
    match: bool
    quality: float | None


@dataclass(frozen=True)
class Matches:
    """The result of a search.

    Attributes:
        ranked: the closest faces, the closest first. All matches are among them, unless the limit is lower.
        faces: N, number of faces that were searched.
        threshold: largest dissimilarity of a match.
        fmr: expected number of false matches among the N faces, at most.
        warnings: sentences for the user, for example about a poor portrait; often empty.
    """

    ranked: tuple[Match, ...]
    faces: int
    threshold: float
    fmr: float
    warnings: tuple[str, ...] = ()

    @property
    def matches(self) -> tuple[Match, ...]:
        """The faces that count as this person."""
        return tuple(face for face in self.ranked if face.match)

    def __str__(self) -> str:
        count = len(self.matches)
        may_be_more = count == len(self.ranked) < self.faces
        return (
            f"{'at least ' if may_be_more else ''}{count} match{'' if count == 1 else 'es'} among {self.faces:,} "
            f"face{'' if self.faces == 1 else 's'}; expect at most {self.fmr:g} false matches"
        )

    def to_dict(self) -> dict:
        """Return all of it, for JSON."""
        return asdict(self)


def embed_portraits(model: Embedder, portraits: Sequence[images.ImageSource]) -> tuple[np.ndarray, float, list[str]]:
    """Embed the main face of each portrait of one person, and join them.

    The result is the mean of the embeddings, scaled to length 1 if the network does that. Its distances from strangers
    are like those of a single portrait, so the thresholds hold; those from the person are smaller, because what differs
    between the portraits averages out. In LFW's View 1 this finds more than the closest portrait or the mean of the
    likelihood ratios, with fewer false matches.

    Returns:
        (D,) float32; the quality of the best portrait, NaN if the network has no quality scores; and warnings.

    Raises:
        FileNotFoundError, ValueError: if a portrait cannot be read, or none shows a face.
    """
    found = embed_photos(model, portraits)
    rows, qualities, warnings = [], [], []
    for number, (portrait, photo) in enumerate(zip(portraits, found, strict=True), 1):
        name = f"Portrait {number}"
        if photo.problem:
            images.read(portrait)  # raises the error
        if not photo.faces:
            warnings.append(f"{name} shows no face and is left out.")
            continue
        if len(photo.faces) > 1:
            warnings.append(f"{name} shows {len(photo.faces)} faces; the largest near the middle is searched for.")
        rows.append(photo.z[0])
        qualities.append(math.nan if photo.faces[0].quality is None else photo.faces[0].quality)
    if not rows:
        raise ValueError("no face was found in the portrait; use a photo in which the face is large and well lit")
    query = np.mean(rows, axis=0)
    if model.network.unit:
        query = query / np.linalg.norm(query)
    return query.astype(np.float32), float(np.max(qualities)), warnings


def find(
    model: Embedder,
    portraits: Sequence[images.ImageSource],
    photos: Collection,
    fmr: float = FIND_FMR,
    limit: int = DEFAULT_LIMIT,
) -> Matches:
    """Find the faces that are closest to a person.

    Args:
        model: the network that embedded the photos.
        portraits: one or more photos of the person, see `embed_portraits`.
        photos: N faces.
        fmr: expected number of false matches among all N faces, see `search_threshold`.
        limit: how many faces to return, at most.

    Raises:
        FileNotFoundError, ValueError: see `embed_portraits` and `search_threshold`.
    """
    query, quality, warnings = embed_portraits(model, portraits)
    if quality < model.calibration.min_quality:
        warnings.append("The portrait is too poor to call a face a match; use a better photo.")
    return replace(find_embedding(model, query, quality, photos, fmr, limit), warnings=tuple(warnings))


def find_embedding(
    model: Embedder, query: np.ndarray, quality: float, photos: Collection, fmr: float, limit: int
) -> Matches:
    """Find the faces that are closest to an embedding.

    Args:
        model: the network that made all embeddings.
        query, quality: from `embed_portraits`.
        photos, fmr, limit: see `find`.
    """
    count, calibration = len(photos), model.calibration
    threshold = search_threshold(calibration, count, fmr)
    rows, distances = nearest(query, photos.blocks(), limit, model.network.unit)
    faces = photos.faces(rows.tolist())
    known = [1.0 if face.quality is None else face.quality for face in faces]
    own = 1.0 if math.isnan(quality) else quality
    qualities = np.stack([np.full(len(faces), own), np.array(known, float)], axis=1)
    probabilities = probability_among(calibration, distances, qualities, count)
    is_match = (distances <= threshold) & (qualities.min(axis=1, initial=1) >= calibration.min_quality)
    ranked = [
        Match(face.photo, face.number, face.box, distance, probability, match, face.quality)
        for face, distance, probability, match in zip(
            faces, distances.tolist(), probabilities.tolist(), is_match.tolist(), strict=True
        )
    ]
    # Processors round differently, so faces with nearly the same distance are in the order of their names.
    ranked.sort(key=lambda match: (round(match.dissimilarity, TIE_DECIMALS), match.photo, match.number))
    return Matches(tuple(ranked), count, threshold, fmr)


def nearest(
    query: np.ndarray, blocks: Iterable[tuple[np.ndarray, np.ndarray]], limit: int, unit: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the embeddings nearest to a query, nearest first, and their distances.

    Args:
        query: (D,) float32.
        blocks: (B,) rows and their (B, D) embeddings.
        limit: how many rows to return, at most.
        unit: whether all embeddings have length 1.
    """
    rows, distances = np.empty(0, int), np.empty(0, np.float32)
    for block_rows, z in blocks:
        # The squared distance without |query|²: one product, because memory bandwidth is the limit.
        score = (1 if unit else np.einsum("nd,nd->n", z, z)) - 2 * (z @ query)
        close = np.argpartition(score, limit)[:limit] if len(score) > limit else np.arange(len(score))
        rows = np.concatenate([rows, block_rows[close]])
        distances = np.concatenate([distances, np.linalg.norm(z[close] - query, axis=1)])
        best = np.lexsort((rows, distances))[:limit]
        rows, distances = rows[best], distances[best]
    return rows, distances
