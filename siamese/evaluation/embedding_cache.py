"""Embed many photographs, with a cache on disk."""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from siamese import backbones, images, network
from siamese.faces import alignment, detection, face, mtcnn
from siamese.files import cache_folder, write_atomically
from siamese.model import Model

BATCH_SIZE = 32  # photographs that are embedded together
SAVE_EVERY = 256  # new embeddings


def embed_files(
    model: Model, files: Iterable[tuple[str, bytes]], total: int, cache: bool = True
) -> dict[str, np.ndarray]:
    """Embed photographs, with a progress bar.

    Args:
        model: any model.
        files: the name and the content of each photograph.
        total: the number of photographs.
        cache: read and write the cache. It is keyed by the photograph's content, with one file for each combination of
            weights and settings. If it cannot be written, a warning is printed on stderr.

    Returns:
        (D,) float32 for each name; NaN if no face was found.

    Raises:
        ValueError: if a photograph cannot be read. The message names it.
    """
    file = cache_folder() / "embeddings" / f"{_cache_key(model)}.npz"
    known = _read_cache(file) if cache else {}
    result, waiting, saved = {}, [], len(known)

    def embed_waiting() -> None:
        for (name, key, _), row in zip(waiting, model.embed([photo for _, _, photo in waiting]), strict=True):
            result[name] = known[key] = row
        waiting.clear()

    def save() -> None:
        nonlocal cache, saved
        try:
            _write_cache(file, known)
            saved = len(known)
        except OSError as error:
            cache = False
            tqdm.write(f"warning: the embeddings are not cached: {error}", file=sys.stderr)

    try:
        for name, content in tqdm(files, total=total, unit=" images", desc="embedding"):
            key = hashlib.sha1(content).hexdigest()
            if key in known:
                result[name] = known[key]
                continue
            try:
                waiting.append((name, key, images.read(content)))
            except ValueError as error:
                raise ValueError(f"{name} cannot be read: {error}") from error
            if len(waiting) == BATCH_SIZE:
                embed_waiting()
            if cache and len(known) >= saved + SAVE_EVERY:
                save()
        embed_waiting()
    finally:
        if cache and len(known) > saved:
            save()
    return result


def _cache_key(model: Model) -> str:
    """Hash all that an embedding depends on besides the photograph: weights, settings, and the code involved."""
    digest = hashlib.sha256()
    net = model.network
    digest.update(json.dumps([type(net.backbone).__name__, net.mirror, net.unit, model.align]).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    if model.align == "faces":
        digest.update((network.bundled_weights("mtcnn") / "model.safetensors").read_bytes())
        for module in (alignment, backbones, detection, face, images, mtcnn, network):
            digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


def _read_cache(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as arrays:
            return dict(zip(arrays["keys"].tolist(), arrays["z"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # missing or damaged: start an empty one
        return {}


def _write_cache(file: Path, known: dict[str, np.ndarray]) -> None:
    def write(part: Path) -> None:
        with part.open("wb") as opened:  # given a path, np.savez would append .npz to it
            np.savez(opened, keys=np.array(list(known)), z=np.stack(list(known.values())))

    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, write)
