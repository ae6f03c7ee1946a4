"""Embed many photographs, with a cache on disk."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from tqdm import tqdm

from siamese import backbones, images, network
from siamese.faces import detection, face, mtcnn
from siamese.files import cache_folder, write_atomically
from siamese.model import Model
from siamese.search.embedder import digest

BATCH_SIZE = 32  # photographs that are embedded together
SAVE_EVERY = 256  # new embeddings
Row = tuple[np.ndarray, float]  # embedding and quality


def embed_files(
    model: Model, files: Iterable[tuple[str, bytes]], total: int, cache: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Embed the main face of photographs, with a progress bar.

    Args:
        model: any model.
        files: the name and the content of each photograph.
        total: the number of photographs.
        cache: keep the embeddings in `cache_folder()`, in one file for each combination of weights and settings.

    Returns:
        For each name the embedding, (D,) float32, and the quality, see `Model.embed_with_quality`.

    Raises:
        ValueError: if a photograph cannot be read. The message names it.
    """
    known = _Cache(cache_folder() / "embeddings" / f"{_cache_key(model)}.npz" if cache else None)
    result: dict[str, Row] = {}
    waiting: list[tuple[str, str, Image.Image]] = []

    def embed_waiting() -> None:
        z, quality = model.embed_with_quality([photo for _, _, photo in waiting])
        for (name, key, _), *row in zip(waiting, z, quality.tolist(), strict=True):
            result[name] = known.rows[key] = tuple(row)
        waiting.clear()

    try:
        for name, content in tqdm(files, total=total, unit=" images", desc="embedding"):
            key = hashlib.sha1(content).hexdigest()
            if key in known.rows:
                result[name] = known.rows[key]
                continue
            try:
                waiting.append((name, key, images.read(content)))
            except ValueError as error:
                raise ValueError(f"{name} cannot be read: {error}") from error
            if len(waiting) == BATCH_SIZE:
                embed_waiting()
                known.save(SAVE_EVERY)
        embed_waiting()
    finally:
        known.save()
    return {name: z for name, (z, _) in result.items()}, {name: quality for name, (_, quality) in result.items()}


class _Cache:
    """Embeddings and qualities by the SHA-1 of the photograph, and the file that keeps them, if any."""

    def __init__(self, file: Path | None):
        self.file = file
        self.rows: dict[str, Row] = self._read(file) if file else {}
        self.saved = len(self.rows)

    def save(self, every: int = 1) -> None:
        """Write the file if there are at least `every` new embeddings. After a failure, warn and do not try again."""
        if not self.file or len(self.rows) < self.saved + every:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, self._write)
            self.saved = len(self.rows)
        except OSError as error:
            self.file = None
            tqdm.write(f"warning: the embeddings are not cached: {error}", file=sys.stderr)

    def _read(self, file: Path) -> dict[str, Row]:
        try:
            with np.load(file) as arrays:
                rows = zip(arrays["z"], arrays["quality"].tolist(), strict=True)
                return dict(zip(arrays["keys"].tolist(), rows, strict=True))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # missing or damaged: start an empty one
            return {}

    def _write(self, part: Path) -> None:
        with part.open("wb") as opened:  # given a path, np.savez would append .npz to it
            z, quality = zip(*self.rows.values(), strict=True)
            np.savez(opened, keys=np.array(list(self.rows)), z=np.stack(z), quality=quality)


def _cache_key(model: Model) -> str:
    """Hash all that an embedding depends on besides the photograph: weights, settings, and the code involved."""
    key = digest(model)
    if model.align == "faces":
        for module in (backbones, detection, face, images, mtcnn, network):
            key.update(Path(str(module.__file__)).read_bytes())
    return key.hexdigest()[:16]
