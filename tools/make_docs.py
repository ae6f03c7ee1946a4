"""Write the measured numbers into README.md and docs/*.md.

    python tools/make_docs.py

The text between `<!-- results:NAME -->` and `<!-- /results -->` is replaced by what the function NAME in
results_blocks.py returns.
"""

import re
from pathlib import Path

from results_blocks import BLOCKS

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def main() -> None:
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        file.write_text(render(file.read_text("utf-8")), "utf-8")


def render(text: str) -> str:
    """Return a document with every results block rewritten.

    Raises:
        KeyError: if no function has the name of a block.
    """
    return BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", text)


if __name__ == "__main__":
    main()
