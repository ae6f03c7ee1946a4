"""What the tabs share: inputs, cards, and settings of events."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import spaces
from PIL import Image, ImageOps

from siamese import comparison, images, wording
from siamese.faces.detection import Box
from siamese.model import Model
from siamese.names import unique_name
from siamese.page.charts import PairDistances, rate
from siamese.page.photo import Photo, Photos
from siamese.page.uploads import Upload
from siamese.wording import Vocabulary, one_in

PREVIEW_PIXELS = 640  # longest side of a photo in an answer, at least
THUMBNAIL_PIXELS = 96  # longest side of a photo, at least

STRICTNESS = {"Strict": 1e-3, "Very strict": 1e-5}  # false-match rates

THEME = gr.themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"]).set(
    # The theme's own colors have too little contrast.
    block_label_text_color="*primary_800",
    block_title_text_color="*primary_800",
    body_text_color_subdued="*neutral_600",
    checkbox_label_background_fill_selected="*primary_600",
    checkbox_border_color="*neutral_400",
    color_accent="*primary_600",
    link_text_color_dark="*primary_300",
)


def photo_input(label: str) -> Photo:
    """Return an input for one photo."""
    return Photo(
        label=label,
        alt_text=label,
        placeholder="Drop a photo\nor click",
        height=240,
        min_width=120,
        buttons=[],
        sources=["upload", "webcam", "clipboard"],
        elem_classes="photo-input",
    )


def photos_input(label: str) -> Photos:
    """Return an input for several photos. The page draws them itself, so the list of files is hidden, see app.css."""
    return Photos(
        label=label, file_count="multiple", file_types=["image"], height=180, min_width=220, elem_classes="photos-input"
    )


def strictness_radio(model: Model, pairs: PairDistances, words: Vocabulary) -> gr.Radio:
    """Offer false-match rates, each with the share of matches that it misses. The value of the default is 0."""
    if lfw := model.record.lfw:
        default = lfw.default_fmr, lfw.default_fnmr
    else:
        distance = model.calibration.distance_at(model.calibration.needed())
        default = pairs.fmr_at(distance), 1 - pairs.tmr_at(distance)
    settings = [("Everyday", 0.0, *default)]
    for name, fmr in STRICTNESS.items():
        points = [point for point in model.calibration.operating_points if point.fmr == fmr and fmr < default[0]]
        settings += [(name, fmr, fmr, point.fnmr) for point in points]
    choices = [
        (
            f"{name}: wrongly says “same” for {rate(fmr)} pairs of {words.different}, and misses {fnmr:.1%} of the "
            f"pairs of {words.same}",
            value,
        )
        for name, value, fmr, fnmr in settings
    ]
    return gr.Radio(choices, value=0.0, label="How sure must “same” be?", visible=len(choices) > 1)


def strictness_of_groups(model: Model, words: Vocabulary) -> gr.Radio:
    """Offer expected numbers of false matches of a face. The value of the default is 0."""
    rates = STRICTNESS if model.calibration.operating_points else {}
    choices = [("Everyday", 0.0)] + [
        (f"{name}: expect a false match of {one_in(fmr)} {words.item}s, at most", fmr) for name, fmr in rates.items()
    ]
    return gr.Radio(choices, value=0.0, label=f"How sure must “{words.same}” be?", visible=len(choices) > 1)


MAX_PHOTOS = 40
DELETED = "A photo was deleted. Uploads are deleted after half an hour; add the photo again"

# Settings of events. The functions of a `concurrency_id` share its limit.
PRIVATE: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "network", "api_visibility": "private"}
PRIVATE_GROUP = PRIVATE | {"concurrency_limit": 1, "concurrency_id": "group"}
QUIET = PRIVATE | {"show_progress": "hidden"}
ONE_AT_A_TIME = PRIVATE | {"concurrency_limit": 1, "concurrency_id": "archive"}
# For clicks with data: "always_last" would repeat the data of an earlier click.
EACH_IN_ORDER = QUIET | {"trigger_mode": "multiple", "concurrency_limit": 1, "concurrency_id": "pair"}

gpu_for_files: Any = spaces.GPU(duration=lambda files, *_: 5 + len(files or ()) // 4)  # seconds, at most


def named(files: Sequence[Upload]) -> list[tuple[str, Upload]]:
    """Return a name for each upload, see `unique_name`, and the upload."""
    if len(files) > MAX_PHOTOS:
        advice = f"Remove {len(files) - MAX_PHOTOS}, or use `siamese` on your computer, which has no limit"
        raise ValueError(f"{len(files)} photos, but the limit is {MAX_PHOTOS}. {advice}")
    taken: dict[str, int] = {}
    return [(unique_name(file.name, taken), file) for file in files]


def report(progress: gr.Progress) -> Callable[[int, int], object]:
    """Return a function that shows how many of the photos are done."""
    return lambda done, total: progress((done, total), "Detecting faces", unit="photos")


def publish(function: Callable, name: str, inputs: Sequence[gr.Component], settings: dict[str, Any]) -> None:
    """Add a function to the API. Gradio only publishes functions that have components, so these are hidden."""

    @functools.wraps(function)
    def answer(*values: Any) -> dict:
        try:
            return function(*values)
        except (FileNotFoundError, ValueError) as error:  # not logged: it may contain a file name
            raise gr.Error(reason(error), print_exception=False) from error

    gr.Button(visible=False).click(
        answer,
        list(inputs),
        gr.JSON(visible=False, label="Answer"),
        api_name=name,
        api_description=inspect.getdoc(function),  # by default, without Args and Returns
        **settings | {"api_visibility": "public"},
    )


class NoFaceError(ValueError):
    """A photo shows no face. The argument is the `Comparison`."""


def explanation(error: FileNotFoundError | ValueError) -> str:
    """Draw an error in place of an answer."""
    text = f"{reason(error).rstrip('.')}."
    if not isinstance(error, NoFaceError):
        return message(text, "problem")
    (answer,) = error.args
    if not any(answer.found):
        text += f" {wording.NO_FACES_HINT.format('run siamese page weights/images')}"
    return message(text, "no face")


def reason(error: FileNotFoundError | ValueError) -> str:
    """Say what is wrong with the photos of a visitor."""
    return DELETED if isinstance(error, FileNotFoundError) else str(error)


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


def card(state: str, faces: Sequence[tuple[Image.Image | None, str]], verdict: str, *details: str) -> str:
    """Draw an answer: two crops with what they show, the verdict in words, and details as HTML."""
    return f"""
<div class="answer {state}"><div class="pair">{symbol(state).join(img(*face) for face in faces)}</div>
  <p class="verdict">{verdict}</p>{"".join(details)}</div>"""


def problems(sentences: Sequence[str]) -> str:
    """Draw what is wrong with some of the photos; empty if nothing is."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return items and f"<ul>{items}</ul>"


def img(image: Image.Image | None, alt: str, format: str = "WEBP") -> str:
    """Draw an image, such as the crop of a face of a photo in memory."""
    assert image, "only faces of an index have no crop"
    return f'<img src="{images.data_uri(image, format)}" alt="{escape(alt)}">'


def place_box(box: Box | None, image: Image.Image, reduced: int) -> str:
    """Return the CSS position of a box in a photo that was reduced, cut at its edges; empty without a box."""
    if not box:
        return ""
    left, right = (min(max(x / (image.width * reduced), 0), 1) * 100 for x in box[::2])
    top, bottom = (min(max(y / (image.height * reduced), 0), 1) * 100 for y in box[1::2])
    return f"left: {left:.1f}%; top: {top:.1f}%; width: {right - left:.1f}%; height: {bottom - top:.1f}%"


def figure(content: str, name: str) -> str:
    """Draw a figure with the name of a file below it."""
    return f'<figure>{content}<figcaption title="{escape(name)}">{escape(name)}</figcaption></figure>'


def example_buttons(examples: Mapping[str, Sequence[Path]], script: str) -> gr.HTML:
    """Return a button for each caption and its example photos. The script, of app.js, reports which one is clicked."""
    buttons = "".join(
        f"""
  <button type="button" data-example="{number}" data-files="{" ".join(photo.name for photo in photos)}">
    <span>{"".join(map(_example_thumbnail, photos))}</span>{escape(caption)}</button>"""
        for number, (caption, photos) in enumerate(examples.items())
    )
    kind, label = ("examples", "Examples") if len(examples) > 1 else ("sample", "Example")
    drawn = f'<div class="{kind}" role="group" aria-label="{label}">{buttons}</div>'
    return gr.HTML(drawn, js_on_load=f"{script}(element, trigger)")


def _example_thumbnail(photo: Path) -> str:
    with Image.open(photo) as image:
        square = ImageOps.fit(image.convert("RGB"), (128, 128), centering=(0.5, 0.2))
    return img(square, photo.stem.replace("-", ", "))


def thumbnails(files: Sequence[Upload]) -> str:
    """Draw uploads in a row, in place of a list of files. Those that cannot be read are left out."""
    figures = ""
    for file in files:
        with suppress(ValueError, FileNotFoundError):
            photo, _ = images.read_reduced(file, THUMBNAIL_PIXELS)
            photo.thumbnail((2 * THUMBNAIL_PIXELS,) * 2)
            figures += figure(img(photo, file.name), file.name)
    return f'<div class="thumbnails">{figures}</div>'
