"""Group the faces of a few photos by person, and keep the crop of each face and the distance of each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from siamese import images
from siamese.calibration import Calibration
from siamese.faces import Face
from siamese.search.embedder import Embedder
from siamese.search.embedding import embed_photos
from siamese.search.output import write_csv
from siamese.search.people import partition

MAX_FACES = 200


@dataclass(frozen=True)
class Group:
    """The faces of several photos.

    Attributes:
        faces: N faces, photo by photo.
        photos: for each face the index of its photo.
        names: for each face the name of its photo.
        z: (N, D) float32, their embeddings.
        calibration: of the network.
        problems: sentences about photos that were left out; often empty.
    """

    faces: tuple[Face, ...]
    photos: tuple[int, ...]
    names: tuple[str, ...]
    z: np.ndarray
    calibration: Calibration
    problems: tuple[str, ...] = ()

    @property
    def distances(self) -> np.ndarray:
        """The dissimilarity of each pair of faces, (N, N) float32."""
        return np.linalg.norm(self.z[:, None] - self.z, axis=-1)

    def people(self, threshold: float) -> list[list[int]]:
        """Return for each person the indices of their faces, the person with the most faces first, see `partition`.

        Faces that are too poor to tell who it is come last, each on its own.
        """
        quality = np.array([np.nan if face.quality is None else face.quality for face in self.faces], np.float32)
        people, left_over = partition(self.z, quality, self.calibration, threshold)
        return people + [[row] for row in left_over]

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
        person_of = {face: person for person, faces in enumerate(self.people(threshold), 1) for face in faces}
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
        labels, distances = self.labels(), self.distances
        person_of = {face: person for person, faces in enumerate(people, 1) for face in faces}
        rows = [[label, person_of[face], *(f"{x:.4f}" for x in distances[face])] for face, label in enumerate(labels)]
        return write_csv(["face", "person", *labels], rows)


def group(
    model: Embedder,
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
        (found,) = embed_photos(model, [photo])
        faces += found.faces
        indices += [index] * len(found.faces)
        embeddings.append(found.z)
        if not found.faces:
            problems.append(f"{found.problem}." if found.problem else f"No face was found in {name}.")
        progress(index + 1)
        if len(faces) > MAX_FACES:
            problems.append(f"Only the first {MAX_FACES} faces are shown, up to {name}.")
            break
    z = np.concatenate([np.empty((0, model.network.embedding_dim), np.float32), *embeddings])[:MAX_FACES]
    names = tuple(photos[index][0] for index in indices[:MAX_FACES])
    kept = tuple(faces[:MAX_FACES]), tuple(indices[:MAX_FACES])
    return Group(*kept, names, z, model.calibration, tuple(problems))
