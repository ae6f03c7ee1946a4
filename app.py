"""The Gradio page. Run `python app.py`, then open http://127.0.0.1:7860."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import spaces

import siamese
from siamese import images
from siamese.checkpoint import DEFAULT
from siamese.faces import mtcnn
from siamese.model import VERDICT_PROBABILITY, Comparison
from siamese.network import bundled_weights
from siamese.page import charts, html, reliability, text, tutorial
from siamese.page.cleanup import limit_memory_growth, start_cleanup
from siamese.page.components import THEME, photo_input, strictness_radio
from siamese.saliency import saliency_maps
from siamese.search.group import Group, group

HERE = Path(__file__).parent
PHOTOS = HERE / "examples"
PORTRAIT, GROUP = str(PHOTOS / "obama-portrait.jpg"), str(PHOTOS / "edited" / "group.jpg")
# Two photos and a caption each.
EXAMPLES = [
    ([str(PHOTOS / first), str(PHOTOS / second)], caption)
    for first, second, caption in (
        ("obama-portrait.jpg", "obama-standing.jpg", "One person"),
        ("collins.jpg", "hopper.jpg", "Two people"),
        ("obama-speaking.jpg", "biden.jpg", "Two people"),
        ("obama-portrait.jpg", "edited/group.jpg", "A person in a group"),
        ("obama-standing.jpg", "edited/obama-blurred.jpg", "A blurred photo"),
    )
]
GROUP_EXAMPLE = [*map(str, sorted(PHOTOS.glob("*.jpg"))), GROUP]
MAX_PHOTOS = 40  # in a group
PREVIEW_PIXELS = 640  # longest side of a photo in the answer, at least
DELETED = "A photo was deleted. Uploads are deleted after half an hour; add the photo again"

# -- Load ------------------------------------------------------------------------------------------------------------
# On a ZeroGPU Space, only functions with `spaces.GPU` have a GPU, and they run in processes of their own. All networks
# are therefore loaded here, and these functions take and return plain values. Elsewhere, `spaces.GPU` has no effect.

try:
    model = siamese.load(os.environ.get("SIAMESE_WEIGHTS") or DEFAULT)
    notice = model.note
except ConnectionError as error:
    model = siamese.load()
    notice = f"{error}. This page uses the network that comes with the project."
except (OSError, ValueError) as error:
    raise SystemExit(f"error: {error}") from error
pairs = charts.PairDistances(model.record.curves)
words = text.FACES if model.align == "faces" else text.IMAGES
tutorial_model = siamese.load(bundled_weights("att")) if model.align == "faces" else None
if model.align == "faces":
    mtcnn.networks(model.network.device)

gpu = spaces.GPU(duration=15)  # seconds, at most
gpu_for_files: Any = spaces.GPU(duration=lambda files, *_: 5 + len(files or ()))

# -- Functions -------------------------------------------------------------------------------------------------------


def compare_photos(first: str | None, second: str | None, numbers: tuple[int, int], fmr: float | None) -> Comparison:
    """Compare two uploads.

    Raises:
        ValueError: what is wrong with them, for the visitor.
    """
    if not first or not second:
        raise ValueError(f"The {'second' if first else 'first'} photo is missing")
    try:
        return model.compare(first, second, face=numbers, fmr=fmr or None)
    except FileNotFoundError as error:
        raise ValueError(DELETED) from error


def answer_or_message(first: str, second: str, numbers: tuple[int, int], fmr: float | None) -> Comparison | str:
    """Compare two uploads. Returns the HTML of a message if there is no answer."""
    try:
        answer = compare_photos(first, second, numbers, fmr)
    except ValueError as error:
        return html.message(f"{error}.", "problem")
    return html.message(" ".join(answer.warnings), "problem") if None in answer.faces else answer


@gpu
def compare(
    first: str | None,
    second: str | None,
    first_face: int | None = 0,
    second_face: int | None = 0,
    false_match_rate: float | None = None,
) -> dict:
    """Compare two photos: do they show the same person?

    Args:
        first: a photo that shows a face.
        second: another photo; the order does not matter.
        first_face: which face of the first photo to compare, an index into `found`; 0 is the main face.
        second_face: which face of the second photo to compare.
        false_match_rate: the share of pairs of different people that may be called "same": 0.01, 0.001, 0.0001 or
            0.00001, if it was measured for this network; empty for the default, a probability of at least 75 %.

    Returns:
        dissimilarity (≥ 0, lower is more alike; null if a photo shows no face), threshold, probability (that both
        photos show the same person, at even prior odds), confidence_interval (95 %, of the probability), verdict (same,
        unsure or different), faces (the compared ones), found (all faces in each photo), warnings, model.
    """
    try:
        return compare_photos(first, second, (first_face or 0, second_face or 0), false_match_rate).to_dict()
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error  # not logged: it may contain a file name


@gpu
def show_answer(first: str, second: str, numbers: tuple[int, int], fmr: float | None) -> tuple[str, str]:
    """Draw the answer and the compared faces."""
    answer = answer_or_message(first, second, numbers, fmr)
    if isinstance(answer, str):
        return answer, ""
    photos = [images.read_reduced(photo, PREVIEW_PIXELS) for photo in (first, second)]
    maps = saliency_maps(model, answer)
    assert maps, "there are two faces"
    return html.answer_card(answer, pairs, fmr or None, words), html.compared(answer, photos, maps, words)


def on_photo(first: str | None, second: str | None, fmr: float) -> tuple[tuple[int, int], str, str]:
    """Compare the main faces of two new photos."""
    if first and second:
        return (0, 0), *show_answer(first, second, (0, 0), fmr)
    missing = "the second photo" if first else "the first photo" if second else "two photos"
    example = ", or click an example" if tutorial_model else ""
    return (0, 0), html.message(f"Add {missing}{example}."), ""


def on_face(first: str, second: str, numbers: tuple[int, int], fmr: float, event: gr.EventData) -> tuple:
    """Compare the face that was clicked."""
    numbers = (event.face, numbers[1]) if event.photo == 0 else (numbers[0], event.face)
    return numbers, *show_answer(first, second, numbers, fmr)


@spaces.GPU(duration=15)
def on_strictness(first: str | None, second: str | None, numbers: tuple[int, int], fmr: float) -> str | dict:
    """Draw the answer again for another false-match rate; the compared faces stay the same."""
    if not (first and second):
        return gr.skip()
    answer = answer_or_message(first, second, numbers, fmr)
    return answer if isinstance(answer, str) else html.answer_card(answer, pairs, fmr or None, words)


@gpu
def on_about(first: str | None, second: str | None, numbers: tuple[int, int]) -> str:
    """Draw the compared faces, or those of an example, among the people of the tutorial network."""
    if not (first and second):
        (first, second), numbers = EXAMPLES[1][0], (0, 0)
    answer = answer_or_message(first, second, numbers, None)
    if isinstance(answer, str):
        return answer
    assert tutorial_model, "the tab shows this only for faces"
    boxes = [face.box for face in answer.faces if face and face.box]
    return tutorial.map_of((first, second), boxes, tutorial_model)


def group_files(files: list[str], progress: Callable[[int], None] = lambda done: None) -> Group:
    """Find all faces of several uploads.

    Raises:
        ValueError: if there are too many.
    """
    if len(files) > MAX_PHOTOS:
        raise ValueError(f"At most {MAX_PHOTOS} photos can be grouped; got {len(files)}")
    return group(model, [(Path(file).name, file) for file in files], progress)


def merge_distance(fmr: float | None) -> float:
    """Return the mean distance up to which two groups of faces are merged."""
    calibration = model.calibration
    return calibration.operating_point(fmr).distance if fmr else calibration.distance_at(VERDICT_PROBABILITY)


@gpu_for_files
def group_photos(files: list[str] | None, false_match_rate: float | None = None) -> dict:
    """Find the faces in up to 40 photos, and group them by person.

    Args:
        files: the photos.
        false_match_rate: how strictly faces are grouped, see `compare`; empty for the default.

    Returns:
        faces (for each face the name and index of its photo, its box, and its person, a number from 0), dissimilarities
        (of each pair of faces), threshold (the mean dissimilarity up to which groups of faces are merged), warnings.
    """
    try:
        if not files:
            raise ValueError("The photos are missing")
        return group_files(files).to_dict(merge_distance(false_match_rate))
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


@gpu_for_files
def on_files(files: list[str] | None, fmr: float, progress: gr.Progress = gr.Progress()) -> tuple:  # noqa: B008
    """Find the faces of new files and draw them by person."""

    def report(done: int) -> None:
        progress((done, len(files or ())), "Detecting faces", unit="photos")

    try:
        found = group_files(files, report) if files else None
    except ValueError as error:
        return None, html.message(f"{error}.", "problem")
    return found, show_group(files, found, fmr)


def show_group(files: list[str] | None, found: Group | None, fmr: float) -> str:
    """Draw the faces by person."""
    if found:
        return html.people(found, merge_distance(fmr), words)
    if files:
        return html.message(f"{DELETED}.", "problem")
    return html.message(f"Add up to {MAX_PHOTOS} photos to group the {words.item}s by {words.one}.")


# -- Layout ----------------------------------------------------------------------------------------------------------


TITLE = f"Do two {'photos' if words is text.FACES else 'images'} show {words.same}?"
PRIVATE: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "network", "api_visibility": "private"}
PRIVATE_GROUP = PRIVATE | {"concurrency_limit": 1, "concurrency_id": "group"}
QUIET = PRIVATE | {"show_progress": "hidden"}

with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 1800)) as demo:
    gr.Markdown(f"# {TITLE}\n{text.introduction(model, words, notice)}")

    with gr.Tab("Compare"):
        with gr.Row():
            first, second = photo_input("First photo"), photo_input("Second photo")
        answer = gr.HTML(on_photo(None, None, 0)[1], js_on_load="announceAnswers(element)")
        fmr = strictness_radio(model, pairs)
        compared = gr.HTML(js_on_load="chooseFaces(element, trigger, watch)")
        numbers = gr.State((0, 0))
        if tutorial_model:
            gr.Examples([photos for photos, _ in EXAMPLES], [first, second], label="Examples", elem_id="examples")
        gr.on(
            [first.change, second.change],
            on_photo,
            [first, second, fmr],
            [numbers, answer, compared],
            trigger_mode="always_last",
            **QUIET,
        )
        fmr.change(on_strictness, [first, second, numbers, fmr], answer, **QUIET)
        compared.select(on_face, [first, second, numbers, fmr], [numbers, answer, compared], **QUIET)

    with gr.Tab("Group"):
        files = gr.File(label=f"Up to {MAX_PHOTOS} photos", file_count="multiple", file_types=["image"], height=180)
        group_fmr = strictness_radio(model, pairs)
        found = gr.State(time_to_live=1800)
        people = gr.HTML(show_group(None, None, 0), js_on_load="announceAnswers(element)")
        files.change(on_files, [files, group_fmr], [found, people], trigger_mode="always_last", **PRIVATE_GROUP)
        group_fmr.change(show_group, [files, found, group_fmr], people, **QUIET)

    with gr.Tab("About this model") as about:
        gr.Markdown(text.performance(model, words))
        gr.HTML(charts.charts(pairs, reliability.estimates(model.record), words))
        gr.Markdown(text.background(model, words))
        if tutorial_model:
            gr.Markdown(tutorial.explanation(tutorial_model))
            plane = gr.HTML()
            about.select(on_about, [first, second, numbers], plane, **PRIVATE)

    # The API: hidden components, because Gradio only publishes functions that have components.
    face_numbers = [
        gr.Number(0, precision=0, visible=False, label=f"Face of the {order} photo, counted from 0")
        for order in ("first", "second")
    ]
    rate = gr.Number(None, visible=False, label="False-match rate; empty for the default")
    for function, name, inputs, settings in (
        (compare, "compare", [first, second, *face_numbers, rate], PRIVATE),
        (group_photos, "group", [files, rate], PRIVATE_GROUP),
    ):
        gr.Button(visible=False).click(
            function,
            inputs,
            gr.JSON(visible=False, label="Answer"),
            api_name=name,
            api_description=inspect.getdoc(function),  # by default, without Args and Returns
            **settings | {"api_visibility": "public"},
        )


def launch(**settings: Any) -> None:
    """Serve the page until it is stopped."""
    limit_memory_growth()
    start_cleanup(demo)
    demo.queue(max_size=64).launch(
        theme=THEME,
        css_paths=HERE / "app.css",
        head=f"<script>{(HERE / 'app.js').read_text('utf-8')}</script>",
        footer_links=["api"],
        max_file_size="10mb",
        run_history=False,
        state_session_capacity=256,
        enable_monitoring=False,
        ssr_mode=False,
        **settings,
    )


if __name__ == "__main__":
    launch()
