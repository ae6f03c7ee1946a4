"""The commands siamese compare | export | push | deploy | page."""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import os
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from siamese import wording
from siamese.cli.common import (
    DEFAULT_WEIGHTS,
    WEIGHTS_HELP,
    Commands,
    add_command,
    add_fmr,
    add_network,
    load_model,
    show_progress,
)
from siamese.files import check_new_file, write_new
from siamese.names import printable

if TYPE_CHECKING:
    from siamese.comparison import Comparison


def add_compare(commands: Commands) -> None:
    command = add_command(commands, "compare", _compare)
    command.add_argument("a", nargs="?", help="a photo, in any format that Pillow reads")
    command.add_argument("b", nargs="?", help="another photo; the order does not matter")
    pairs_help = "compare many pairs instead: the first two columns of a CSV file are their photos"
    command.add_argument("--pairs", type=Path, metavar="FILE", help=pairs_help)
    command.add_argument("--csv", type=Path, metavar="FILE", help="with --pairs, also write a table of the answers")
    which = "which face of each photo to compare, from 1; 0 for all faces of a photo (default: 0 0)"
    command.add_argument("--face", type=int, nargs=2, default=(0, 0), metavar=("I", "J"), help=which)
    add_fmr(
        command, 'highest false-match rate for "same", such as 0.001 (default: odds of 3 to 1, or more for poor faces)'
    )
    command.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_network(command)


def _compare(args: argparse.Namespace) -> int:
    """Compare two photos, or many pairs.

    The paths in a file of pairs start in the current folder. Its first row is left out if its cells are no file names.
    """
    if (args.pairs is None) != bool(args.a and args.b) or (args.pairs and args.a):
        raise ValueError("give two photos, or --pairs FILE")
    if args.pairs:
        return _compare_pairs(args)
    if args.csv:
        raise ValueError("--csv needs --pairs")
    model = load_model(args.weights, args.device)
    first, second = (number or None for number in args.face)
    answer = model.compare(args.a, args.b, face=(first, second), fmr=args.fmr)
    if args.json:
        print(json.dumps(answer.to_dict(), allow_nan=False))
    else:
        print(answer)
        if answer.verdict != "no face":
            limit = f"up to {answer.threshold:.3f}" if answer.threshold is not None else "at no distance"
            print(f'Dissimilarity: {answer.dissimilarity:.3f} ("same" {limit})')
            for warning in answer.warnings:
                print(printable(f"Note: {warning}"))
        elif not any(answer.found):
            print(wording.NO_FACES_HINT.format("add --weights weights/images"))
        if model.revision:
            print(printable(f"Network: {answer.model}"))
    return 1 if answer.verdict == "no face" else 0


def _compare_pairs(args: argparse.Namespace) -> int:
    if any(args.face):
        raise ValueError("--face is for two photos")
    check_new_file(args.csv)
    pairs = _read_pairs(args.pairs)
    model = load_model(args.weights, args.device)
    with show_progress() as progress:
        answers = model.compare_many(pairs, fmr=args.fmr, progress=progress)
    if args.json:
        rows = zip(pairs, answers, strict=True)
        print(json.dumps([{"photos": pair, **answer.to_dict()} for pair, answer in rows], allow_nan=False))
    else:
        for (a, b), answer in zip(pairs, answers, strict=True):
            distance = f"{answer.dissimilarity:.3f}" if answer.pairs else ""
            print(printable(f"{answer.verdict:9}  {distance:5}  {a}  {b}"))
            for sentence in answer.warnings if answer.verdict == "not read" else ():
                print(printable(f"           {sentence}"))
        counts = Counter(answer.verdict for answer in answers)
        summary = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.most_common())
        print(f"{wording.counted(len(answers), 'pair')}: {summary or 'nothing to compare'}")
    if args.csv:  # last, so that an error does not lose the answers
        write_new(args.csv, _answers_csv(pairs, answers))
    return 0 if all(answer.pairs for answer in answers) else 1


def _read_pairs(file: Path) -> list[tuple[str, str]]:
    """Read the first two columns of a CSV file, with commas, semicolons or tabs as spreadsheets write them."""
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not in UTF-8; save it as CSV UTF-8") from error
    except OSError as error:
        raise ValueError(f"cannot read {file} ({error.strerror}); give a CSV file with two photos per line") from error
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    pairs = []
    for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter), 1):
        cells = [cell.strip() for cell in row[:2]]
        if not any(cells) or (number == 1 and not any(Path(cell).suffix for cell in cells)):
            continue
        if not all(cells) or len(cells) < 2:
            raise ValueError(f"line {number} of {file} needs two photos, in the first two columns")
        pairs.append((cells[0], cells[1]))
    return pairs


def _answers_csv(pairs: list[tuple[str, str]], answers: list[Comparison]) -> str:
    """Return a table with one row per pair."""
    from siamese.search.output import write_csv

    fields = ("verdict", "probability", "dissimilarity", "threshold", "score", "fmr", "pairs")
    rows = []
    for pair, answer in zip(pairs, answers, strict=True):
        values = answer.to_dict()
        cells = ["" if values[field] is None else values[field] for field in fields]
        rows.append([*pair, *cells, *answer.numbers, " ".join(answer.warnings)])
    return write_csv(["first", "second", *fields, "first_face", "second_face", "warnings"], rows)


def add_export(commands: Commands) -> None:
    command = add_command(commands, "export", _export)
    command.add_argument("weights", help=WEIGHTS_HELP)
    command.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")


def _export(args: argparse.Namespace) -> None:
    """Write a network as an ONNX file.

    It runs without PyTorch, and is checked with onnxruntime. Input `images`: uint8 (B, C, H, W) in [0, 255]. Output
    `embeddings`: float32 (B, D). The Euclidean distance of two rows is the dissimilarity. The metadata holds the
    threshold, slope and intercept of the calibration, align (faces: the images are aligned face crops), input_range and
    channels (RGB or gray).
    """
    from siamese.export import to_onnx

    check_new_file(args.onnx)
    difference = to_onnx(load_model(args.weights, "cpu"), args.onnx)
    print(f"Written to {args.onnx}. Its embeddings differ from PyTorch's by at most {difference:.0e}.")


def add_push(commands: Commands) -> None:
    command = add_command(commands, "push", _push)
    command.add_argument("weights", type=Path, help="a result folder")
    command.add_argument("repository", metavar="USER/NAME")
    command.add_argument("--private", action="store_true", help="make a new repository private")
    command.add_argument("--revision", metavar="BRANCH", help="push to this branch; it is created if needed")
    command.add_argument("--create-pr", action="store_true", help="open a pull request")


def _push(args: argparse.Namespace) -> None:
    """Push a result folder to the Hugging Face Hub.

    pairs.png and hardest.png, which show photos of people, are left out, and names of people are replaced by numbers in
    metrics.json.
    """
    from siamese.hub.upload import upload

    print(upload(args.weights, args.repository, args.private, args.revision, args.create_pr))


def add_deploy(commands: Commands) -> None:
    command = add_command(commands, "deploy", _deploy)
    command.add_argument("space", metavar="USER/SPACE")
    command.add_argument("--weights", help=f"{WEIGHTS_HELP} (default: those of the Space, or weights/faces)")
    command.add_argument("--hardware", help="such as zero-a10g or cpu-basic (default: that of the Space)")
    command.add_argument("--private", action="store_true", help="make a new Space private")
    command.add_argument("--dry-run", action="store_true", help="only list the files and the front matter")


def _deploy(args: argparse.Namespace) -> None:
    """Deploy the demo page to a Hugging Face Space.

    The Space is created if needed, and the command waits until it runs. Of a result folder, the same files are uploaded
    as by `siamese push`.
    """
    from siamese.hub.space import deploy, plan

    if not args.dry_run:
        log = functools.partial(print, file=sys.stderr)
        print(deploy(args.space, args.weights, args.hardware, args.private, log))
        return
    planned = plan(args.space, args.weights)
    for name, content in planned.files.items():
        print(f"{content.stat().st_size if isinstance(content, Path) else len(content):>12,}  {name}")
    print(f"\nSIAMESE_WEIGHTS={planned.weights}\n\n---\n{planned.card.data.to_yaml()}\n---")


def add_page(commands: Commands) -> None:
    command = add_command(commands, "page", _page)
    command.add_argument("weights", nargs="?", help=f"{WEIGHTS_HELP} (default: {DEFAULT_WEIGHTS})")


def _page(args: argparse.Namespace) -> None:
    """Open the demo page on this machine.

    Its address is http://127.0.0.1:7860. Gradio's environment variables, such as GRADIO_SERVER_PORT and
    GRADIO_SERVER_NAME, change it.
    """
    from siamese.files import PROJECT

    if args.weights:
        os.environ["SIAMESE_WEIGHTS"] = args.weights
    runpy.run_path(str(PROJECT / "app.py"), run_name="__main__")
