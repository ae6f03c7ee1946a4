"""Markdown for the results blocks, see make_docs.py."""

import math
import textwrap
from collections.abc import Iterable


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def paragraph(text: str, indent: str = "") -> str:
    """Wrap a text at 120 characters, and indent all lines but the first."""
    text = " ".join(text.split())
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def bullets(*items: str) -> str:
    return "\n".join(paragraph(f"- {item}", indent="  ") for item in items)


def one_in(rate: float) -> str:
    """Return a rate as "1 in 210", to two digits."""
    step = 10 ** max(0, math.floor(math.log10(1 / rate)) - 1)
    return f"1 in {round(1 / rate / step) * step:,}"
