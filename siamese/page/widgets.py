"""What the tabs share: inputs, cards, and settings of events."""

import functools
import hashlib
import inspect
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import spaces
from markdown_it import MarkdownIt
from PIL import Image, ImageOps

from siamese import comparison, images, wording
from siamese.faces import Face
from siamese.faces.detection import Box
from siamese.model import Model
from siamese.names import unique_name
from siamese.page.charts import PairDistances, rate
from siamese.page.limits import COMPARISONS, LastInQueue
from siamese.page.photo import Photo, Photos
from siamese.page.uploads import Upload
from siamese.search.embedding import PhotoCollection
from siamese.wording import Vocabulary, one_in

PREVIEW_PIXELS = 640  # longest side of a photo in an answer, at least
THUMBNAIL_PIXELS = 96  # longest side of a photo, at least

STRICTNESS = {"strict": 1e-3, "very strict": 1e-5}  # false-match rates

THEME = gr.themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"]).set(
    # The theme's own colors have too little contrast.
    block_label_text_color="*primary_800",
    block_title_background_fill="none",
    block_title_text_color="*primary_800",
    body_text_color_subdued="*neutral_600",
    checkbox_label_background_fill_selected="*primary_600",
    checkbox_border_color="*neutral_400",
    color_accent="*primary_600",
    link_text_color_dark="*primary_300",
)


def markdown(text: str) -> str:
    """Return Markdown as HTML, with links that open in a new tab. `gr.Markdown` would load 33 kB of scripts."""
    return MarkdownIt(options_update={"html": False}).enable("table").render(text).replace("<a ", '<a target="_blank" ')


def heading(title: str, sentence: str) -> gr.HTML:
    """Return the heading of a tab, and what it does."""
    return gr.HTML(f"<h2>{title}</h2><p>{sentence}</p>")


def photo_input(label: str, words: Vocabulary) -> Photo:
    """Return an input for one photo."""
    return Photo(
        label=label,
        alt_text=label,
        placeholder=f"Add {words.a_photo}",
        height=200,
        min_width=120,
        buttons=[],
        sources=["upload", "webcam", "clipboard"],
        elem_classes="photo-input",
    )


def photos_input(label: str) -> Photos:
    """Return an input for several photos. `thumbnails` draws them, so the list of files is hidden, see app.css."""
    return Photos(
        label=label, file_count="multiple", file_types=["image"], height=200, min_width=220, elem_classes="photos-input"
    )


WAITING = '<div class="answer comparing"></div>'  # Gradio draws the progress in it
NOTE = '<p id="note" role="status" hidden></p>'  # for `notify` of app.js


def strictness_radio(model: Model, pairs: PairDistances, words: Vocabulary) -> gr.Radio:
    """Offer false-match rates, each with the share of matches that it misses. The value of the default is 0."""
    if lfw := model.record.lfw:
        default = lfw.default_fmr, lfw.default_fnmr
    else:
        distance = model.calibration.distance_at(model.calibration.needed())
        default = pairs.fmr_at(distance), 1 - pairs.tmr_at(distance)
    settings = [("everyday", 0.0, *default)]
    for name, fmr in STRICTNESS.items():
        points = [point for point in model.calibration.operating_points if point.fmr == fmr and fmr < default[0]]
        settings += [(name, fmr, fmr, point.fnmr) for point in points]
    choices = [
        (f"{name.capitalize()} · {rate(fmr)} false “same” · misses {fnmr:.1%}", value)
        for name, value, fmr, fnmr in settings
    ]
    return _strictness(
        choices, f"How often {words.different} are called “same”, and {words.same} is missed", "strictness"
    )


def strictness_of_groups(model: Model, words: Vocabulary) -> gr.Radio:
    """Offer expected numbers of false matches of a face. The value of the default is 0."""
    rates = STRICTNESS if model.calibration.operating_points else {}
    choices = [("Everyday", 0.0)] + [
        (f"{name.capitalize()} · at most {one_in(fmr)} {words.item}s has a false match", fmr)
        for name, fmr in rates.items()
    ]
    return _strictness(choices, f"To be in one group of {words.same}")


def _strictness(choices: list[tuple[str, float]], label: str, elem_id: str = "") -> gr.Radio:
    with gr.Accordion("Strictness", open=False, elem_id=elem_id, elem_classes="strictness", visible=len(choices) > 1):
        return gr.Radio(choices, value=0.0, label=label)


MAX_PHOTOS = 40
MAX_READING_SECONDS = 120  # in which these are read; then the others are left out
DELETED = "A photo was deleted. Uploads are deleted after half an hour; add the photo again"

# Settings of events. The functions of a `concurrency_id` share its limit.
PRIVATE: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": COMPARISONS, "api_visibility": "private"}
PRIVATE_GROUP = PRIVATE | {"concurrency_limit": 1, "concurrency_id": "group"}
QUIET = PRIVATE | {"show_progress": "hidden"}
ONE_AT_A_TIME = PRIVATE | {"concurrency_limit": 1, "concurrency_id": "archive"}

gpu_for_files: Any = spaces.GPU(duration=lambda files, *_: 5 + len(files or ()) // 4)  # seconds, at most


def named(files: Sequence[Upload], words: Vocabulary, command: str) -> list[tuple[str, Upload]]:
    """Return a name for each upload, see `unique_name`, and the upload.

    A `command` of the shell, such as "find", has no limit.
    """
    if len(files) > MAX_PHOTOS:
        advice = f"Remove {len(files) - MAX_PHOTOS}, or run siamese {command} on your computer, which has no limit"
        raise ValueError(f"{len(files)} {words.photo}s, but the limit is {MAX_PHOTOS}. {advice}")
    taken: dict[str, int] = {}
    return [(unique_name(file.name, taken), file) for file in files]


def read_photos(
    model: Model, photos: Sequence[tuple[str, Upload]], progress: gr.Progress | None, max_faces: int | None = None
) -> PhotoCollection:
    """Read photos from `named`, each when no comparison waits, and show how many are done."""
    words, waiting = model.words, [(name, LastInQueue(photo)) for name, photo in photos]
    doing = "Reading" if words.item == words.photo else f"Finding {words.item}s:"

    def report(done: int, total: int) -> None:
        if progress:
            progress(done / total, f"{doing} {done} of {total} {words.photo}s")

    return PhotoCollection(model, waiting, max_faces, report, MAX_READING_SECONDS)


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
    "problem": "!",
    "no face": _DRAWING.format('<circle cx="12" cy="12" r="8.5"/><path d="M9 10v.1M15 10v.1M9 15.5h6M3 21 21 3"/>'),
    "comparing": _DRAWING.format('<circle cx="12" cy="12" r="10" opacity=".25"/><path d="M12 2a10 10 0 0 1 10 10"/>'),
}


def symbol(state: str) -> str:
    """Draw the symbol of a verdict, or of "problem", "no face" or "comparing"."""
    return f'<span class="symbol" aria-hidden="true">{SYMBOLS[state]}</span>'


def message(text: str, state: str = "hint") -> str:
    """Draw a sentence in place of an answer; `state` is "hint", "problem", "comparing" or "no face"."""
    drawn = "" if state == "hint" else symbol(state)
    return f'<div class="answer {state.replace(" ", "-")}">{drawn}<p>{escape(text)}</p></div>'


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
    """Return the CSS centre and size of a box in a photo that was reduced, cut at its edges; empty without a box."""
    if not box:
        return ""
    left, right = (min(max(x / (image.width * reduced), 0), 1) * 100 for x in box[::2])
    top, bottom = (min(max(y / (image.height * reduced), 0), 1) * 100 for y in box[1::2])
    x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    return f"left: {x:.1f}%; top: {y:.1f}%; width: {width:.1f}%; height: {height:.1f}%"


def figure(content: str, name: str) -> str:
    """Draw a figure with the name of a file below it."""
    return f'<figure>{content}<figcaption title="{escape(name)}">{escape(name)}</figcaption></figure>'


def faces_to_choose(
    image: Image.Image, reduced: int, faces: Sequence[Face], photo: int, chosen: int | None, name: str
) -> str:
    """Draw a photo in which each face is a button. `photo` is its number for app.js, and `name` its name."""
    buttons = "".join(
        f'<button type="button" class="box" style="{place}" data-photo="{photo}" data-face="{number}" '
        f'aria-pressed="{str(number == chosen).lower()}" '
        f'aria-label="Face {number} of {len(faces)} in {name}"><span>{number}</span></button>'
        for number, face in enumerate(faces, 1)
        if (place := place_box(face.box, image, reduced))
    )
    drawn = img(image, f"{name.capitalize()} with the detected faces", "JPEG")
    return f'<div class="photo">{drawn}{buttons}</div>'


_thumbnails = tempfile.TemporaryDirectory(prefix="siamese-examples-")  # as files, so that browsers keep them


def example_buttons(examples: Sequence[tuple[str, Sequence[Path]]]) -> gr.HTML:
    """Return a button for each caption and its example photos, see `chooseExample` of app.js."""
    gr.set_static_paths([_thumbnails.name, *(photo for _, photos in examples for photo in photos)])
    buttons = "".join(
        f"""
  <button type="button" data-example="{escape(json.dumps([str(photo) for photo in photos]))}">
    <span>{"".join(map(_example_thumbnail, photos))}</span>{escape(caption)}</button>"""
        for caption, photos in examples
    )
    kind, label = ("examples", "Examples") if len(examples) > 1 else ("sample", "Example")
    drawn = f'<div class="{kind}" role="group" aria-label="{label}">{buttons}</div>'
    return gr.HTML(drawn, js_on_load="chooseExample(element, trigger)")


def _example_thumbnail(photo: Path) -> str:
    file = Path(_thumbnails.name, f"{hashlib.sha256(str(photo).encode()).hexdigest()[:12]}.webp")
    with Image.open(photo) as image:
        ImageOps.fit(image.convert("RGB"), (112, 112), centering=(0.5, 0.2)).save(file, quality=40, method=6)
    return f'<img src="gradio_api/file={file}" width="56" height="56" alt="{escape(photo.stem.replace("-", ", "))}">'


def thumbnails(files: Sequence[Upload]) -> str:
    """Draw uploads, each with a button to remove it. One that cannot be read has only a name."""
    figures = ""
    for file in files[: 2 * MAX_PHOTOS]:
        drawn = ""
        with suppress(ValueError, FileNotFoundError):
            photo, _ = images.read_reduced(file, THUMBNAIL_PIXELS)
            photo.thumbnail((2 * THUMBNAIL_PIXELS,) * 2)
            drawn = img(photo, file.name)
        remove = f'<button type="button" data-remove="{file.key}" aria-label="Remove {escape(file.name)}">×</button>'
        figures += figure(drawn + remove, file.name)
    return (
        f'<div class="thumbnails" tabindex="0" role="group" aria-label="Added files">{figures}</div>' if figures else ""
    )
