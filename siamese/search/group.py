"""Many photos → every face in them, how unlike each two are, and who is one person."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from siamese import images
from siamese.faces.face import Face
from siamese.model import Model

MOST = 200  # faces
# Beside another face in its photo, a find with a lower score is often none, and would be a person of its own.
SURE = 0.9


@dataclass(frozen=True)
class Group:
    """The faces of several photos.

    Attributes:
        faces: N of them, photo by photo.
        photos: N numbers of the photos that they are from, from 0.
        names: N names of these.
        distances: (N, N) float32, the dissimilarity of each two.
        problems: sentences about what was left out; often none.
    """

    faces: tuple[Face, ...]
    photos: tuple[int, ...]
    names: tuple[str, ...]
    distances: np.ndarray
    problems: tuple[str, ...] = ()

    def people(self, threshold: float) -> list[list[int]]:
        """Return who is one person, as rows of `faces`, whoever has most faces first: clusters whose members are on
        average at most `threshold` apart, see `cluster`."""
        return cluster(self.distances, threshold)

    def to_csv(self, people: list[list[int]]) -> str:
        """Return a table with a row for each face: its name, its person of `people`, and how unlike it is to each."""
        labels, file = self.labels(), io.StringIO()
        person = {row: number for number, rows in enumerate(people, 1) for row in rows}
        cells = [[f"{value:.4f}" for value in row] for row in self.distances]
        rows = ([label, person[row], *cells[row]] for row, label in enumerate(labels))
        csv.writer(file).writerows([["face", "person", *labels], *rows])
        return file.getvalue()

    def labels(self) -> list[str]:
        """Return a name for each face: its photo's, with a number where the photo shows several."""
        seen: dict[str, int] = {}
        labels = []
        for name in self.names:
            seen[name] = seen.get(name, 0) + 1
            labels.append(f"{name} {seen[name]}" if self.names.count(name) > 1 else name)
        return labels


def group(
    model: Model,
    photos: Sequence[tuple[str, images.ImageSource]],
    progress: Callable[[int], None] = lambda done: None,
) -> Group:
    """Find and embed every face of several photos.

    Args:
        model: any; where it does not find faces, each picture counts as one.
        photos: a name and a picture (see `images.read`) each.
        progress: told after each photo how many are done.

    Returns:
        At most `MOST` faces, without doubtful ones beside others. A photo that cannot be read, or shows none, is a
        sentence in `problems`.
    """
    faces, numbers, names, rows, problems = [], [], [], [], []
    for done, (name, photo) in enumerate(photos, 1):
        try:
            found = [face for k, face in enumerate(model.see([photo])[0]) if k == 0 or face.score >= SURE]
        except (ValueError, FileNotFoundError) as error:
            problems.append(str(error))
            found = None
        if found is not None and not found:
            problems.append(f"No face was found in {name}.")
        elif found:
            faces += found
            numbers += [done - 1] * len(found)
            names += [name] * len(found)
            rows.append(model.embed_faces(found))
        progress(done)
        if len(faces) > MOST:
            problems.append(f"Only the first {MOST} faces are shown, up to {name}.")
            break
    z = np.concatenate(rows)[:MOST] if rows else np.empty((0, 1), np.float32)
    distances = np.linalg.norm(z[:, None] - z, axis=-1)
    return Group(tuple(faces[:MOST]), tuple(numbers[:MOST]), tuple(names[:MOST]), distances, tuple(problems))


def cluster(distances: np.ndarray, threshold: float) -> list[list[int]]:
    """Join the two nearest clusters again and again, as long as their members are on average near enough.

    Average linkage: Sokal and Michener, "A Statistical Method for Evaluating Systematic Relationships", 1958.

    Args:
        distances: (N, N) float ≥ 0, symmetric.
        threshold: the largest mean distance of two clusters that are joined.

    Returns:
        The clusters as lists of rows, larger ones first.
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
