"""Error rates of several kinds of pairs, for ages.py and relatives.py."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
import torch
from torch import Tensor

import siamese
from siamese.calibration import Calibration
from siamese.evaluation.lfw import embed_main_faces
from siamese.model import Model

PHOTOS_PER_BLOCK = 512


class PairKind(NamedTuple):
    """A kind of pairs, and whether they show the same person."""

    name: str
    same: bool


class Faces(NamedTuple):
    """The main faces of photos.

    Attributes:
        z: (N, D) float32 embeddings of the photos in which a face was found.
        quality: (N,) float in [0, 1]; 1 if the network has no quality scores.
        found: (M,) bool, whether a face was found in each of the M files.
    """

    z: Tensor
    quality: np.ndarray
    found: np.ndarray


def embed(model: Model, files: list[Path]) -> Faces:
    """Embed photos, with a cache.

    Raises:
        ValueError: if there are no files.
    """
    if not files:
        raise ValueError("--data holds no photos in the layout that --help describes")
    z, quality = embed_main_faces(model, ((str(file), file.read_bytes()) for file in files), len(files))
    rows = np.stack([z[str(file)] for file in files])  # (M, D)
    found = ~np.isnan(rows).any(axis=1)
    known = np.array([quality[str(file)] for file in files])[found]
    return Faces(torch.from_numpy(rows[found]), np.nan_to_num(known, nan=1.0), found)


def numbers(labels: list[str], found: np.ndarray) -> Tensor:
    """Replace the labels of the found photos by numbers: (N,) int64."""
    return torch.from_numpy(np.unique(np.array(labels)[found], return_inverse=True)[1])


def measure(
    calibration: Calibration, faces: Faces, kinds: tuple[PairKind, ...], kind_of: Callable[[slice, slice], Tensor]
) -> dict:
    """Count the errors among all pairs of N photos, block by block to limit memory.

    Args:
        calibration: decides which pairs are "same", by default, as `Model.compare` does.
        faces: N faces.
        kinds: the kinds of pairs.
        kind_of: maps R rows and C columns, each a slice of the photos, to (R, C) int64 indices into `kinds`.

    Returns:
        Under "genuine" and "impostor", for each kind, its number of pairs and its "fnmr" or "fmr".

    Raises:
        ValueError: if there are no pairs of a kind.
    """
    pairs, matches = torch.zeros((2, len(kinds)), dtype=torch.int64)
    for start in range(0, len(faces.z), PHOTOS_PER_BLOCK):
        rows, columns = slice(start, start + PHOTOS_PER_BLOCK), slice(start, None)
        distance = torch.cdist(faces.z[rows], faces.z[columns])  # (R, C)
        once = torch.ones_like(distance, dtype=torch.bool).triu(1)  # each pair once
        quality = np.stack(np.broadcast_arrays(faces.quality[rows, None], faces.quality[columns]), axis=-1)  # (R, C, 2)
        kind = kind_of(rows, columns)
        pairs += kind[once].bincount(minlength=len(kinds))
        score = torch.from_numpy(calibration.score(distance.numpy(), quality))
        matches += kind[once & (score >= calibration.needed())].bincount(minlength=len(kinds))
    result = {"genuine": {}, "impostor": {}}
    for k, (kind_name, same) in enumerate(kinds):
        if not pairs[k]:
            raise ValueError(f"--data holds no pairs of the kind {kind_name}; --help describes its layout")
        share = int(matches[k]) / int(pairs[k])
        rate = {"fnmr": 1 - share} if same else {"fmr": share}
        result["genuine" if same else "impostor"][kind_name] = {"pairs": int(pairs[k]), **rate}
    return result


def run(description: str | None, measure_folder: Callable[[Model, Path], dict]) -> None:
    """Run a benchmark from the shell: measure a model on a folder, print the result, and write it as JSON."""
    args = common.parser(description, data=True).parse_args()
    common.finish(measure_folder(siamese.load(), args.data), args.json, {})
