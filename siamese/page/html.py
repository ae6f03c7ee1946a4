"""Cards of the page."""

from __future__ import annotations

from html import escape

from siamese import comparison

# Each state of the page has its own symbol.
_DRAWING = '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round">{}</svg>'
SYMBOLS = comparison.SYMBOLS | {
    "hint": "+",
    "problem": "!",
    "no face": _DRAWING.format('<circle cx="12" cy="12" r="8.5"/><path d="M9 10v.1M15 10v.1M9 15.5h6M3 21 21 3"/>'),
    "comparing": _DRAWING.format('<circle cx="12" cy="12" r="10" opacity=".25"/><path d="M12 2a10 10 0 0 1 10 10"/>'),
}


def symbol(state: str) -> str:
    """Draw the symbol of a verdict, or of "hint", "problem" or "comparing"."""
    return f'<span class="symbol" aria-hidden="true">{SYMBOLS[state]}</span>'


def message(text: str, state: str = "hint") -> str:
    """Draw a sentence in place of an answer; `state` is "hint", "problem", "comparing" or "no face"."""
    return f'<div class="answer {state.replace(" ", "-")}">{symbol(state)}<p>{escape(text)}</p></div>'
