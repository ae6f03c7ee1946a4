"""The AT&T (ORL) faces: 400 images of 40 people."""

import hashlib
import os
from http.client import HTTPException
from pathlib import Path

import torch

from siamese.files import cache_folder

ATT_FILE = "at&t.zip"
ATT_URL = "https://github.com/maticvl/dataHacker/raw/master/DATA/at%26t.zip"
ATT_SHA256 = "0d3864db0836cc74e6a497d790685c8724417d7b321736e71b0b1416480cced1"


def find_att() -> Path:
    """Find the zip archive of the AT&T faces, or the folder that unpacking it creates, or download it (3.8 MB).

    The folder `SIAMESE_DATA` is searched first, then `cache_folder()`. The data set is from Samaria and Harter,
    "Parameterisation of a Stochastic Model for Human Face Identification", WACV 1994.
    """
    cache = cache_folder()
    for folder in filter(None, (os.environ.get("SIAMESE_DATA"), cache)):
        archive, unpacked = Path(folder, ATT_FILE), Path(folder, "data", "faces")
        if archive.is_file():
            if hashlib.sha256(archive.read_bytes()).hexdigest() != ATT_SHA256:
                raise ValueError(f"{archive} is not the AT&T archive (wrong SHA-256); delete it to download it again")
            return archive
        if unpacked.is_dir():
            return unpacked
    archive = cache / ATT_FILE
    try:
        cache.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(ATT_URL, str(archive), hash_prefix=ATT_SHA256, progress=True)
    except (OSError, RuntimeError, HTTPException) as error:
        raise ConnectionError(
            f"{ATT_FILE} could not be downloaded ({error}). Download {ATT_URL} and save it as {archive}, "
            "or set SIAMESE_DATA to its folder"
        ) from error
    return archive
