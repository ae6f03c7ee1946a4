"""Names of files: those of the operating system, in zip archives and new ones; texts on a terminal and in Markdown."""

import os
import re
import unicodedata
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path, PurePath

# Of operating systems and network drives: settings, previews and deleted files. Also all names that start with a dot.
SYSTEM_NAMES = {
    *("__macosx", "thumbs.db", "desktop.ini", "lost+found", "$recycle.bin", "system volume information"),
    *("@eadir", "#recycle", "@recycle", "#snapshot"),
}
LIBRARY_SUFFIX, LIBRARY_PHOTOS = ".photoslibrary", {"originals", "masters"}  # the other folders hold previews
UTF8_FLAG = 0x800  # of a member of a zip archive
MAX_NAME_BYTES = 255
INVALID = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')  # on Windows, and on drives that are formatted for it
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows
# Control characters, which can change what a terminal shows, and the halves of characters, which cannot be printed.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What is more than itself in Markdown, in a line or at its start.
MARKDOWN = re.compile(r"[\\`*_\[\]|~]|^[#+-]")
ENTITY = re.compile(r"&(?=#?\w+;)")


def is_system(name: str, folder: str = "") -> bool:
    """Return whether a file or folder, inside a folder with a name, is one of the system, and no photo of the user."""
    if folder.lower().endswith(LIBRARY_SUFFIX):
        return name.lower() not in LIBRARY_PHOTOS
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def open_zip(file: Path) -> zipfile.ZipFile:
    """Open a zip archive whose members get unique names that stay inside it, in Unicode's composed form (NFC).

    "./a.jpg" and "/a.jpg" become "a.jpg" and "a (2).jpg". Of several members with exactly the same name, the last one
    counts, as in zipfile.
    """
    archive = zipfile.ZipFile(file)
    members: dict[str, zipfile.ZipInfo] = {}
    repeated: Counter[str] = Counter()
    for member in map(archive.getinfo, dict.fromkeys(archive.namelist())):
        is_folder, original = member.is_dir(), member.filename
        # zipfile decodes names without the flag for UTF-8 as cp437. macOS decomposes accents, and sets no flag; Windows
        # uses the code page of its language, which Python knows as "oem" only there.
        for encoding in ("utf-8",) if member.flag_bits & UTF8_FLAG else ("utf-8", "oem"):
            with suppress(UnicodeError, LookupError):
                original = original.encode("cp437").decode(encoding)
                break
        parts = unicodedata.normalize("NFC", original).replace("\\", "/").split("/")
        first = name = "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
        if is_folder:
            name += "/"
        while name in members and not is_folder:
            repeated[first] += 1
            stem, suffix = os.path.splitext(first)
            name = f"{stem} ({repeated[first] + 1}){suffix}"
        member.filename = name
        members[name] = member
    archive.filelist, archive.NameToInfo = list(members.values()), members
    return archive


def folded(name: str) -> str:
    """Return a form of a name that is equal for names that differ only in letter case, or in how accents are stored."""
    return unicodedata.normalize("NFC", name).casefold()


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
    while folded(unique) in taken:
        taken[folded(first)] += 1
        unique = _shortened(path.stem, f" ({taken[folded(first)]}){path.suffix}", limit)
    taken[folded(unique)] = 1
    return unique


def _shortened(stem: str, end: str, limit: int) -> str:
    return stem.encode()[: max(0, limit - len(end.encode()))].decode(errors="ignore") + end


def printable(text: str) -> str:
    """Return a line of text with its control characters escaped, as in a Python string."""
    return UNPRINTABLE.sub(lambda character: character[0].encode("unicode_escape").decode(), text)


def markdown_text(text: str) -> str:
    """Return a line of Markdown that shows a text as it is: no HTML, links, images, tables or headings."""
    text = MARKDOWN.sub(r"\\\g<0>", ENTITY.sub("&amp;", printable(text)))
    return text.replace("<", "&lt;").replace(">", "&gt;")
