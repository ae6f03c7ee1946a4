"""The command line: siamese compare | embed | find | group | index | train | import | evaluate | export | push | …

Modules are imported inside the functions that need them, so that `siamese --help` does not import PyTorch.
"""

import os
import sys

from siamese import __version__
from siamese.cli.common import Parser
from siamese.cli.models import add_compare, add_deploy, add_export, add_page, add_push
from siamese.cli.search import add_embed, add_find, add_group, add_index
from siamese.cli.train import add_evaluate, add_import, add_train
from siamese.files import lacks_memory
from siamese.names import printable

COMMANDS = (
    *(add_compare, add_embed, add_find, add_group, add_index),
    *(add_train, add_import, add_evaluate, add_export, add_push, add_deploy, add_page),
)
# Missing module: what needs it, and the extra that installs it.
EXTRAS = {
    "gradio": ("siamese page needs", "page"),
    "spaces": ("siamese page needs", "page"),
    "onnxruntime": ("ONNX files need", "onnx"),
    "onnxscript": ("siamese export needs", "onnx"),
    "timm": ("networks of timm need", "timm"),
    "tensorboard": ("--tensorboard needs", "tensorboard"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit code: 1 if a compared photo shows no face, 2 after an error message."""
    parser = Parser(prog="siamese", description="Do two photos show the same person? Use and train Siamese networks.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    args = parser.parse_args(argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again at exit
        return 141  # as the shell reports it, for example if the output goes to `head`
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        advice = "there is not enough memory; close other programs, or use fewer images or a smaller --batch-size"
        text = advice if lacks_memory(error) else str(error)
        print("error:", "\n".join(map(printable, text.split("\n"))), file=sys.stderr)
        return 2
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) and error.name not in EXTRAS:  # it is installed
            print(f"error: {error}", file=sys.stderr)
            return 2
        needs, extra = EXTRAS.get(error.name or "", ("training and evaluation need", "train"))
        install = f"pip install 'siamese-faces[{extra}]'"
        print(f"error: {needs} {error.name}, which is not installed: {install}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\nStopped. {interrupt}".rstrip(), file=sys.stderr)
        return 130
    return code or 0
