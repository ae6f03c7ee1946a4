"""Group the faces of many photos by person."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from siamese import images
from siamese.faces import Face
from siamese.model import Model

MAX_FACES = 200
# Other faces of a photo than its main one need this score. Below it, many detections are no faces.
MIN_FACE_SCORE = 0.9


@dataclass(frozen=True)
class Group:
    """The faces of several photos.

    Attributes:
        faces: N faces, photo by photo.
        photos: for each face the index of its photo.
        names: for each face the name of its photo.
        distances: (N, N) float32, dissimilarity of each pair of faces.
        problems: sentences about photos that were left out; often empty.
    """

    faces: tuple[Face, ...]
    photos: tuple[int, ...]
    names: tuple[str, ...]
    distances: np.ndarray
    problems: tuple[str, ...] = ()

    def people(self, threshold: float) -> list[list[int]]:
        """Return for each person the indices of their faces, the person with the most faces first, see `cluster`."""
        return cluster(self.distances, threshold)

    def labels(self) -> list[str]:
        """Return a name for each face: the name of its photo, numbered if several faces have that name."""
        total, seen = Counter(self.names), Counter[str]()
        labels = []
        for name in self.names:
            seen[name] += 1
            labels.append(f"{name} {seen[name]}" if total[name] > 1 else name)
        return labels

    def to_dict(self, threshold: float) -> dict:
        """Return the faces with the number of their person, and all dissimilarities, for JSON."""
        person_of = {face: person for person, faces in enumerate(self.people(threshold)) for face in faces}
        faces = [
            {"photo": self.names[row], "index": self.photos[row], "box": face.box, "person": person_of[row]}
            for row, face in enumerate(self.faces)
        ]
        return {
            "faces": faces,
            "dissimilarities": self.distances.tolist(),
            "threshold": threshold,
            "warnings": list(self.problems),
        }

    def to_csv(self, people: list[list[int]]) -> str:
        """Return a table with one row per face: its label, the number of its person, and its distance to each face.

        Args:
            people: from `people`.
        """
        labels, file = self.labels(), io.StringIO()
        person_of = {face: person for person, faces in enumerate(people, 1) for face in faces}
        writer = csv.writer(file)
        writer.writerow(["face", "person", *labels])
        for face, label in enumerate(labels):
            writer.writerow([label, person_of[face], *(f"{value:.4f}" for value in self.distances[face])])
        return file.getvalue()


def group(
    model: Model,
    photos: Sequence[tuple[str, images.ImageSource]],
    progress: Callable[[int], None] = lambda done: None,
) -> Group:
    """Detect and embed all faces of several photos.

    Args:
        model: a network. If it compares whole images, each image counts as one face.
        photos: (name, image) of each photo, see `images.read`.
        progress: called after each photo with the number of photos done.

    Returns:
        At most `MAX_FACES` faces. Photos that cannot be read or show no face are listed in `problems`.
    """
    faces: list[Face] = []
    indices: list[int] = []
    embeddings: list[np.ndarray] = []
    problems: list[str] = []
    for index, (name, photo) in enumerate(photos):
        try:
            detected = model.detect([photo])[0]
            found = detected[:1] + [face for face in detected[1:] if (face.score or 0) >= MIN_FACE_SCORE]
            if found:
                z, embedded = model.embed_faces(found)
                faces += embedded
                indices += [index] * len(found)
                embeddings.append(z)
            else:
                problems.append(f"No face was found in {name}.")
        except (ValueError, FileNotFoundError) as error:
            problems.append(f"{error}.")
        progress(index + 1)
        if len(faces) > MAX_FACES:
            problems.append(f"Only the first {MAX_FACES} faces are shown, up to {name}.")
            break
    rows = np.concatenate(embeddings)[:MAX_FACES] if embeddings else np.empty((0, 1), np.float32)
    names = tuple(photos[index][0] for index in indices[:MAX_FACES])
    distances = np.linalg.norm(rows[:, None] - rows, axis=-1)
    return Group(tuple(faces[:MAX_FACES]), tuple(indices[:MAX_FACES]), names, distances, tuple(problems))


def cluster(distances: np.ndarray, threshold: float) -> list[list[int]]:
    """Cluster with average linkage: merge the two closest clusters until their mean distance exceeds the threshold.

    Sokal and Michener, "A Statistical Method for Evaluating Systematic Relationships", 1958.

    Args:
        distances: (N, N) float ≥ 0, symmetric.
        threshold: largest mean distance between the members of two clusters that are merged.

    Returns:
        The clusters as lists of row indices, the largest first.
    """
    between = distances.astype(float)
    np.fill_diagonal(between, np.inf)
    clusters = [[row] for row in range(len(between))]
    for _ in clusters[1:]:
        a, b = divmod(int(between.argmin()), len(between))
        if between[a, b] > threshold:
            break
        size_a, size_b = len(clusters[a]), len(clusters[b])
        between[a] = between[:, a] = (size_a * between[a] + size_b * between[b]) / (size_a + size_b)
        between[a, a] = between[b] = between[:, b] = np.inf
        clusters[a] += clusters[b]
        clusters[b] = []
    return sorted((sorted(rows) for rows in clusters if rows), key=len, reverse=True)
