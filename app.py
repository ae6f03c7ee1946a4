"""The Gradio page. Run `python app.py`, then open http://127.0.0.1:7860."""

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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
from siamese.model import NO_FACE
from siamese.network import bundled_weights
from siamese.page import charts, faces, html, people, reliability, text, tutorial
from siamese.page import find as finding
from siamese.page.cleanup import limit_memory_growth, start_cleanup, use_own_uploads_folder
from siamese.page.compare import Example, among_pairs, answer_card, examples, for_photos, states
from siamese.page.components import THEME, photo_input, photos_input, strictness_radio
from siamese.page.requests import MAX_PHOTO_BYTES, Page, RequestLimits
from siamese.page.uploads import ReadPhoto, Upload, read_together
from siamese.saliency import saliency_maps
from siamese.search.find_in_photos import find_in_photos
from siamese.search.group import Group, group
from siamese.wording import FACES, IMAGES, PHOTOS, VERDICT_PROBABILITY

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
MAX_PHOTOS = 40  # in a group
MAX_SESSIONS = 32  # whose groups are kept; one has up to 15 MB
PREVIEW_PIXELS = 640  # longest side of a photo in the answer, at least
DELETED = "A photo was deleted. Uploads are deleted after half an hour; add the photo again"

# -- Load ------------------------------------------------------------------------------------------------------------
# On a ZeroGPU Space, only functions with `spaces.GPU` have a GPU, and they run in processes of their own. All networks
# are therefore loaded here, and these functions take and return plain values. Elsewhere, `spaces.GPU` has no effect.

uploads_folder = use_own_uploads_folder()
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
if model.align == "faces":
    mtcnn.networks(model.network.device)

gpu = spaces.GPU(duration=5)  # seconds, at most; a shorter time gives a better place in the queue
gpu_for_files: Any = spaces.GPU(duration=lambda files, *_: 5 + len(files or ()) // 4)

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


def named(files: list[Upload]) -> list[tuple[str, Upload]]:
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


@gpu_for_files
def find(files: list[Upload] | None, portrait: Upload | None) -> dict:
    """Find the person of a portrait among the faces in up to 40 photos.

    Args:
        files: the photos to search.
        portrait: a photo of the person; its main face is searched for.

    Returns:
        faces (the most likely one first; for each the name and index of its photo, its number in the photo from 1, its
        box, the probability that it is the person of the portrait, and its dissimilarity), warnings.
    """
    try:
        if not portrait or not files:
            raise ValueError(f"The {'photos are' if portrait else 'portrait is'} missing")
        return find_in_photos(model, portrait, named(files)).to_dict()
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


@gpu_for_files
def on_find(
    files: list[Upload] | None,
    portrait: Upload | None,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> Iterator[tuple]:
    """Search the photos for the person of the portrait."""
    drawn = people.thumbnails(files or [])
    if not portrait or not files:
        yield find_hint(portrait, files), drawn
        return
    yield html.message("Searching…", "comparing"), drawn
    try:
        found = find_in_photos(model, portrait, named(files), report(progress, files))
        yield finding.answer(found, words), finding.photos(found, files)
    except FileNotFoundError:
        yield html.message(f"{DELETED}.", "problem"), ""
    except ValueError as error:
        yield html.message(f"{error}.", "problem"), drawn


def on_find_example() -> tuple[str, list[str]]:
    """Add the example photos."""
    portrait, *photos = map(str, FIND_EXAMPLE)
    return portrait, photos


def find_hint(portrait: Upload | None, files: list[Upload] | None) -> str:
    """Say what is missing."""
    missing = "the photos to search" if portrait else "a portrait" if files else "a portrait, and the photos to search"
    return html.message(f"Add {missing}.")


def report(progress: gr.Progress, files: list[Upload]) -> Callable[[int], None]:
    """Return a function that reports how many of the photos are done."""
    return lambda done: progress((done, len(files)), "Detecting faces", unit="photos")


def merge_distance(fmr: float | None) -> float:
    """Return the root mean square distance up to which two groups of faces are merged."""
    calibration = model.calibration
    return calibration.operating_point(fmr).distance if fmr else calibration.distance_at(VERDICT_PROBABILITY)


@gpu_for_files
def group_photos(files: list[Upload] | None, false_match_rate: float | None = None) -> dict:
    """Find the faces in up to 40 photos, and group them by person.

    Args:
        files: the photos.
        false_match_rate: how strictly faces are grouped, see `compare`; empty for the default.

    Returns:
        faces (for each face the name and index of its photo, its box, and its person, a number from 1), dissimilarities
        (of each pair of faces), threshold (the root mean square dissimilarity up to which groups of faces are merged),
        warnings.
    """
    try:
        if not files:
            raise ValueError("The photos are missing")
        return group(model, named(files)).to_dict(merge_distance(false_match_rate))
    except ValueError as error:
        raise gr.Error(str(error), print_exception=False) from error


@gpu_for_files
def on_files(files: list[Upload] | None, fmr: float, progress: gr.Progress = gr.Progress()) -> Iterator[tuple]:  # noqa: B008
    """Draw new files, and then their faces by person."""
    if not files:
        yield "", None, show_group(None, None, fmr), ""
        return
    try:
        photos = named(files)
    except ValueError as error:
        yield "", None, html.message(f"{error}."), ""
        return
    yield people.thumbnails(files), None, html.message("Finding faces…", "comparing"), ""
    found = group(model, photos, report(progress, files))
    yield gr.skip(), found, show_group(files, found, fmr), ""


def show_group(files: list[Upload] | None, found: Group | None, fmr: float) -> str:
    """Draw the faces by person."""
    if files and found:
        return people.people(found, merge_distance(fmr), files, words)
    if files:
        return html.message(f"{DELETED}.", "problem")
    return html.message(f"Add up to {MAX_PHOTOS} photos to group the {words.item}s by {words.one}.")


def on_group_strictness(files: list[Upload] | None, found: Group | None, fmr: float) -> tuple[str, str]:
    """Draw the faces again for another false-match rate."""
    return show_group(files, found, fmr), ""


def on_pair(found: Group | None, fmr: float, event: gr.EventData) -> str:
    """Compare the two faces of the group that are chosen."""
    if not found or len(event.faces) < 2:
        return ""
    return people.pair(found, tuple(event.faces), fmr or None, words)


# -- Layout ----------------------------------------------------------------------------------------------------------


TITLE = f"Do two {'photos' if words is FACES else 'images'} show {words.same}?"
PRIVATE: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "network", "api_visibility": "private"}
PRIVATE_GROUP = PRIVATE | {"concurrency_limit": 1, "concurrency_id": "group"}
QUIET = PRIVATE | {"show_progress": "hidden"}
CHOOSE = "chooseGroupExample(element, trigger)"

with Page(title=TITLE, analytics_enabled=False) as demo:
    gr.Markdown(f"# {TITLE}\n{text.introduction(model, words, notice)}")

    with gr.Tab("Compare", elem_id="compare"):
        with gr.Row(elem_id="photos"):
            first, second = photo_input("First photo"), photo_input("Second photo")
        if tutorial_model:
            example = gr.HTML(examples(EXAMPLES), js_on_load="chooseExample(element, trigger)")
            example.select(on_example, None, [first, second], queue=False, **QUIET)
        gr.HTML(states(words, bool(tutorial_model)), elem_id="states", js_on_load="announceAnswers(element)")
        answer = gr.HTML(elem_id="answer", js_on_load="announceAnswers(element)")
        compared = gr.HTML(elem_id="compared", js_on_load="chooseFaces(element, trigger, watch)")
        among = gr.HTML(elem_id="among")
        with gr.Accordion("Stricter?", open=False, elem_id="strictness"):
            fmr = strictness_radio(model, pairs, words)
        previews = gr.HTML(elem_id="previews", js_on_load="showPreviews(element, trigger, watch)")
        numbers, kept = gr.State(ALL_FACES), gr.State(time_to_live=1800)
        shown = [numbers, answer, among, compared, kept]
        arrived = gr.on(
            [first.change, second.change], on_photo, [first, second, fmr], shown, trigger_mode="always_last", **QUIET
        )
        stricter = fmr.change(on_strictness, [first, second, numbers, kept, fmr], shown, **QUIET)
        chosen = compared.select(on_face, [first, second, numbers, fmr], shown, **QUIET)
        for event in (arrived, stricter, chosen):
            event.failure(None, js="showFailure")
        previews.select(on_undrawn, [first, second], previews, **QUIET)

    with gr.Tab("Find", elem_id="find"):
        with gr.Row():
            portrait, searched = photo_input("Portrait"), photos_input("Photos to search")
        if tutorial_model:
            find_example = gr.HTML(people.example(FIND_EXAMPLE, "One of a group"), js_on_load=CHOOSE)
        best = gr.HTML(find_hint(None, None), js_on_load="announceAnswers(element)")
        boxes = gr.HTML()
        search: Any = PRIVATE_GROUP | {"show_progress_on": best, "trigger_mode": "always_last"}
        # Not their changes: an example changes both, which would search twice.
        given = [portrait.input, portrait.clear, searched.upload, searched.delete, searched.clear]
        gr.on(given, on_find, [searched, portrait], [best, boxes], **search)
        if tutorial_model:
            added = find_example.select(on_find_example, None, [portrait, searched], queue=False, **QUIET)
            added.then(on_find, [searched, portrait], [best, boxes], **search)

    with gr.Tab("Group", elem_id="group"):
        files = photos_input(f"Up to {MAX_PHOTOS} photos")
        thumbnails = gr.HTML()
        if tutorial_model:
            group_example = gr.HTML(people.example(GROUP_EXAMPLE, "Seven photos of four people"), js_on_load=CHOOSE)
            group_example.select(lambda: list(map(str, GROUP_EXAMPLE)), None, files, queue=False, **QUIET)
        found = gr.State(time_to_live=1800)
        grouped = gr.HTML(
            show_group(None, None, 0), js_on_load="announceAnswers(element); onGroup(element, trigger, watch)"
        )
        pair = gr.HTML(elem_id="pair", js_on_load="announceAnswers(element)")
        with gr.Accordion("Stricter?", open=False):
            group_fmr = strictness_radio(model, pairs, words)
        shown = [thumbnails, found, grouped, pair]
        files.change(
            on_files,
            [files, group_fmr],
            shown,
            trigger_mode="always_last",
            show_progress_on=grouped,
            **PRIVATE_GROUP,
        )
        group_fmr.change(on_group_strictness, [files, found, group_fmr], [grouped, pair], **QUIET)
        # Each click counts, in order: "always_last" would repeat the data of an earlier click.
        in_order: Any = QUIET | {"trigger_mode": "multiple", "concurrency_limit": 1, "concurrency_id": "pair"}
        grouped.select(on_pair, [found, group_fmr], pair, **in_order)

    with gr.Tab("About") as about:
        gr.Markdown(text.performance(model, words))
        gr.HTML(charts.charts(pairs, reliability.estimates(model.record), words))
        gr.Markdown(text.background(model, words))
        if tutorial_model:
            gr.Markdown(tutorial.explanation(tutorial_model))
            plane = gr.HTML()
            about.select(on_about, [first, second, numbers], plane, **PRIVATE)

    # The API: hidden components, because Gradio only publishes functions that have components.
    face_numbers = [
        gr.Number(None, precision=0, visible=False, label=f"Face of the {order} photo, from 1; empty for all")
        for order in ("first", "second")
    ]
    rate = gr.Number(None, visible=False, label="False-match rate; empty for the default")
    for function, name, inputs, settings in (
        (compare, "compare", [first, second, *face_numbers, rate], PRIVATE),
        (find, "find", [searched, portrait], PRIVATE_GROUP),
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
