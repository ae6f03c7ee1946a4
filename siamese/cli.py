"""siamese train | evaluate | compare | export | push | deploy"""

import argparse
import functools
import json
import sys
from dataclasses import fields
from pathlib import Path

from siamese import __version__
from siamese import checkpoint as store
from siamese.training.config import TrainConfig

DATA_HELP = '"att" (the AT&T faces), or a folder or zip with one folder of images per person'
LFW_HELP = '; or "lfw", which lies in SIAMESE_DATA, or the folder where it lies'
WEIGHTS_HELP = "what `siamese train` wrote, weights/faces or weights/att, or USER/NAME or USER/NAME@REVISION on the Hub"
DEVICE_HELP = "auto, cpu, cuda, cuda:1, mps … (default: auto)"
# What is not installed, what needs it, and the extra that brings it.
EXTRAS = {
    "onnxruntime": ("siamese export needs", "onnx"),
    "onnxscript": ("siamese export needs", "onnx"),
    "tensorboard": ("--tensorboard needs", "tensorboard"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 2 for an error told in one sentence, 130 when stopped by Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        needs, extra = EXTRAS.get(error.name, ("training and measuring need", "train"))
        print(f"error: {error.name} is missing, which {needs}: pip install '.[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumable = args.run is _train and args.out and (args.out / "checkpoints" / "run.json").exists()
        hint = f" The last whole epoch is kept in {args.out}; --resume goes on with it." if resumable else ""
        print(f"\nStopped.{hint}", file=sys.stderr)
        return 130
    return 0


def _train(args: argparse.Namespace) -> None:
    from siamese.data import folders
    from siamese.hub import card
    from siamese.hub import upload as hub
    from siamese.training import distributed as devices
    from siamese.training import run as train

    args.out = args.out or Path("runs", folders.title(args.data))
    config = TrainConfig(**{setting.name: getattr(args, setting.name) for setting in fields(TrainConfig)})
    if args.push_to_hub:
        hub.check(args.push_to_hub)
    record = train.train(config)
    if not devices.is_main_process():
        return
    held_out = _people("held out", record["people"]["test"])
    print(card.metrics_table(held_out, record["test"], record["folds"], record["before"]))
    print(f"\nWritten to {args.out}. Compare two pictures: siamese compare A B --weights {args.out}")
    if args.push_to_hub:
        print(hub.upload(args.out, args.push_to_hub))


def _evaluate(args: argparse.Namespace) -> None:
    from siamese.data.sources import find_lfw
    from siamese.evaluation import evaluate
    from siamese.hub import card

    model = _load(args.weights, args.device)
    if lfw := find_lfw(args.data):
        result = evaluate.evaluate_lfw(model, lfw, args.folds, not args.no_cache).record
        title, folds = "LFW", result["folds"]
        print(f"LFW: {folds['accuracy']:.2%} ± {folds['accuracy_std']:.2%} of the pairs are told right")
        print(f"No face was found in {folds['without_face']} of {folds['images']:,} images.\n")
    else:
        names, result = evaluate.evaluate_folder(model, args.data, args.folds or 0)
        title = _people("not trained on", names)
    print(card.metrics_table(title, result["test"], result["folds"]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def _load(weights: str, device: str):
    model = store.load(weights, device=device)
    if model.note:
        print(f"note: {model.note}", file=sys.stderr)
    return model


def _people(title: str, names: list[str]) -> str:
    return f"{title}: {', '.join(names[:5])}" + (f" … {len(names)} in all" if len(names) > 5 else "")


def _compare(args: argparse.Namespace) -> None:
    model = _load(args.weights, args.device)
    answer = model.compare(args.a, args.b, face=tuple(args.face), fmr=args.fmr)
    if args.json:
        print(json.dumps(answer.to_dict()))
        return
    if None not in answer.faces:
        print(f"Dissimilarity: {answer.dissimilarity:.3f}")
        limit = "even odds" if args.fmr is None else f"one false match in {round(1 / args.fmr):,}"
        print(f"Verdict: {answer.verdict} (P(same) {answer.probability:.1%}; {limit} at {answer.threshold:.3f})")
    for warning in answer.warnings:
        print(f"Note: {warning}")
    if model.revision:
        print(f"Network: {answer.model}")


def _export(args: argparse.Namespace) -> None:
    from siamese import export

    difference = export.to_onnx(_load(args.weights, "cpu"), args.onnx)
    print(f"Written to {args.onnx}: in onnxruntime its embeddings are PyTorch's to {difference:.0e}.")


def _push(args: argparse.Namespace) -> None:
    from siamese.hub import upload as hub

    print(hub.upload(args.weights, args.repository, args.private, args.revision, args.create_pr))


def _deploy(args: argparse.Namespace) -> None:
    from siamese.hub import space

    if not args.dry_run:
        tell = functools.partial(print, file=sys.stderr)
        print(space.deploy(args.space, args.weights, args.hardware, args.private, tell))
        return
    planned = space.plan(args.space, args.weights)
    for name, content in planned.files.items():
        print(f"{content.stat().st_size if isinstance(content, Path) else len(content):>12,}  {name}")
    print(f"\nSIAMESE_WEIGHTS={planned.weights}\n\n---\n{planned.card.data.to_yaml()}\n---")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        each = "" if " " in self.prog else f", and `{self.prog} COMMAND --help` those of a command"
        self.exit(2, f"error: {message}\n       `{self.prog} --help` lists the settings{each}.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="siamese", description="How alike are two images? Train, measure and use Siamese networks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("train", help="train a network on a folder of people, and test and calibrate it")
    command.set_defaults(run=_train)
    command.add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--out", type=Path, help="the result folder (default: runs/ and the name of the data)")
    for setting in fields(TrainConfig)[2:]:
        flag, text = "--" + setting.name.replace("_", "-"), setting.metadata["help"]
        if setting.type is bool:
            command.add_argument(flag, action="store_true", help=text)
        else:
            if setting.default not in (None, ""):
                text += f" (default: {setting.default})"
            command.add_argument(flag, type=setting.type, default=setting.default, help=text)
    command.add_argument("--push-to-hub", metavar="USER/NAME", help="push the result to the Hugging Face Hub")

    command = commands.add_parser("evaluate", help="measure a network on people whom it has not seen")
    command.set_defaults(run=_evaluate)
    command.add_argument("weights", help=WEIGHTS_HELP)
    command.add_argument("--data", required=True, help=DATA_HELP + LFW_HELP)
    command.add_argument(
        "--folds",
        type=int,
        help="also retrain by the same recipe on this many folds of people (default: 0); of LFW, how many of its ten "
        "folds to run (default: all)",
    )
    command.add_argument("--no-cache", action="store_true", help="of LFW: embed all images anew")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)

    command = commands.add_parser("compare", help="compare two pictures")
    command.set_defaults(run=_compare)
    command.add_argument("a", help="a picture, in any format that Pillow reads")
    command.add_argument("b", help="another; the order does not matter")
    command.add_argument(
        "--face",
        type=int,
        nargs=2,
        default=(0, 0),
        metavar=("I", "J"),
        help="where pictures show several faces: which to compare, from 0",
    )
    command.add_argument(
        "--fmr",
        type=float,
        help='the false-match rate that "same" is to keep to, 0.001 for one in a thousand (default: none; then "same" '
        "takes odds of three to one)",
    )
    command.add_argument(
        "--weights", default=store.DEFAULT, help=WEIGHTS_HELP + " (default: the face network that comes along)"
    )
    command.add_argument("--json", action="store_true", help="print the answer as JSON")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)

    command = commands.add_parser(
        "export",
        help="write a network as an ONNX file, which runs without PyTorch",
        description="Write a network as an ONNX file, having checked it with onnxruntime. Its input `images` is uint8 "
        "(B, C, H, W), 0 to 255, for any B; its output `embeddings` float32 (B, D). The Euclidean distance of two rows "
        "is the dissimilarity. The metadata hold threshold, slope and intercept of the calibration, align (faces: the "
        "images are faces, found and brought upright by other means), input_range and channels (RGB or gray).",
    )
    command.set_defaults(run=_export)
    command.add_argument("weights", help=WEIGHTS_HELP)
    command.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="where to write it")

    command = commands.add_parser(
        "push",
        help="push a result folder to the Hugging Face Hub",
        description="Push a result folder to the Hugging Face Hub, without pairs.png and hardest.png, which show "
        "people, and without their names: in the metrics.json there, people are numbers.",
    )
    command.set_defaults(run=_push)
    command.add_argument("weights", type=Path, help="a result folder")
    command.add_argument("repository", metavar="USER/NAME")
    command.add_argument("--private", action="store_true", help="make a new repository private")
    command.add_argument("--revision", metavar="BRANCH", help="push to this branch, a new one where it is not there")
    command.add_argument("--create-pr", action="store_true", help="open a pull request, for somebody else's repository")

    command = commands.add_parser(
        "deploy",
        help="bring the page with a network to a Hugging Face Space",
        description="Bring the page to a Hugging Face Space, new or there already, and wait until it runs. Of a result "
        "folder goes what `siamese push` would push.",
    )
    command.set_defaults(run=_deploy)
    command.add_argument("space", metavar="USER/SPACE")
    command.add_argument("--weights", help=WEIGHTS_HELP + " (default: what the Space has, or the face network)")
    command.add_argument("--hardware", help="such as zero-a10g or cpu-basic (default: the one it has, or the Hub's)")
    command.add_argument("--private", action="store_true", help="make a new Space private")
    command.add_argument("--dry-run", action="store_true", help="only list the files and the front matter")
    return parser
