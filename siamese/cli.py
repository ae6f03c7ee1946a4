"""The command line: siamese compare | embed | find | group | train | evaluate | export | push | deploy.

Modules are imported inside the functions that need them, so that `siamese --help` does not import PyTorch.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias, get_type_hints

from siamese import __version__
from siamese.training.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from siamese.model import Model

    Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

DEFAULT_WEIGHTS = "weights/faces"
DATA_HELP = '"att" (the AT&T faces), or a folder or zip with one folder of images per person'
WEIGHTS_HELP = "a result folder of `siamese train`, weights/faces, weights/att, or USER/NAME[@REVISION] on the Hub"
DEVICE_HELP = "auto, cpu, cuda, cuda:1, mps (default: auto)"
# Missing module: what needs it, and the extra that installs it.
EXTRAS = {
    "onnxruntime": ("siamese export needs", "onnx"),
    "onnxscript": ("siamese export needs", "onnx"),
    "tensorboard": ("--tensorboard needs", "tensorboard"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, 1 if a compared photo shows no face, 2 after an error message, 130 after Ctrl-C, or 141 if the
        reader of the output, such as `head`, has closed it.
    """
    args = _parser().parse_args(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again at exit
        return 141
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        needs, extra = EXTRAS.get(error.name or "", ("training and evaluation need", "train"))
        print(f"error: {needs} {error.name}, which is not installed: pip install '.[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumable = args.run is _train and args.out and (args.out / "checkpoints" / "run.json").exists()
        hint = f" The last complete epoch is saved in {args.out}; continue with --resume." if resumable else ""
        print(f"\nStopped.{hint}", file=sys.stderr)
        return 130
    return code or 0


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n       See `{self.prog} --help`.\n")


def _parser() -> Parser:
    parser = Parser(prog="siamese", description="Do two photos show the same person? Use and train Siamese networks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    from siamese.cli_search import add_embed, add_find, add_group  # it needs this module

    for add in (
        _add_compare,
        add_embed,
        add_find,
        add_group,
        _add_train,
        _add_evaluate,
        _add_export,
        _add_push,
        _add_deploy,
    ):
        add(commands)
    return parser


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], help: str, description: str = ""
) -> Parser:
    command = commands.add_parser(name, help=help, description=description or f"{help[0].upper()}{help[1:]}.")
    command.set_defaults(run=run)
    return command


# --- compare


def _add_compare(commands: Commands) -> None:
    command = add_command(commands, "compare", _compare, "compare two photos")
    command.add_argument("a", help="a photo, in any format that Pillow reads")
    command.add_argument("b", help="another photo; the order does not matter")
    command.add_argument(
        "--face",
        type=int,
        nargs=2,
        default=(0, 0),
        metavar=("I", "J"),
        help="which face of each photo to compare, from 1; 0 for all faces of a photo (default: 0 0)",
    )
    command.add_argument(
        "--fmr",
        type=float,
        metavar="RATE",
        help='say "same" only below this false-match rate, such as 0.001 (default: if P(same) is at least 0.75)',
    )
    command.add_argument("--weights", default=DEFAULT_WEIGHTS, help=f"{WEIGHTS_HELP} (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="print the answer as JSON")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)


def _compare(args: argparse.Namespace) -> int:
    """Print the answer. Returns 1 if a photo shows no face, else 0."""
    model = load_model(args.weights, args.device)
    first, second = (number or None for number in args.face)
    answer = model.compare(args.a, args.b, face=(first, second), fmr=args.fmr)
    if args.json:
        print(json.dumps(answer.to_dict(), allow_nan=False))
    else:
        print(answer)
        if answer.verdict != "no face":
            limit = (
                f'"same" up to {answer.threshold:.3f}' if answer.threshold > 0 else 'no distance is enough for "same"'
            )
            print(f"Dissimilarity: {answer.dissimilarity:.3f} ({limit})")
            for warning in answer.warnings:
                print(f"Note: {warning}")
        if model.revision:
            print(f"Network: {answer.model}")
    return 1 if answer.verdict == "no face" else 0


def load_model(weights: str, device: str) -> Model:
    from siamese import checkpoint

    model = checkpoint.load(weights, device=device)
    if model.note:
        print(f"note: {model.note}", file=sys.stderr)
    return model


# --- train


def _add_train(commands: Commands) -> None:
    command = add_command(commands, "train", _train, "train, test and calibrate a network on a folder of people")
    command.add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--out", type=Path, help="result folder (default: runs/NAME_OF_THE_DATA)")
    types = get_type_hints(TrainConfig)
    for setting in fields(TrainConfig):
        if setting.name in ("data", "out"):
            continue
        flag, text = "--" + setting.name.replace("_", "-"), setting.metadata["help"]
        if types[setting.name] is bool:
            command.add_argument(flag, action="store_true", help=text)
            continue
        if setting.default not in (None, ""):
            text += f" (default: {setting.default})"
        kind = setting.metadata.get("type", types[setting.name])
        command.add_argument(flag, type=kind, default=setting.default, help=text)
    command.add_argument("--push-to-hub", metavar="USER/NAME", help="push the result to the Hugging Face Hub")


def _train(args: argparse.Namespace) -> None:
    from siamese.data.folders import title
    from siamese.hub.upload import check_upload, upload
    from siamese.processes import is_main_process
    from siamese.training.run import train
    from siamese.training.summary import summarise

    args.out = args.out or Path("runs", title(args.data))
    config = TrainConfig(**{setting.name: getattr(args, setting.name) for setting in fields(TrainConfig)})
    if args.push_to_hub:
        check_upload(args.push_to_hub)
    record = train(config)
    if not is_main_process():
        return
    print(summarise(record, args.out))
    if args.push_to_hub:
        print(upload(args.out, args.push_to_hub))


def _people(title: str, names: list[str] | list[int]) -> str:
    return f"{title}: {', '.join(map(str, names[:5]))}" + (f" … {len(names)} in all" if len(names) > 5 else "")


# --- evaluate


def _add_evaluate(commands: Commands) -> None:
    command = add_command(commands, "evaluate", _evaluate, "measure a network on people it was not trained on")
    command.add_argument("weights", help=WEIGHTS_HELP)
    command.add_argument("--data", required=True, help=f'{DATA_HELP}; or "lfw" (in SIAMESE_DATA), or a folder with LFW')
    command.add_argument("--folds", type=int, help="LFW only: how many of the ten folds to run (default: all)")
    command.add_argument("--no-cache", action="store_true", help="LFW only: ignore saved embeddings")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)


def _evaluate(args: argparse.Namespace) -> None:
    from siamese.data.lfw import find_lfw
    from siamese.evaluation.lfw import evaluate_lfw
    from siamese.evaluation.people import evaluate_folder
    from siamese.hub.card import metrics_table

    model = load_model(args.weights, args.device)
    if lfw := find_lfw(args.data):
        result = evaluate_lfw(model, lfw, args.folds, not args.no_cache)
        protocol = result.protocol
        print(f"LFW: accuracy {protocol.accuracy:.2%} ± {protocol.accuracy_std:.2%}")
        print(f"No face was found in {protocol.without_face} of {protocol.images:,} images.\n")
        print(metrics_table("LFW", result.test, result.folds))
    else:
        if args.folds is not None or args.no_cache:
            raise ValueError("--folds and --no-cache are for LFW; to cross-validate, use `siamese train --folds`")
        result = evaluate_folder(model, args.data)
        print(metrics_table(_people("not trained on", result.names), result.test))
    if args.json:
        args.json.write_text(result.to_json())


# --- export


def _add_export(commands: Commands) -> None:
    command = add_command(
        commands,
        "export",
        _export,
        "write a network as an ONNX file",
        "Write a network as an ONNX file, which runs without PyTorch, and check it with onnxruntime. Input `images`: "
        "uint8 (B, C, H, W) in [0, 255]. Output `embeddings`: float32 (B, D). The Euclidean distance of two rows is "
        "the dissimilarity. The metadata holds the threshold, slope and intercept of the calibration, align (faces: "
        "the images are aligned face crops), input_range and channels (RGB or gray).",
    )
    command.add_argument("weights", help=WEIGHTS_HELP)
    command.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="the file to write")


def _export(args: argparse.Namespace) -> None:
    from siamese.export import to_onnx

    difference = to_onnx(load_model(args.weights, "cpu"), args.onnx)
    print(f"Written to {args.onnx}. Its embeddings differ from PyTorch's by at most {difference:.0e}.")


# --- push and deploy


def _add_push(commands: Commands) -> None:
    command = add_command(
        commands,
        "push",
        _push,
        "push a result folder to the Hugging Face Hub",
        "Push a result folder to the Hugging Face Hub. pairs.png and hardest.png, which show photos of people, are "
        "left out, and names of people are replaced by numbers in metrics.json.",
    )
    command.add_argument("weights", type=Path, help="a result folder")
    command.add_argument("repository", metavar="USER/NAME")
    command.add_argument("--private", action="store_true", help="make a new repository private")
    command.add_argument("--revision", metavar="BRANCH", help="push to this branch; it is created if needed")
    command.add_argument("--create-pr", action="store_true", help="open a pull request")


def _push(args: argparse.Namespace) -> None:
    from siamese.hub.upload import upload

    print(upload(args.weights, args.repository, args.private, args.revision, args.create_pr))


def _add_deploy(commands: Commands) -> None:
    command = add_command(
        commands,
        "deploy",
        _deploy,
        "deploy the demo page to a Hugging Face Space",
        "Deploy the demo page with a network to a Hugging Face Space, and wait until it runs. The Space is created if "
        "needed. Of a result folder, the same files are uploaded as by `siamese push`.",
    )
    command.add_argument("space", metavar="USER/SPACE")
    command.add_argument("--weights", help=f"{WEIGHTS_HELP} (default: those of the Space, or weights/faces)")
    command.add_argument("--hardware", help="such as zero-a10g or cpu-basic (default: that of the Space)")
    command.add_argument("--private", action="store_true", help="make a new Space private")
    command.add_argument("--dry-run", action="store_true", help="only list the files and the front matter")


def _deploy(args: argparse.Namespace) -> None:
    from siamese.hub.space import deploy, plan

    if not args.dry_run:
        log = functools.partial(print, file=sys.stderr)
        print(deploy(args.space, args.weights, args.hardware, args.private, log))
        return
    planned = plan(args.space, args.weights)
    for name, content in planned.files.items():
        print(f"{content.stat().st_size if isinstance(content, Path) else len(content):>12,}  {name}")
    print(f"\nSIAMESE_WEIGHTS={planned.weights}\n\n---\n{planned.card.data.to_yaml()}\n---")
