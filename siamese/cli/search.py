"""The commands siamese embed | find | group | index."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from siamese.cli.common import Commands, add_command, add_fmr, add_network, load_model, show_progress
from siamese.data.folders import limit_list
from siamese.files import check_new_file, check_new_folder, write_new
from siamese.names import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from siamese.model import Model
    from siamese.search.index import Index

SHOWN, SHOWN_PHOTOS = 20, 5  # problems, or people, on the screen; and photos of a person
PHOTOS_HELP = "a folder or zip archive of photos, which is indexed first, or an index"


def add_embed(commands: Commands) -> None:
    command = add_command(commands, "embed", _embed)
    command.add_argument("folder", type=Path, help="a folder or zip archive of photos")
    command.add_argument("--out", type=Path, metavar="INDEX", help="folder of the index (default: in ~/.cache/siamese)")
    forget_help = "also forget the photos of folders that are empty or missing"
    command.add_argument("--forget", action="store_true", help=forget_help)
    add_network(command)


def add_find(commands: Commands) -> None:
    command = add_command(commands, "find", _find)
    portraits_help = "photos of the person; several count together"
    command.add_argument("portraits", nargs="+", metavar="PORTRAIT", help=portraits_help)
    command.add_argument("photos", metavar="FOLDER|INDEX", help=PHOTOS_HELP)
    which = "which face of a single portrait to search for, from 1 (default: the main one)"
    command.add_argument("--face", type=int, metavar="N", help=which)
    command.add_argument("--limit", type=int, default=20, metavar="N", help="faces to list (default: %(default)s)")
    add_fmr(command, "expected number of false matches among all faces, at most (default: 0.01)")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--html", type=Path, metavar="FILE", help="also write a page with the faces")
    add_network(command)


def add_group(commands: Commands) -> None:
    command = add_command(commands, "group", _group)
    command.add_argument("photos", metavar="FOLDER|INDEX", help=PHOTOS_HELP)
    add_fmr(command, "expected number of false matches of a face among all faces, at most (default: 0.3)")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--csv", type=Path, metavar="FILE", help="also write a table of the faces")
    folders = command.add_mutually_exclusive_group()
    folders.add_argument("--copy", type=Path, metavar="DIR", help="write a folder for each person with their photos")
    folders.add_argument("--link", type=Path, metavar="DIR", help="the same with links to the photos")
    add_network(command)


def add_index(commands: Commands) -> None:
    command = add_command(commands, "index", _index)
    command.add_argument("--forget", type=Path, metavar="FOLDER", help="delete the index of a folder, or an index")


def _embed(args: argparse.Namespace) -> None:
    """Make an index of the faces in a folder of photos.

    It includes the photos in zip archives. To update an index, only new and changed photos are read.
    """
    from siamese.search.update import update_index
    from siamese.wording import FACES, counted

    model = load_model(args.weights, args.device)
    with show_progress() as progress:
        update = update_index(model, args.folder, args.out, progress, args.forget)
    moved = f"{update.moved:,} moved, " if update.moved else ""
    changes = f"{update.embedded:,} new or changed, {moved}{update.forgotten:,} deleted, {update.others:,} other files"
    print(f"{counted(update.photos, 'photo')}, {counted(update.faces, model.words.item)} ({changes})")
    _print_list("Photos without a face", update.without_faces)
    _print_list("Not read", [f"{path}: {text}" for path, text in update.problems])
    _print_list("Notes", update.notes)
    print(f"Index: {printable(str(update.index))}", file=sys.stderr)
    if update.created and model.words is FACES:
        advice = f"To delete it: siamese index --forget {printable(shlex.quote(str(update.index)))}"
        print(f"It holds biometric data of the people in the photos. {advice}", file=sys.stderr)


def _print_list(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"{title} ({len(lines):,}):", *map(printable, limit_list(lines, SHOWN)), sep="\n  ")


def _index(args: argparse.Namespace) -> None:
    """List the indexes in ~/.cache/siamese with their folder, size and age, or delete those of a folder.

    The folder may not exist any more. Photos are not deleted.
    """
    from siamese.search.storage import forget_indexes, indexes_folder, stored_indexes

    indexes = forget_indexes(args.forget) if args.forget else stored_indexes()
    if not indexes:
        print(f"no index in {printable(str(indexes_folder()))}", file=sys.stderr)
    for index in indexes:
        source = index.problem or str(index.source)
        gone = " (not there)" if index.source and not index.source.exists() else ""
        size, days = f"{index.size / 1e6:,.1f} MB", f"{max(0, time.time() - index.modified) / 86400:.0f} days old"
        print(printable(f"{'deleted: ' * bool(args.forget)}{source}{gone}, {size}, {days}: {index.folder}"))


def _open(photos: str, model: Model) -> Index:
    from siamese.search.update import open_index

    with show_progress() as progress:
        return open_index(model, Path(photos), progress)


def _find(args: argparse.Namespace) -> None:
    """Find a person in many photos."""
    from siamese import wording
    from siamese.search.find import find
    from siamese.search.output import find_photos, matches_html

    check_new_file(args.html)
    model = load_model(args.weights, args.device)
    with _open(args.photos, model) as index:
        found = find(args.portraits, index, model=model, face=args.face, fmr=args.fmr, limit=args.limit)
        if args.html:
            write_new(args.html, matches_html(found, index.source))
            try:
                find_photos(index.source, [face.photo for face in found.ranked])
            except (FileNotFoundError, ValueError) as error:
                print(f"note: {printable(str(error))}", file=sys.stderr)
    if args.json:
        print(json.dumps(found.to_dict()))
        return
    print(found)
    for face in found.ranked:
        box = f"  [{', '.join(f'{x:.0f}' for x in face.box)}]" if face.box else ""
        chance = f"{'match' if face.match else '':5}  {wording.percent(face.probability):>10}"
        print(f"  {chance}  {face.dissimilarity:.3f}  {printable(face.photo)}{box}")
    _print_list("Notes", found.warnings)


def _group(args: argparse.Namespace) -> None:
    """Group the faces in many photos by person."""
    from siamese.search.output import people_csv, write_folders
    from siamese.search.people import group

    target = args.copy or args.link
    check_new_file(args.csv)
    check_new_folder(target)
    model = load_model(args.weights, args.device)
    with _open(args.photos, model) as index:
        people, source = group(index, model=model, fmr=args.fmr), index.source
    if args.csv:
        write_new(args.csv, people_csv(people))
    if target:
        write_folders(people, source, target, link=bool(args.link))
    if args.json:
        print(json.dumps(people.to_dict()))
        return
    print(people)
    for number, faces in enumerate(people.people[:SHOWN], 1):
        photos = dict.fromkeys(printable(face.photo) for face in faces)
        print(f"  {people.words.group.capitalize()} {number}: {', '.join(limit_list(list(photos), SHOWN_PHOTOS))}")
    if len(people.people) > SHOWN:
        print(f"  … and {len(people.people) - SHOWN:,} more; --csv FILE lists all")
    _print_list("Notes", people.warnings)
