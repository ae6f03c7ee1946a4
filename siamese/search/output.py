"""Write what a search found: as CSV, as one HTML page, or as a folder for each person."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

from PIL import Image

from siamese import images, wording
from siamese.files import as_stored, new_folder, write_error
from siamese.names import printable, unique_name
from siamese.search.find import Match, Matches
from siamese.search.people import People
from siamese.search.scan import Photo, find_photo
from siamese.wording import counted

FORMULA_STARTS = tuple("=+-@＝＋－＠")
THUMBNAIL_PIXELS = 160
MARGIN = 0.3  # around a face in a thumbnail, in sides of its box
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
ol { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; padding: 0 }
li { width: 160px; overflow-wrap: anywhere; font-size: 14px }
li.match img { outline: 4px solid #4f46e5 }
img { border-radius: 8px; display: block; margin-bottom: 0.4rem }
"""


def write_csv(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a CSV table.

    Control characters are escaped. Texts that a spreadsheet would run as a formula get an apostrophe in front.
    """
    file = io.StringIO()
    # All texts are in quotes, because a spreadsheet may take another character than the comma between the cells.
    csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows(map(_harmless, row) for row in (header, *rows))
    return file.getvalue()


def people_csv(people: People) -> str:
    """Return a table with one row per face: person or group (from 1; empty if left over), photo, face, box, quality."""
    numbered = [(number, face) for number, faces in enumerate(people.people, 1) for face in faces]
    rows = [
        [number, face.photo, face.number, *(face.box or [""] * 4), "" if face.quality is None else face.quality]
        for number, face in [*numbered, *(("", face) for face in people.left_over)]
    ]
    return write_csv([people.words.group, "photo", "face", "left", "top", "right", "bottom", "quality"], rows)


def matches_html(found: Matches, source: Path) -> str:
    """Return one page with a thumbnail of each face that was found in the index of `source`. It needs no other file."""
    item = found.words.item.capitalize()
    items = "".join(
        f'<li class="{"match" if face.match else ""}"><img src="{_thumbnail(face, source)}" alt="{item}" width="160">'
        f"<b>{wording.percent(face.probability)}</b> · {face.dissimilarity:.3f}<br>"
        f"{escape(printable(face.photo))}</li>\n"
        for face in found.ranked
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{item}s found</title><style>{STYLE}</style>
<h1>{escape(str(found))}</h1>
<p>A match (outlined) has a dissimilarity of at most {found.threshold:.3f}. The percentage is the probability that
both show {found.words.same}, if one of the {counted(found.faces, found.words.item)} is expected to.</p>
<ol>
{items}</ol>
</html>
"""


def write_folders(people: People, source: Path, target: Path, link: bool) -> None:
    """Write one folder for each person, with their photos: `person-0001/PHOTO`; for other images `group-0001/PHOTO`.

    The people are from the index of `source`. The name of a photo includes its folders, as in `2024_a.jpg`, see
    `unique_name`. With `link`, symbolic links are written, not copies.

    Raises:
        FileNotFoundError: if photos are not where they were.
        ValueError: if `target` is not empty or is inside `source`, or photos in a zip archive should be linked, or a
            photo cannot be read.
        OSError: if the folders cannot be written.
    """
    target = as_stored(target)
    if target.is_relative_to(source):
        raise ValueError(f"{target} is inside the folder of the photos, and would be searched next time; give another")
    photos = find_photos(source, dict.fromkeys(face.photo for faces in people.people for face in faces))
    if link and (archived := next((photo.path for photo in photos.values() if photo.member), None)):
        raise ValueError(f"{archived} is in a zip archive and cannot be linked; use --copy")
    digits = len(str(len(people.people)))
    try:
        with new_folder(target) as part:
            for number, faces in enumerate(people.people, 1):
                folder, taken = part / f"{people.words.group}-{number:0{digits}}", {}
                folder.mkdir()
                for name in dict.fromkeys(face.photo for face in faces):  # each photo once
                    _write_photo(photos[name], folder, name.replace("/", "_"), taken, link)
    except OSError as error:
        raise write_error(target, error, "use --copy" if link else "choose another place") from error


def find_photos(source: Path, paths: Iterable[str]) -> dict[str, Photo]:
    """Return photos of an index by their paths. Raises a FileNotFoundError if any does not exist any more."""
    found, missing = {}, []
    for path in paths:
        try:
            found[path] = find_photo(source, path)
        except OSError:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"not where it was: {counted(len(missing), 'photo')}, such as {source / missing[0]}. After a move, run "
            "`siamese embed` on the folder again"
        )
    return found


def _write_photo(photo: Photo, folder: Path, name: str, taken: dict[str, int], link: bool) -> None:
    place = folder / unique_name(name, taken)
    try:
        if link:
            place.symlink_to(photo.file)
            return
        with place.open("xb") as file:
            file.write(photo.read())
    except FileExistsError:  # some file systems ignore more differences than `folded`
        _write_photo(photo, folder, name, taken, link)
        return
    except ValueError as error:
        raise ValueError(f"{photo.path}: {error}; nothing was copied") from error
    with suppress(ValueError, OverflowError):  # a member of an archive may have any date
        stamp = photo.stamp / 1e9 if photo.member is None else time.mktime((*photo.member.date_time, 0, 0, -1))
        os.utime(place, (stamp, stamp))


def _thumbnail(face: Match, source: Path) -> str:
    """Return a face as a data URI; an empty image if its photo has been deleted."""
    try:
        photo = images.read(find_photo(source, face.photo).read())
    except (OSError, ValueError):
        return images.data_uri(Image.new("RGB", (1, 1), "white"), "JPEG")
    if face.box:
        left, top, right, bottom = face.box
        margin = MARGIN * max(right - left, bottom - top)
        photo = photo.crop((round(left - margin), round(top - margin), round(right + margin), round(bottom + margin)))
    photo.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return images.data_uri(photo, "JPEG")


def _harmless(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text
