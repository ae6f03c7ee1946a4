"""The Gradio page. Run `python app.py`, then open http://127.0.0.1:7860."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from siamese.page.uploads import PERIOD, ReadPhoto, Upload, read_together, use_own_uploads_folder

uploads_folder = use_own_uploads_folder()  # first: Gradio reads some of its settings when it is imported

import gradio as gr
import spaces
import torch
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

import siamese
from siamese.checkpoint import DEFAULT
from siamese.comparison import decide
from siamese.faces import retinaface
from siamese.faces.detection import MAX_PHOTO_SIDE
from siamese.page import about, charts, mcp, widgets
from siamese.page import compare as drawing
from siamese.page.compare import ALL_FACES, Kept, Numbers, for_choice
from siamese.page.find import FindTab
from siamese.page.group import GroupTab
from siamese.page.limits import MAX_PHOTO_BYTES, MAX_WAITING, RequestLimits
from siamese.page.server import Page, bypass_proxy, limit_memory_growth, set_page_head, start_cleanup
from siamese.saliency import saliency_maps
from siamese.wording import FACES, NO_FACE

HERE = Path(__file__).parent
PHOTOS = HERE / "examples"
PORTRAIT, STANDING, GROUP = (PHOTOS / name for name in ("obama-portrait.jpg", "obama-standing.jpg", "edited/group.jpg"))
FACE_PAIRS = [
    ("One person", (PORTRAIT, STANDING)),
    ("Two women", (PHOTOS / "collins.jpg", PHOTOS / "hopper.jpg")),
    ("Two men", (PHOTOS / "obama-speaking.jpg", PHOTOS / "biden.jpg")),
    ("One of a group", (PORTRAIT, GROUP)),
    ("A blurred photo", (STANDING, PHOTOS / "edited/obama-blurred.jpg")),
]
FIND_EXAMPLE = [("Find one person in a group photo", (PORTRAIT, GROUP))]
GROUP_EXAMPLE = [("Seven photos of four people", (*sorted(PHOTOS.glob("*.jpg")), GROUP))]

# -- Load ------------------------------------------------------------------------------------------------------------
# On a ZeroGPU Space, only functions with `spaces.GPU` have a GPU, and they run in processes of their own. All networks
# are therefore loaded here, and these functions take and return plain values. Elsewhere, `spaces.GPU` has no effect.

try:
    model = siamese.load(os.environ.get("SIAMESE_WEIGHTS") or DEFAULT)
    notice = model.note
except ConnectionError as error:
    model = siamese.load()
    notice = f"{error}. This page uses the network that comes with the project."
except (ImportError, OSError, ValueError) as error:
    raise SystemExit(f"error: {error}") from error
pairs = charts.PairDistances(model.record.curves)
words = model.words
if words is FACES:
    retinaface.load_network(model.network.device, torch.float32)

examples = FACE_PAIRS if words is FACES else about.held_out_pairs(model, words)
gr.set_static_paths([*about.plot_files(model), *filter(None, [about.model_card(model)])])
gpu = spaces.GPU(duration=5)  # seconds, at most; a shorter time gives a better place in the queue

# -- Functions -------------------------------------------------------------------------------------------------------


def read_photos(first: Upload | None, second: Upload | None) -> list[ReadPhoto]:
    """Read two uploads."""
    if not first or not second:
        raise ValueError(f"The {'second' if first else 'first'} {words.photo} is missing")
    return read_together([first, second], MAX_PHOTO_SIDE if words is FACES else None)


@gpu
def compare(
    first: Upload | None,
    second: Upload | None,
    first_face: int | None = None,
    second_face: int | None = None,
    false_match_rate: float | None = None,
) -> dict:
    """Compare two photos: do they show the same person? By default, from a probability of 75 % on, for good photos.

    Args:
        first: a photo that shows a face.
        second: another photo; the order does not matter.
        first_face: which face of the first photo to compare, from 1 in the order of `found`; empty for all faces.
        second_face: which face of the second photo to compare.
        false_match_rate: expected number of false matches, at most, such as 0.001; empty for the default.

    Returns:
        verdict (same, different, unsure or no face), same (true, false or null), probability (that both photos show the
        same person, at even prior odds), confidence_interval (95 %, of the probability), dissimilarity (≥ 0, lower is
        more alike; null if a photo shows no face), threshold (the largest dissimilarity at which this pair is "same",
        or null), score (the calibrated log-odds, which decide), fmr, faces (the most similar pair), numbers (which
        faces these are, from 1), pairs (how many pairs of faces were compared), found (all faces in each photo),
        warnings, model.
    """
    faces = first_face or None, second_face or None
    return model.compare(*read_photos(first, second), face=faces, fmr=false_match_rate).to_dict()


def draw_answer(kept: Kept, choice: str, fmr: float) -> list[str]:
    """Draw the verdict, the distance among those of test pairs, and how to repeat the answer."""
    photos, numbers, answer = kept
    answer = decide(model.calibration, answer, fmr or None)
    drawn = [drawing.answer_card(answer, words), drawing.among_pairs(answer, pairs, words)]
    return [*(for_choice(part, choice) for part in drawn), drawing.repeat(answer, photos, numbers, model.name)]


@gpu
def show_answer(first: Upload, second: Upload, numbers: Numbers, choice: str, fmr: float) -> Iterator[tuple]:
    """Draw the answer, and then the compared faces."""
    photos = read_photos(first, second)
    answer = model.compare(*photos, face=numbers)
    if answer.verdict == "no face":
        raise widgets.NoFaceError(answer)
    kept = Kept((first, second), numbers, drawing.without_other_crops(answer))
    yield *draw_answer(kept, choice, fmr), gr.skip(), kept
    previews = [photo.read_reduced(widgets.PREVIEW_PIXELS) for photo in photos]
    maps = saliency_maps(model, answer)
    answer = decide(model.calibration, answer, fmr or None)
    drawn = drawing.compared_faces(answer, previews, maps, model.template, numbers, words)
    yield gr.skip(), gr.skip(), gr.skip(), for_choice(drawn, choice), gr.skip()


@gpu
def check_photo(first: Upload | None, second: Upload | None) -> str:
    """Say what is wrong with the only photo; empty if nothing is."""
    (found,) = model.detect([photo for photo in (first, second) if photo])
    return "" if found else widgets.message(NO_FACE.format("first photo" if first else "second photo"), "no face")


def on_choice(
    first: Upload | None, second: Upload | None, choice: str, fmr: float, kept: Kept | None
) -> Iterator[tuple]:
    """Answer what a visitor chose: one or two photos, perhaps a face of each, and a strictness."""
    problem = ""
    try:
        numbers, choice = drawing.choice_of(choice)
        if first and second and kept and kept[:2] == ((first, second), numbers):
            yield *draw_answer(kept, choice, fmr), gr.skip(), gr.skip()
            return
        if first and second:
            yield from show_answer(first, second, numbers, choice, fmr)
            return
        problem = check_photo(first, second) if first or second else ""
    except (FileNotFoundError, ValueError) as error:
        problem = widgets.explanation(error)
    yield for_choice(problem, choice) if problem else "", "", "", "", None


def warm_up() -> None:
    """Load what is needed at the first comparison, so that the first visitor need not wait for it."""
    if "SPACES_ZERO_GPU" not in os.environ:  # there, networks only run in requests
        list(show_answer(Upload(str(PORTRAIT)), Upload(str(STANDING)), ALL_FACES, "", 0))
    with suppress(ImportError):
        import_module("matplotlib.pyplot")  # where it is installed, Gradio imports it at the first click


# -- Layout ----------------------------------------------------------------------------------------------------------

QUESTION = f"Do two {words.photo}s show {words.same}?"
SENTENCE = f"Drop, paste or choose {words.a_photo} on each side."
if words is FACES:
    SENTENCE += " If a photo shows several faces, all pairs of faces are compared."

with Page(title=QUESTION, analytics_enabled=False) as demo:
    gr.HTML(widgets.markdown(about.introduction(model, words, notice)) + widgets.NOTE)
    rate = gr.Number(None, visible=False, label="False-match rate; empty for the default")

    with gr.Tab("Compare", elem_id="compare"):
        widgets.heading(QUESTION, SENTENCE)
        with gr.Row(elem_id="photos"):
            order = ("First", "Second")
            first, second = (widgets.photo_input(f"{number} {words.photo}", words) for number in order)
        if examples:
            example = widgets.example_buttons(examples)
            filled = example.select(None, None, [first, second], js="() => example")
            filled.then(None, js="() => ask()")
        gr.HTML(drawing.states(words, bool(examples)), elem_id="states", js_on_load="announceAnswers(element)")
        answer = gr.HTML(elem_id="answer", js_on_load="announceAnswers(element)")
        among = gr.HTML(elem_id="among")
        compared = gr.HTML(elem_id="compared", js_on_load="chooseFaces(element, trigger, watch)")
        fmr = widgets.strictness_radio(model, pairs, words)
        repeat = gr.HTML(elem_id="repeat")
        previews = gr.HTML(elem_id="previews", js_on_load="showPreviews(element, trigger, watch)")
        # What the visitor chose, as app.js describes it; it shows an answer only as long as the choice is the same.
        choice, kept = gr.Textbox(visible=False), gr.State(time_to_live=PERIOD)
        # Not the changes of photos: an example changes both, which would compare twice. "always_last" sends the latest
        # values, so each click is answered or replaced by a later one.
        chosen = [first.input, first.clear, second.input, second.clear, compared.select, fmr.input]
        settings: dict[str, Any] = widgets.QUIET | {"js": "send", "trigger_mode": "always_last"}
        inputs, shown = [first, second, choice, fmr, kept], [answer, among, repeat, compared, kept]
        answered = gr.on(chosen, on_choice, inputs, shown, **settings)
        answered.then(None, js="() => settle()")
        answered.failure(None, js="() => fail()")
        previews.select(drawing.previews_of, [first, second], previews, **widgets.QUIET)

    with gr.Tab("Find", elem_id="find"):
        FindTab(model, words, FIND_EXAMPLE if words is FACES else []).draw(rate)
    with gr.Tab("Group", elem_id="group"):
        GroupTab(model, words, GROUP_EXAMPLE if words is FACES else []).draw(rate)

    with gr.Tab("About"):
        texts = [widgets.markdown(part(model, words)) for part in (about.performance, about.background)]
        gr.HTML(about.plots(model, words).join(texts))

    label = "Face of the {} photo, from 1; empty for all"
    faces = [gr.Number(precision=0, visible=False, label=label.format(order)) for order in ("first", "second")]
    widgets.publish(compare, "compare", [first, second, *faces, rate], widgets.PRIVATE)


def launch(**settings: Any) -> None:
    """Serve the page until it is stopped."""
    bypass_proxy()
    limit_memory_growth()
    start_cleanup(demo)
    threading.Thread(target=warm_up, daemon=True).start()
    gr.mcp.GradioMCPServer = mcp.Server
    set_page_head(QUESTION, about.description(words), "docs/page.png" if words is FACES else "")
    demo.queue(max_size=MAX_WAITING).launch(
        theme=widgets.THEME,
        css_paths=HERE / "app.css",
        head=f"<script>{(HERE / 'app.js').read_text('utf-8')}</script>",
        footer_links=["api"],
        max_file_size=MAX_PHOTO_BYTES,
        run_history=False,
        state_session_capacity=32,  # the groups of one have up to 15 MB
        app_kwargs={"middleware": [Middleware(RequestLimits, uploads_folder), Middleware(GZipMiddleware)]},
        enable_monitoring=False,
        ssr_mode=False,
        num_workers=0,  # they would take uploads without limits
        mcp_server="SPACE_ID" in os.environ or None,  # None: as GRADIO_MCP_SERVER says
        **settings,
    )


if __name__ == "__main__":
    launch()
