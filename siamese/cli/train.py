"""The commands siamese train | evaluate."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from siamese.cli.common import DEVICE_HELP, WEIGHTS_HELP, add_command, load_model
from siamese.training.config import TrainConfig

if TYPE_CHECKING:
    import argparse

    from siamese.cli.common import Commands

DATA_HELP = '"att" (the AT&T faces), or a folder or zip with one folder of images per person'


def add_train(commands: Commands) -> None:
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
    try:
        record = train(config)
    except KeyboardInterrupt:
        if not (args.out / "checkpoints" / "run.json").exists():
            raise
        hint = f"The last complete epoch is saved in {args.out}; continue with --resume."
        raise KeyboardInterrupt(hint) from None
    if not is_main_process():
        return
    print(summarise(record, args.out))
    if args.push_to_hub:
        print(upload(args.out, args.push_to_hub))


def add_evaluate(commands: Commands) -> None:
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


def _people(title: str, names: list[str] | list[int]) -> str:
    return f"{title}: {', '.join(map(str, names[:5]))}" + (f" … {len(names)} in all" if len(names) > 5 else "")
