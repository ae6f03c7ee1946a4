"""Embeddings of many photographs, kept so that no photograph is embedded twice."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from siamese import images, network
from siamese.data.sources import cache_folder
from siamese.faces import detection as faces
from siamese.faces import face as see
from siamese.faces import mtcnn
from siamese.model import BATCH, Model

KEEP_EVERY = 8 * BATCH


def embed_files(
    model: Model, files: Iterable[tuple[str, bytes]], total: int, cache: bool = True
) -> dict[str, np.ndarray]:
    """Embed photographs, with a progress bar, keeping what is done for the next time.

    Args:
        model: any.
        files: the name and the content of each.
        total: how many.
        cache: whether to read and write the cache, whose rows are found by the content of the photograph, in a file for
            these weights and these settings. Where it cannot be written, a warning on stderr says so, once.

    Returns:
        (D,) float32 for each name; NaN where no face was found.

    Raises:
        ValueError: for a photograph that cannot be read; it is named.
    """
    kept = cache_folder() / "embeddings" / f"{_settings(model)}.npz"
    known = _read_cache(kept) if cache else {}
    result, waiting, written = {}, [], len(known)

    def embed_waiting() -> None:
        for (name, key, _), row in zip(waiting, model.embed([photo for _, _, photo in waiting]), strict=True):
            result[name] = known[key] = row
        waiting.clear()

    def keep() -> None:
        nonlocal cache, written
        try:
            _write_cache(kept, known)
            written = len(known)
        except OSError as error:
            cache = False
            tqdm.write(f"warning: the embeddings are not kept for the next time: {error}", file=sys.stderr)

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
            if len(waiting) == BATCH:
                embed_waiting()
            if cache and len(known) >= written + KEEP_EVERY:
                keep()
        embed_waiting()
    finally:
        if cache and len(known) > written:
            keep()
    return result


def _settings(model: Model) -> str:
    """Return a name for all that an embedding depends on, but for the photograph: weights, settings, and the code that
    finds faces."""
    digest = hashlib.sha256()
    net = model.network
    digest.update(json.dumps([type(net.backbone).__name__, net.mirror, net.unit, model.align]).encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    if model.align == "faces":
        digest.update((network.bundled_weights("mtcnn") / "model.safetensors").read_bytes())
        for module in (faces, images, mtcnn, network, see):
            digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]


def _read_cache(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as arrays:
            return dict(zip(arrays["keys"].tolist(), arrays["z"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # none yet, or damaged: it can be made again
        return {}


def _write_cache(file: Path, known: dict[str, np.ndarray]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.npz")
    np.savez(part, keys=np.array(list(known)), z=np.stack(list(known.values())))
    os.replace(part, file)
