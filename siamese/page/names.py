"""Short names of files that keep what tells them apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import PurePath

MAX_LENGTH = 12
MIN_PREFIX = 4  # a shorter common beginning is kept


def short_names(names: Sequence[str]) -> list[str]:
    """Shorten names to about `MAX_LENGTH` characters. Different names stay different.

    An ending such as ".jpg" that all names have is left out. What all names begin with is replaced by "…", up to the
    last separator in it. Then the middle of long names is replaced by "…", so that the end, which often holds a number,
    stays.
    """
    endings = {PurePath(name).suffix for name in names}
    ending = len(endings.pop()) if len(endings) == 1 else 0
    names = [name[: len(name) - ending] for name in names]
    different = set(names)
    cut = _common_prefix(different)
    for length in itertools.count(MAX_LENGTH):
        short = {name: _shorten(f"…{name[cut:]}" if cut else name, length) for name in different}
        if len(set(short.values())) == len(different):
            return [short[name] for name in names]
    raise AssertionError("unreachable: long enough names are not shortened")


def _common_prefix(names: set[str]) -> int:
    """Return how many characters all names begin with, up to a separator; 0 if they are few or there is one name."""
    first, last = min(names, default=""), max(names, default="")
    same = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    cut = 1 + max(first.rfind(separator, 0, same) for separator in "-_. ")
    return cut if cut >= MIN_PREFIX and len(names) > 1 else 0


def _shorten(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    tail = (length - 1) // 2
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"
