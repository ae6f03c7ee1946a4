"""What the modules of the command line share."""

from __future__ import annotations

import argparse
import inspect
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from siamese.names import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from siamese.model import Model, Progress

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
DEFAULT_WEIGHTS = "weights/faces"
WEIGHTS_HELP = (
    "a result folder of `siamese train`, weights/faces, weights/images, weights/att, or USER/NAME[@REVISION] on the Hub"
)
DEVICE_HELP = "auto, cpu, cuda, cuda:1, mps (default: auto)"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n       See `{self.prog} --help`.\n")


def add_command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None]) -> Parser:
    """Add a command, which the docstring of its function describes. The list of commands shows the first line."""
    description = inspect.getdoc(run) or name
    first_line = description.partition("\n")[0].rstrip(".")
    command = commands.add_parser(name, help=first_line[0].lower() + first_line[1:], description=description)
    command.set_defaults(run=run)
    return command


def add_fmr(command: Parser, meaning: str) -> None:
    command.add_argument("--fmr", type=float, metavar="RATE", help=meaning)


def add_network(command: Parser) -> None:
    command.add_argument("--weights", default=DEFAULT_WEIGHTS, help=f"{WEIGHTS_HELP} (default: %(default)s)")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Show a progress bar of photos if stderr is a terminal."""
    from tqdm import tqdm

    with tqdm(unit=" photos", desc="embedding", disable=None) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


def load_model(weights: str, device: str) -> Model:
    from siamese import checkpoint

    model = checkpoint.load(weights, device=device)
    if model.note:
        print(printable(f"note: {model.note}"), file=sys.stderr)
    return model
