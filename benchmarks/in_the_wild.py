"""How little the AT&T network knows of ordinary photographs: the 6,000 pairs of LFW's View 2, no training.

    SIAMESE_DATA=DIR python benchmarks/in_the_wild.py --json benchmarks/results/in_the_wild.json

DIR holds `lfw-deepfunneled.tar` and `pairs.txt` (Huang et al., "Labeled Faces in the Wild", 2007). Of each 250 × 250
photograph the middle 123 × 150 is compared: about the framing, and the proportions, of the AT&T portraits.
"""

import argparse
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import siamese
from siamese import images, metrics

CROP = (64, 50, 187, 200)


def read_pairs(path: Path) -> list[tuple[str, str, bool]]:
    """Return (file, file, same) for each line of a pair list."""
    pairs = []
    for line in path.read_text().splitlines()[1:]:
        words = line.split("\t")
        first, second = (words[0], words[1]), (words[-2] if len(words) == 4 else words[0], words[-1])
        files = [f"lfw-deepfunneled/{name}/{name}_{int(number):04d}.jpg" for name, number in (first, second)]
        pairs.append((*files, len(words) == 3))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = Path(os.environ["SIAMESE_DATA"])
    model = siamese.load()
    pairs = read_pairs(folder / "pairs.txt")
    wanted = {file for *files, _ in pairs for file in files}
    embeddings = {}
    with tarfile.open(folder / "lfw-deepfunneled.tar") as archive:
        for member in archive:
            if member.name in wanted:
                photo = images.read(Image.open(io.BytesIO(archive.extractfile(member).read())))
                embeddings[member.name] = model.embed([photo.crop(CROP)])[0]
    first, second = (torch.from_numpy(np.stack([embeddings[pair[side]] for pair in pairs])) for side in (0, 1))
    distances = siamese.distance(first, second).numpy()
    result = metrics.report(distances, np.array([same for *_, same in pairs]), model.calibration.probability(distances))
    print(metrics.table("LFW, View 2", result, None))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
