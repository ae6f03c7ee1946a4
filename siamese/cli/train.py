"""The commands siamese train | import | evaluate."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from siamese.cli.common import DEVICE_HELP, WEIGHTS_HELP, Commands, add_command, load_model
from siamese.data.folders import limit_list, title
from siamese.files import check_new_file, write_new
from siamese.names import markdown_text
from siamese.training.config import TrainConfig

SHOWN_PEOPLE = 5
DATA_HELP = '"att" (the AT&T faces), or a folder or zip with one folder of images per person or thing'


def add_train(commands: Commands) -> None:
    command = add_command(commands, "train", _train)
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
    """Train, test and calibrate a network on a folder of people or things."""
    from siamese.hub.upload import check_upload
    from siamese.summary import summarise
    from siamese.training.run import train

    args.out = args.out or Path("runs", title(args.data))
    if args.push_to_hub:
        check_upload(args.push_to_hub)
    try:
        result = train(**{setting.name: getattr(args, setting.name) for setting in fields(TrainConfig)})
    except KeyboardInterrupt:
        if not (args.out / "checkpoints" / "run.json").exists():
            raise
        hint = f"The last complete epoch is saved in {args.out}; continue with --resume."
        raise KeyboardInterrupt(hint) from None
    if not result.model:  # not the main process
        return
    print(summarise(result.record, result.model.calibration, args.out))
    if args.push_to_hub:
        print(result.push_to_hub(args.push_to_hub))


def add_import(commands: Commands) -> None:
    command = add_command(commands, "import", _import)
    command.add_argument("file", metavar="MODEL.onnx", help="maps a batch of face crops to one embedding each")
    command.add_argument("--data", required=True, help='"lfw" (in SIAMESE_DATA), or a folder with LFW')
    command.add_argument("--out", required=True, help="result folder, which must not exist or be empty")
    command.add_argument("--license", default="", help='of the file, such as "apache-2.0"; needed to push and deploy')
    command.add_argument("--source", default="", help="where the file is from; needed to push and deploy")
    command.add_argument("--training-data", default="", metavar="TEXT", help="what the network was trained on")
    command.add_argument("--size", type=int, help="height and width of the input, if the file does not fix them")
    command.add_argument("--channels", choices=("RGB", "BGR"), help="their order (default: proposed)")
    for name, text in (("mean", "subtracted from the pixels in 0 to 255"), ("std", "then they are divided by it")):
        command.add_argument(
            f"--{name}", type=float, nargs="+", help=f"{text}; one number or three (default: proposed)"
        )
    template_help = "JSON file or list of the five landmarks in the crop (default: the usual ones)"
    command.add_argument("--template", help=template_help)
    command.add_argument("--output", metavar="NAME", help="the output with the embeddings, if there are several")
    flag = argparse.BooleanOptionalAction
    command.add_argument("--unit", action=flag, help="scale embeddings to length 1 (default: proposed)")
    command.add_argument("--mirror", action=flag, default=True, help="average over the mirror image (default: yes)")


def _import(args: argparse.Namespace) -> None:
    """Import a face network from an ONNX file, and calibrate it on LFW.

    What is not given is proposed: the choice that sets genuine pairs of LFW's View 1 apart from impostor pairs best.
    The network is calibrated on View 1 and tested on View 2.
    """
    from siamese.evaluation.import_onnx import import_onnx

    options = {name: value for name, value in vars(args).items() if name != "run"}
    model = import_onnx(**options)
    protocol = model.record.lfw
    assert protocol, "it was measured"
    print(f"LFW: accuracy {protocol.accuracy:.2%} ± {protocol.accuracy_std:.2%}")
    for point in model.calibration.operating_points:
        print(f"  FMR {point.fmr:g}: FNMR {point.fnmr:.2%}")
    print(f"Written to {args.out}. Compare with `siamese compare A.jpg B.jpg --weights {args.out}`.")


def add_evaluate(commands: Commands) -> None:
    command = add_command(commands, "evaluate", _evaluate)
    command.add_argument("weights", help=WEIGHTS_HELP)
    command.add_argument("--data", required=True, help=f'{DATA_HELP}; or "lfw" (in SIAMESE_DATA), or a folder with LFW')
    command.add_argument("--folds", type=int, help="LFW only: how many of the ten folds to run (default: all)")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)


def _evaluate(args: argparse.Namespace) -> None:
    """Measure a network on people or things that it was not trained on."""
    from siamese.data.lfw import find_lfw
    from siamese.evaluation.folder import evaluate_folder
    from siamese.evaluation.lfw import evaluate_lfw
    from siamese.hub.card import metrics_table

    check_new_file(args.json)
    model = load_model(args.weights, args.device)
    if lfw := find_lfw(args.data):
        result = evaluate_lfw(model, lfw, args.folds)
        protocol = result.protocol
        print(f"LFW: accuracy {protocol.accuracy:.2%} ± {protocol.accuracy_std:.2%}")
        print(f"No face was found in {protocol.without_face} of {protocol.images:,} images.\n")
        print(metrics_table("LFW", result.test, result.folds))
    else:
        if args.folds is not None:
            raise ValueError("--folds is for LFW; to cross-validate, use `siamese train --folds`")
        result = evaluate_folder(model, args.data)
        people = markdown_text(", ".join(limit_list(result.names, SHOWN_PEOPLE)))
        print(metrics_table(f"not trained on: {people}", result.test))
    if args.json:
        write_new(args.json, result.to_json())
