"""The Gradio page. Run `python app.py`, then open http://127.0.0.1:7860."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from siamese.page.cleanup import limit_memory_growth, start_cleanup, use_own_uploads_folder

uploads_folder = use_own_uploads_folder()  # first: Gradio reads some of its settings when it is imported

import gradio as gr
import spaces
from PIL import Image
from starlette.middleware import Middleware

import siamese
from siamese import images
from siamese.checkpoint import DEFAULT
from siamese.comparison import Comparison
from siamese.face_pairs import at_fmr
from siamese.faces import mtcnn
from siamese.faces.detection import MAX_PHOTO_SIDE
from siamese.files import bundled_weights
from siamese.model import NO_FACE
from siamese.page import charts, faces, html, reliability, text, tutorial
from siamese.page.compare import Example, among_pairs, answer_card, examples, for_photos, states
from siamese.page.components import THEME, photo_input, strictness_radio
from siamese.page.find_tab import FindTab
from siamese.page.group_tab import GroupTab
from siamese.page.requests import MAX_PHOTO_BYTES, Page, RequestLimits
from siamese.page.tab import DELETED, PRIVATE, QUIET, publish
from siamese.page.uploads import ReadPhoto, Upload, read_together
from siamese.saliency import saliency_maps
from siamese.wording import FACES, IMAGES, PHOTOS

HERE = Path(__file__).parent
EXAMPLE_PHOTOS = HERE / "examples"
EXAMPLES = [
    Example(caption, EXAMPLE_PHOTOS / first, EXAMPLE_PHOTOS / second)
    for caption, first, second in (
        ("One person", "obama-portrait.jpg", "obama-standing.jpg"),
        ("Two women", "collins.jpg", "hopper.jpg"),
        ("Two men", "obama-speaking.jpg", "biden.jpg"),
        ("One of a group", "obama-portrait.jpg", "edited/group.jpg"),
        ("Too blurred?", "obama-standing.jpg", "edited/obama-blurred.jpg"),
    )
]
FIND_EXAMPLE = [EXAMPLE_PHOTOS / "obama-portrait.jpg", EXAMPLE_PHOTOS / "edited" / "group.jpg"]
GROUP_EXAMPLE = [*sorted(EXAMPLE_PHOTOS.glob("*.jpg")), EXAMPLE_PHOTOS / "edited" / "group.jpg"]
MAX_SESSIONS = 32  # whose groups are kept; one has up to 15 MB
PREVIEW_PIXELS = 640  # longest side of a photo in the answer, at least

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
words = FACES if model.align == "faces" else IMAGES
tutorial_model = siamese.load(bundled_weights("att")) if model.align == "faces" else None
find_tab = FindTab(model, words, FIND_EXAMPLE if tutorial_model else [])
group_tab = GroupTab(model, words, pairs, GROUP_EXAMPLE if tutorial_model else [])
if model.align == "faces":
    mtcnn.networks(model.network.device)

gpu = spaces.GPU(duration=5)  # seconds, at most; a shorter time gives a better place in the queue

Numbers = tuple[int | None, int | None]  # the chosen face of each photo, from 1; None for all
ALL_FACES: Numbers = (None, None)
NO_CROP = Image.new("RGB", (1, 1))


class Kept(NamedTuple):
    """What a session keeps, so that another strictness needs no GPU.

    Attributes:
        photos: the two uploads.
        numbers: the chosen faces.
        answer: without a false-match rate, and with the crops of the compared faces only.
    """

    photos: tuple[Upload, Upload]
    numbers: Numbers
    answer: Comparison


# -- Functions -------------------------------------------------------------------------------------------------------


def compare_photos(
    first: Upload | None, second: Upload | None, numbers: Numbers, fmr: float | None
) -> tuple[Comparison, list[ReadPhoto]]:
    """Read and compare two uploads.

    Raises:
        ValueError: what is wrong with them, for the visitor.
    """
    if not first or not second:
        raise ValueError(f"The {'second' if first else 'first'} photo is missing")
    try:
        photos = read_together([first, second], MAX_PHOTO_SIDE if words is FACES else None)
    except FileNotFoundError as error:
        raise ValueError(DELETED) from error
    return model.compare(*photos, face=numbers, fmr=fmr or None), photos


def answer_or_message(first: Upload, second: Upload, numbers: Numbers) -> tuple[Comparison, list[ReadPhoto]] | str:
    """Read and compare two uploads. Returns the HTML of a message if there is no answer."""
    try:
        answer, photos = compare_photos(first, second, numbers, None)
    except ValueError as error:
        return html.message(f"{error}.", "problem")
    return html.message(str(answer), "no face") if answer.verdict == "no face" else (answer, photos)


@gpu
def compare(
    first: Upload | None,
    second: Upload | None,
    first_face: int | None = None,
    second_face: int | None = None,
    false_match_rate: float | None = None,
) -> dict:
    """Compare two photos: do they show the same person?

    Args:
        first: a photo that shows a face.
        second: another photo; the order does not matter.
        first_face: which face of the first photo to compare, from 1 in the order of `found`; empty for all faces.
        second_face: which face of the second photo to compare.
        false_match_rate: the share of pairs of different people that may be called "same": 0.01, 0.001, 0.0001 or
            0.00001, if it was measured for this network; empty for the default, a probability of at least 75 %.

    Returns:
        verdict (same, different, unsure or no face), same (true, false or null), probability (that both photos show the
        same person, at even prior odds), confidence_interval (95 %, of the probability), dissimilarity (≥ 0, lower is
        more alike; null if a photo shows no face), threshold (the largest dissimilarity that is "same"), fmr, faces
        (the most similar pair), numbers (which faces these are, from 1), pairs (how many pairs of faces were compared),
        found (all faces in each photo), warnings, model.
    """
    try:
        answer, _ = compare_photos(first, second, (first_face or None, second_face or None), false_match_rate)
        return answer.to_dict()
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error  # not logged: it may contain a file name


def at_strictness(answer: Comparison, fmr: float) -> Comparison:
    """Return an answer for a false-match rate; 0 stands for the default."""
    return at_fmr(model.calibration, answer, fmr) if fmr else answer


def draw_answer(kept: Kept, fmr: float) -> tuple[str, str]:
    """Draw the verdict, and the distance among those of test pairs."""
    photos, numbers, answer = kept
    answer = at_strictness(answer, fmr)
    return (
        for_photos(answer_card(answer, words), photos, numbers, fmr),
        for_photos(among_pairs(answer, pairs, words), photos, numbers, fmr),
    )


@gpu
def show_answer(first: Upload, second: Upload, numbers: Numbers, fmr: float) -> Iterator[tuple]:
    """Draw the answer, and then the compared faces."""
    compared = answer_or_message(first, second, numbers)
    if isinstance(compared, str):
        yield numbers, for_photos(compared, (first, second), numbers, fmr), "", "", None
        return
    answer, photos = compared
    found = (tuple(replace(face, crop=NO_CROP) for face in photo) for photo in answer.found)
    kept = Kept((first, second), numbers, replace(answer, found=tuple(found)))
    yield numbers, *draw_answer(kept, fmr), gr.skip(), kept
    previews = [photo.read_reduced(PREVIEW_PIXELS) for photo in photos]
    maps = saliency_maps(model, answer)
    assert maps, "there are two faces"
    drawn = faces.compared(at_strictness(answer, fmr), previews, maps, model.template, numbers, words)
    yield gr.skip(), gr.skip(), gr.skip(), for_photos(drawn, (first, second), numbers), gr.skip()


@gpu
def check_photo(first: Upload | None, second: Upload | None) -> str:
    """Say what is wrong with the only photo; empty if nothing is."""
    try:
        (found,) = model.detect([photo for photo in (first, second) if photo])
    except FileNotFoundError:
        return html.message(f"{DELETED}.", "problem")
    except ValueError as error:
        return html.message(f"{error}.", "problem")
    return "" if found else html.message(NO_FACE.format(PHOTOS[0] if first else PHOTOS[1]), "no face")


def on_photo(first: Upload | None, second: Upload | None, fmr: float) -> Iterator[tuple]:
    """Compare two new photos, or check the first one that arrives."""
    if first and second:
        yield from show_answer(first, second, ALL_FACES, fmr)
    else:
        problem = check_photo(first, second) if first or second else ""
        yield ALL_FACES, for_photos(problem, (first, second)) if problem else "", "", "", None


def on_face(first: Upload, second: Upload, numbers: Numbers, fmr: float, event: gr.EventData) -> Iterator[tuple]:
    """Compare the face that was clicked, or all faces."""
    numbers = (
        ALL_FACES if event.face is None else (event.face, numbers[1]) if event.photo == 0 else (numbers[0], event.face)
    )
    yield from show_answer(first, second, numbers, fmr)


def on_strictness(
    first: Upload | None, second: Upload | None, numbers: Numbers, kept: Kept | None, fmr: float
) -> Iterator[tuple]:
    """Draw the answer again for another false-match rate; without a kept answer, compare the photos again."""
    if kept and kept[:2] == ((first, second), numbers):
        yield gr.skip(), *draw_answer(kept, fmr), gr.skip(), gr.skip()
    elif first and second:
        yield from show_answer(first, second, numbers, fmr)


def on_example(event: gr.EventData) -> tuple[str, str]:
    """Add the photos of an example."""
    example = EXAMPLES[event.example]
    return str(example.first), str(example.second)


def on_undrawn(first: Upload | None, second: Upload | None) -> str:
    """Draw photos that the browser cannot draw, for example TIFF. Those that cannot be read are left out."""
    previews = []
    for photo in filter(None, (first, second)):
        with contextlib.suppress(OSError, ValueError):
            preview = images.data_uri(images.read_reduced(photo, PREVIEW_PIXELS)[0], "JPEG")
            previews.append(for_photos(f'<img src="{preview}" alt="">', [photo]))
    return "".join(previews)


@gpu
def on_about(first: Upload | None, second: Upload | None, numbers: Numbers) -> str:
    """Draw the compared faces, or those of an example, among the people of the tutorial network."""
    if not (first and second):
        (first, second), numbers = map(Upload, map(str, EXAMPLES[2][1:])), ALL_FACES
    compared = answer_or_message(first, second, numbers)
    if isinstance(compared, str):
        return compared
    answer, photos = compared
    assert tutorial_model, "the tab shows this only for faces"
    boxes = [face.box for face in answer.faces if face and face.box]
    return tutorial.map_of(photos, boxes, tutorial_model)


# -- Layout ----------------------------------------------------------------------------------------------------------


TITLE = f"Do two {'photos' if words is FACES else 'images'} show {words.same}?"

with Page(title=TITLE, analytics_enabled=False) as demo:
    gr.Markdown(f"# {TITLE}\n{text.introduction(model, words, notice)}")
    rate = gr.Number(None, visible=False, label="False-match rate; empty for the default")

    with gr.Tab("Compare", elem_id="compare"):
        with gr.Row(elem_id="photos"):
            first, second = photo_input("First photo"), photo_input("Second photo")
        if tutorial_model:
            example = gr.HTML(examples(EXAMPLES), js_on_load="chooseExample(element, trigger)")
            added = example.select(on_example, None, [first, second], queue=False, **QUIET)
        gr.HTML(states(words, bool(tutorial_model)), elem_id="states", js_on_load="announceAnswers(element)")
        answer = gr.HTML(elem_id="answer", js_on_load="announceAnswers(element)")
        compared = gr.HTML(elem_id="compared", js_on_load="chooseFaces(element, trigger, watch)")
        among = gr.HTML(elem_id="among")
        with gr.Accordion("Stricter?", open=False, elem_id="strictness"):
            fmr = strictness_radio(model, pairs, words)
        previews = gr.HTML(elem_id="previews", js_on_load="showPreviews(element, trigger, watch)")
        numbers, kept = gr.State(ALL_FACES), gr.State(time_to_live=1800)
        shown = [numbers, answer, among, compared, kept]
        last: dict[str, Any] = QUIET | {"trigger_mode": "always_last"}
        # Not their changes: an example changes both, which would compare twice.
        given = [first.input, first.clear, second.input, second.clear]
        events = [gr.on(given, on_photo, [first, second, fmr], shown, **last)]
        if tutorial_model:
            events.append(added.then(on_photo, [first, second, fmr], shown, **last))
        stricter = fmr.change(on_strictness, [first, second, numbers, kept, fmr], shown, **QUIET)
        chosen = compared.select(on_face, [first, second, numbers, fmr], shown, **QUIET)
        for event in (*events, stricter, chosen):
            event.failure(None, js="showFailure")
        previews.select(on_undrawn, [first, second], previews, **QUIET)

    with gr.Tab("Find", elem_id="find"):
        find_tab.draw()
    with gr.Tab("Group", elem_id="group"):
        group_tab.draw(rate)

    with gr.Tab("About") as about:
        gr.Markdown(text.performance(model, words))
        gr.HTML(charts.charts(pairs, reliability.estimates(model.record), words))
        gr.Markdown(text.background(model, words))
        if tutorial_model:
            gr.Markdown(tutorial.explanation(tutorial_model))
            plane = gr.HTML()
            about.select(on_about, [first, second, numbers], plane, **PRIVATE)

    face_numbers = [
        gr.Number(None, precision=0, visible=False, label=f"Face of the {order} photo, from 1; empty for all")
        for order in ("first", "second")
    ]
    publish(compare, "compare", [first, second, *face_numbers, rate], PRIVATE)


def launch(**settings: Any) -> None:
    """Serve the page until it is stopped."""
    limit_memory_growth()
    start_cleanup(demo, (HERE / "examples").glob("*.jpg"))
    demo.queue(max_size=64).launch(
        theme=THEME,
        css_paths=HERE / "app.css",
        head=f"<script>{(HERE / 'app.js').read_text('utf-8')}</script>",
        footer_links=["api"],
        max_file_size=MAX_PHOTO_BYTES,
        run_history=False,
        state_session_capacity=MAX_SESSIONS,
        app_kwargs={"middleware": [Middleware(RequestLimits, uploads_folder)]},
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server="SPACE_ID" in os.environ or None,  # None: as GRADIO_MCP_SERVER says
        **settings,
    )


if __name__ == "__main__":
    launch()
