"""Cards of the page."""

from __future__ import annotations

from html import escape

# Each state of the page has its own symbol; a face that is crossed out has its own drawing.
ICONS = {"same": "=", "different": "≠", "unsure": "?", "hint": "+", "problem": "!", "comparing": ""}
NO_FACE_ICON = """<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round">
<circle cx="12" cy="12" r="8.5"/><path d="M9 10v.1M15 10v.1M9 15.5h6M3 21 21 3"/></svg>"""


def icon(state: str) -> str:
    """Draw the symbol of a verdict, or of "hint", "problem" or "comparing"."""
    return f'<span class="symbol" aria-hidden="true">{ICONS.get(state, NO_FACE_ICON)}</span>'


def message(text: str, state: str = "hint") -> str:
    """Draw a sentence in place of an answer; `state` is "hint", "problem", "comparing" or "no face"."""
    return f'<div class="answer {state.replace(" ", "-")}">{icon(state)}<p>{escape(text)}</p></div>'
