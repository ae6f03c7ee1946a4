"""What the tabs of the page share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import spaces

from siamese.page.uploads import Upload

MAX_PHOTOS = 40
DELETED = "A photo was deleted. Uploads are deleted after half an hour; add the photo again"

# Settings of events. The functions of a `concurrency_id` share its limit.
PRIVATE: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "network", "api_visibility": "private"}
PRIVATE_GROUP = PRIVATE | {"concurrency_limit": 1, "concurrency_id": "group"}
QUIET = PRIVATE | {"show_progress": "hidden"}
# For clicks with data: "always_last" would repeat the data of an earlier click.
EACH_IN_ORDER: dict[str, Any] = QUIET | {
    "trigger_mode": "multiple",
    "concurrency_limit": 1,
    "concurrency_id": "pair",
}

CHOOSE = "chooseGroupExample(element, trigger)"  # see app.js

gpu_for_files: Any = spaces.GPU(duration=lambda files, *_: 5 + len(files or ()) // 4)  # seconds, at most


def named(files: Sequence[Upload]) -> list[tuple[str, Upload]]:
    """Return the name of each upload, and the upload.

    Raises:
        ValueError: if there are too many.
    """
    if (more := len(files) - MAX_PHOTOS) > 0:
        raise ValueError(
            f"These are {len(files)} photos, and this page takes {MAX_PHOTOS} at once. Remove {more}, or run the "
            "command `siamese group` on your computer, which has no limit"
        )
    return [(file.name, file) for file in files]


def report(progress: gr.Progress, files: Sequence[Upload]) -> Callable[[int], None]:
    """Return a function that reports how many of the photos are done."""

    def show(done: int) -> None:
        progress((done, len(files)), "Detecting faces", unit="photos")

    return show


def publish(function: Callable, name: str, inputs: Sequence[gr.Component], settings: dict[str, Any]) -> None:
    """Add a function to the API. Gradio only publishes functions that have components, so these are hidden."""
    gr.Button(visible=False).click(
        function,
        list(inputs),
        gr.JSON(visible=False, label="Answer"),
        api_name=name,
        api_description=inspect.getdoc(function),  # by default, without Args and Returns
        **settings | {"api_visibility": "public"},
    )
