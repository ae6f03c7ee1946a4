"""Labeled Faces in the Wild: the photos and the lists of pairs."""

import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from siamese.files import cache_folder

LFW_URL = "http://vis-www.cs.umass.edu/lfw/"
LFW_FILE = "lfw-deepfunneled.tar"
# Label errors of LFW, found among its closest impostor pairs: two names of one person, or two copies of one photo.
LFW_ALIASES = {
    "Dai_Chul_Chyung": "Chyung_Dai-chul",
    "Hassan_Wirajuda": "Hasan_Wirayuda",
    "John_Burnett": "John_Barnett",
    "John_Gruden": "Jon_Gruden",
    "Lane_Bryant": "Roseanne_Barr",
    "Martha_Bowen": "Gabrielle_Rose",
    "Mireya_Elisa_Moscoso_Rodriguez": "Mireya_Moscoso",
    "Odai_Hussein": "Uday_Hussein",
    "Prince_Felipe": "Felipe_De_Borbon",
    "Sepp_Blatter": "Joseph_Blatter",
    "Shavon_Earp": "Diana_Taurasi",
    "Wang_Nan": "Nan_Wang",
}


class LfwPair(NamedTuple):
    """Two photos, each as NAME/NAME_0001.jpg, and whether they show the same person."""

    first: str
    second: str
    same: bool


class Lfw:
    """Labeled Faces in the Wild (Huang et al., 2007), deep-funneled, in a folder with the archive and pairs.txt.

    View 2 (pairs.txt) is for reporting results, View 1 (pairsDevTrain.txt and pairsDevTest.txt) for model selection.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        unpacked = self.folder / LFW_FILE.removesuffix(".tar")
        candidates = (unpacked, *(unpacked.with_suffix(suffix) for suffix in (".tar", ".tgz", ".tar.gz")))
        photos = next((path for path in candidates if path.exists()), None)
        if photos is None or not (self.folder / "pairs.txt").is_file():
            raise FileNotFoundError(
                f"{self.folder} does not hold LFW: put {LFW_FILE} and pairs.txt there, from {LFW_URL} or a mirror"
            )
        self.photos = photos

    def folds(self) -> list[list[LfwPair]]:
        """Return View 2: ten folds of 600 pairs, half of them genuine. No person is in two folds."""
        lines = (self.folder / "pairs.txt").read_text().splitlines()
        folds, genuine = map(int, lines[0].split())
        size = 2 * genuine
        return [[_parse_pair(line) for line in lines[1 + k * size : 1 + (k + 1) * size]] for k in range(folds)]

    def view1(self) -> list[LfwPair]:
        """Return the 3,200 pairs of View 1."""
        texts = [(self.folder / name).read_text() for name in ("pairsDevTrain.txt", "pairsDevTest.txt")]
        return [_parse_pair(line) for text in texts for line in text.splitlines() if "\t" in line]

    def read(self, files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of each photo, in the order of the archive."""
        wanted = set(files)
        if self.photos.is_dir():
            for file in sorted(wanted):
                if not (self.photos / file).is_file():
                    raise FileNotFoundError(f"{self.photos / file} is missing")
                yield file, (self.photos / file).read_bytes()
            return
        try:
            with tarfile.open(self.photos) as archive:
                for member in archive:
                    name = member.name.partition("/")[2]
                    if name in wanted and (content := archive.extractfile(member)):
                        wanted.remove(name)
                        yield name, content.read()
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.photos} is damaged or incomplete ({error}); download it again") from error
        if wanted:
            raise FileNotFoundError(f"{self.photos} lacks {len(wanted)} photos, among them {min(wanted)}")


def find_lfw(source: str | Path) -> Lfw | None:
    """Return LFW if `source` means it, else None.

    It is "lfw" for the folder `SIAMESE_DATA` (by default `cache_folder()`), or a folder that holds pairs.txt.
    """
    if source == "lfw":
        return Lfw(os.environ.get("SIAMESE_DATA") or cache_folder())
    return Lfw(source) if Path(source, "pairs.txt").is_file() else None


def _parse_pair(line: str) -> LfwPair:
    """Parse NAME, NUMBER, NUMBER (genuine) or NAME, NUMBER, NAME, NUMBER (impostor), separated by tabs."""
    words = line.split("\t")
    same = len(words) == 3
    (name1, number1), (name2, number2) = (words[:2], (words[0], words[2])) if same else (words[:2], words[2:])
    return LfwPair(f"{name1}/{name1}_{int(number1):04d}.jpg", f"{name2}/{name2}_{int(number2):04d}.jpg", same)
