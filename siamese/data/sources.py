"""The two public sets of faces: AT&T, downloaded once, and LFW, read where it lies."""

import hashlib
import http.client
import os
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

ATT_URL = "https://github.com/maticvl/dataHacker/raw/master/DATA/at%26t.zip"
ATT_SHA256 = "0d3864db0836cc74e6a497d790685c8724417d7b321736e71b0b1416480cced1"
ATT_FILE = "at&t.zip"
ATT_NAME = "AT&T faces"
LFW_FILE = "lfw-deepfunneled.tar"
# One person under two names, or one photograph under two: seen among the closest "impostors".
LFW_ALIASES = {
    "Dai_Chul_Chyung": "Chyung_Dai-chul",
    "Hassan_Wirajuda": "Hasan_Wirayuda",
    "John_Burnett": "John_Barnett",
    "Martha_Bowen": "Gabrielle_Rose",
    "Mireya_Elisa_Moscoso_Rodriguez": "Mireya_Moscoso",
    "Prince_Felipe": "Felipe_De_Borbon",
    "Sepp_Blatter": "Joseph_Blatter",
    "Shavon_Earp": "Diana_Taurasi",
    "Wang_Nan": "Nan_Wang",
}
LFW_ADDRESS = "http://vis-www.cs.umass.edu/lfw/"


def cache_folder() -> Path:
    """Return the folder for what can be made again: `XDG_CACHE_HOME`, else ~/.cache, and there `siamese`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "siamese"


def find_att() -> Path:
    """Find the AT&T (ORL) faces of Samaria and Harter (1994), or download them once: 3.8 MB, 400 images of 40 people.

    Looked for in the folder `SIAMESE_DATA`, then in `cache_folder`.

    Returns:
        The path of the zip archive, whose sha256 is right and which is read in place, or of the folder `data/faces`
        that unpacking it makes.

    Raises:
        ValueError: where a file of that name is there but is not the archive.
        ConnectionError: where it cannot be downloaded; the sentence says where to put the file.
    """
    cache = cache_folder()
    for folder in filter(None, (os.environ.get("SIAMESE_DATA"), cache)):
        path = Path(folder, ATT_FILE)
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != ATT_SHA256:
                raise ValueError(f"{path} is not the AT&T archive (its sha256 differs); delete it to download it anew")
            return path
        if (unpacked := Path(folder, "data", "faces")).is_dir():
            return unpacked
    return _download(ATT_URL, cache / ATT_FILE, ATT_SHA256)


class LfwPair(NamedTuple):
    """Two photographs, as NAME/NAME_0001.jpg, and whether they show one person."""

    first: str
    second: str
    same: bool


class Lfw:
    """Labeled Faces in the Wild (Huang et al., 2007), deep-funneled, as it lies in a folder: the photographs'
    archive, and the lists of pairs beside it. pairs.txt is View 2, to report on; pairsDevTrain.txt and
    pairsDevTest.txt are View 1, to choose on.

    Args:
        folder: holds lfw-deepfunneled.tar, packed or unpacked, and pairs.txt.

    Raises:
        FileNotFoundError: where one of them is missing; the sentence says where they come from.
    """

    name = "LFW"

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        stem = self.folder / LFW_FILE.removesuffix(".tar")
        places = (stem, *(stem.with_suffix(suffix) for suffix in (".tar", ".tgz", ".tar.gz")))
        self.photographs = next((place for place in places if place.exists()), None)
        if self.photographs is None or not (self.folder / "pairs.txt").is_file():
            raise FileNotFoundError(
                f"{self.folder} holds no LFW: put {LFW_FILE} and pairs.txt there; they are those of {LFW_ADDRESS} "
                "(mirrors have them too)"
            )

    def folds(self) -> list[list[LfwPair]]:
        """Return View 2: ten folds of 600 pairs, half of them genuine, with no name in two folds."""
        lines = (self.folder / "pairs.txt").read_text().splitlines()
        folds, each = map(int, lines[0].split())
        size = 2 * each
        return [[_pair(line) for line in lines[1 + k * size : 1 + (k + 1) * size]] for k in range(folds)]

    def view1(self) -> list[LfwPair]:
        """Return the 3,200 pairs to choose on."""
        texts = [(self.folder / name).read_text() for name in ("pairsDevTrain.txt", "pairsDevTest.txt")]
        return [_pair(line) for text in texts for line in text.splitlines() if len(line.split("\t")) > 1]

    def read(self, files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield each photograph's name and the content of its file, in the order of the archive.

        Raises:
            FileNotFoundError: where one is missing; it is named.
        """
        wanted = set(files)
        if self.photographs.is_dir():
            for file in sorted(wanted):
                if not (self.photographs / file).is_file():
                    raise FileNotFoundError(f"{self.photographs / file} is missing")
                yield file, (self.photographs / file).read_bytes()
            return
        try:
            with tarfile.open(self.photographs) as archive:
                for member in archive:
                    name = member.name.partition("/")[2]
                    if name in wanted and member.isfile():
                        wanted.remove(name)
                        yield name, archive.extractfile(member).read()
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.photographs} is damaged or cut short ({error})") from error
        if wanted:
            raise FileNotFoundError(f"{min(wanted)} is missing in {self.photographs}, and {len(wanted) - 1} others")


def find_lfw(source: str | Path) -> Lfw | None:
    """Return LFW where `source` is "lfw", which means the folder `SIAMESE_DATA`, or a folder with its list of pairs;
    else None.

    Raises:
        FileNotFoundError: see `Lfw`.
    """
    if source == "lfw":
        return Lfw(os.environ.get("SIAMESE_DATA") or cache_folder())
    return Lfw(source) if Path(source, "pairs.txt").is_file() else None


def _pair(line: str) -> LfwPair:
    words = line.split("\t")
    same = len(words) == 3
    (name1, number1), (name2, number2) = (words[:2], (words[0], words[2])) if same else (words[:2], words[2:])
    files = (f"{name}/{name}_{int(number):04d}.jpg" for name, number in ((name1, number1), (name2, number2)))
    return LfwPair(*files, same)


def _download(url: str, target: Path, sha256: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=target.parent, suffix=".part")
    try:
        try:
            with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=30) as response:
                total = int(response.headers.get("Content-Length") or 0) or None
                with tqdm(total=total, unit="B", unit_scale=True, desc=target.name) as bar:
                    while block := response.read(1 << 16):
                        file.write(block)
                        bar.update(len(block))
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(
                f"{target.name} could not be downloaded ({error}). With a network, fetch {url} "
                f"and put it at {target}, or name its folder in SIAMESE_DATA"
            ) from error
        if hashlib.sha256(Path(part).read_bytes()).hexdigest() != sha256:
            raise ConnectionError(f"{url} did not send the whole file, or another one (its sha256 differs); try again")
        os.replace(part, target)
    finally:
        Path(part).unlink(missing_ok=True)
    return target
