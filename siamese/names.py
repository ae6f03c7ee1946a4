"""Names of files: those of the operating system, in zip archives, of new files, and on a terminal."""

import re
import unicodedata
from contextlib import suppress
from pathlib import PurePath

# Of operating systems and network drives: settings, previews and deleted files. Also all names that start with a dot.
SYSTEM_NAMES = {
    *("__macosx", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "system volume information"),
    *("@eadir", "#recycle", "@recycle", "#snapshot"),
}
LIBRARY_SUFFIX, LIBRARY_PHOTOS = ".photoslibrary", {"originals", "masters"}  # the other folders hold previews
MAX_NAME_BYTES = 255
INVALID = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')  # on Windows, and on drives that are formatted for it
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows
# Control characters, which can change what a terminal shows, and the halves of characters, which cannot be printed.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def is_system(name: str, folder: str = "") -> bool:
    """Return whether a file or folder, inside a folder with a name, is one of the system, and no photo of the user."""
    if folder.lower().endswith(LIBRARY_SUFFIX):
        return name.lower() not in LIBRARY_PHOTOS
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def member_name(name: str) -> str:
    """Return the name of a member of a zip archive as zipfile gives it, in Unicode's composed form (NFC)."""
    # macOS decomposes accents, and its zip archives do not flag their names as UTF-8: zipfile decodes them as cp437.
    with suppress(UnicodeError):
        name = name.encode("cp437").decode()
    return unicodedata.normalize("NFC", name)


def unique_name(name: str, taken: dict[str, int], reserved: int = 0) -> str:
    """Return a file name that all file systems accept, and that differs from those that are taken not only in case.

    Args:
        name: the name that is wanted. A number is added if it is taken: "a (2).jpg".
        taken: how often each name was wanted before, folded; the new one is added.
        reserved: bytes that will be added to the name.
    """
    name = INVALID.sub("_", unicodedata.normalize("NFC", name)).rstrip(". ") or "_"
    path = PurePath(f"_{name}" if RESERVED.match(name) else name)
    limit = MAX_NAME_BYTES - reserved
    first = unique = _shortened(path.stem, path.suffix, limit)
    while unique.casefold() in taken:
        taken[first.casefold()] += 1
        unique = _shortened(path.stem, f" ({taken[first.casefold()]}){path.suffix}", limit)
    taken[unique.casefold()] = 1
    return unique


def _shortened(stem: str, end: str, limit: int) -> str:
    return stem.encode()[: max(0, limit - len(end.encode()))].decode(errors="ignore") + end


def printable(text: str) -> str:
    """Return a line of text with its control characters escaped, as in a Python string."""
    return UNPRINTABLE.sub(lambda character: character[0].encode("unicode_escape").decode(), text)
