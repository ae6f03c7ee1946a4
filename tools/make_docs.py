"""Write the measured numbers into README.md, docs/*.md and the model cards.

    python tools/make_docs.py

The text between `<!-- results:NAME -->` and `<!-- /results -->` is replaced by what the function NAME in
results_blocks.py returns. The page and the model card also run where there is no benchmarks/results, so the numbers
that they need are written into weights/faces/metrics.json.
"""

import re
from pathlib import Path

from measurements import FACES, ROOT, faces
from results_blocks import BLOCKS

from siamese.hub.card import model_card

BLOCK = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def main() -> None:
    for file, text in contents().items():
        file.write_text(text, "utf-8")


def contents() -> dict[Path, str]:
    """Return the new text of each file."""
    record = faces()
    documents = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    return {
        FACES / "metrics.json": record.to_json(),
        FACES / "README.md": model_card(record, "weights/faces"),
        **{file: render(file.read_text("utf-8")) for file in documents},
    }


def render(text: str) -> str:
    """Return a document with every results block rewritten.

    Raises:
        KeyError: if no function has the name of a block.
    """
    return BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", text)


if __name__ == "__main__":
    main()
