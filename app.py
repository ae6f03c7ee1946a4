"""The page: two pictures in, how unlike they are out. `python app.py`, then http://127.0.0.1:7860."""

import contextlib
import ctypes
import importlib.util
import inspect
import os
import threading
import time
from datetime import datetime
from pathlib import Path

import gradio as gr
import spaces
from PIL import Image

import siamese
from siamese import images
from siamese import saliency as explain
from siamese.checkpoint import DEFAULT
from siamese.faces import mtcnn
from siamese.faces.detection import LONGEST
from siamese.faces.face import Face
from siamese.model import SURE, Comparison
from siamese.network import bundled_weights
from siamese.page import charts
from siamese.page import html as views
from siamese.page.text import about, introduction
from siamese.search.group import Group, group

HERE = Path(__file__).parent
EXAMPLES = HERE / "examples"
PAIRS = (
    ("obama-portrait.jpg", "obama-standing.jpg"),
    ("obama-standing.jpg", "biden.jpg"),
    ("obama-speaking.jpg", "biden.jpg"),
    ("biden.jpg", "collins.jpg"),
)
STRICT = {"Strict": 1e-3, "Very strict": 1e-5}  # the false-match rates to choose from, beside odds of three to one
MOST_PHOTOS = 40
GONE = "A photo was deleted in the meantime, as all are after half an hour: add it again."
PREVIEW = 640  # pixels that are at least left of the longest side of a photo that is shown again
# Darker than the theme's own where that is too pale to read.
THEME = gr.themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"]).set(
    block_label_text_color="*primary_800",
    block_title_text_color="*primary_800",
    body_text_color_subdued="*neutral_600",
    checkbox_label_background_fill_selected="*primary_600",
    color_accent="*primary_600",
    link_text_color_dark="*primary_300",
)
LIVE = 'element.setAttribute("aria-live", "polite");'
# Faces to choose from are drawn as buttons. Choosing one draws the answer anew, so the focus is put back.
CHOOSE = """
let last = null;
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-face]");
  if (!button) return;
  last = {photo: Number(button.dataset.photo), face: Number(button.dataset.face)};
  trigger("select", last);
});
watch("value", () => {
  if (last) element.querySelector(`[data-photo="${last.photo}"][data-face="${last.face}"]`)?.focus();
  last = null;
});
"""

# Of an upload that is no picture a sentence is shown, and not the browser's torn one beside it. Gradio draws the
# examples without a text; a screen reader is to have their names.
ON_LOAD = """() => {
  const draw = ({target, type}) => {
    if (target.tagName !== "IMG") return;
    target.style.visibility = type === "error" ? "hidden" : "";
    if (target.closest("#examples td"))
      target.alt = target.src.split("/").pop().replace(/[.]jpg$/, "").replaceAll("-", ", ");
  };
  for (const event of ["error", "load"]) document.addEventListener(event, draw, true);
}"""

try:
    model = siamese.load(os.environ.get("SIAMESE_WEIGHTS") or DEFAULT)
    notice = model.note
except ConnectionError as error:
    model = siamese.load()
    notice = f"{error}: this is the network that comes with the project."
except (OSError, ValueError) as error:
    raise SystemExit(f"error: {error}") from error
try:
    spread, ABOUT, INTRODUCTION = charts.Spread(model.record["curves"]), about(model), introduction(model, notice)
except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
    raise SystemExit(f"error: {model.id}: metrics.json lacks what `siamese train` writes ({error!r})") from error
faces = model.align == "faces"
tutorial = siamese.load(bundled_weights("att")) if faces else None
if faces:
    mtcnn.networks(model.network.device)
TITLE = "How alike are two faces?" if faces else "How alike are two pictures?"
# On a ZeroGPU Space a function may use the GPU while it runs, for at most so many seconds, in a process of its own: so
# every network is loaded above, and what these functions take and return is plain. Elsewhere it changes nothing.
BRIEFLY, LONGER = spaces.GPU(duration=15), spaces.GPU(duration=lambda files, *_: 5 + len(files or ()))


class Photo(gr.Image):
    """An image input that hands over the uploaded file as it is, so that `siamese.images` judges it, not Gradio."""

    is_template = True  # drawn as a gr.Image

    def preprocess(self, payload):
        return payload and payload.path


@BRIEFLY
def compare(
    first: str | None,
    second: str | None,
    first_face: float | None = 0,
    second_face: float | None = 0,
    false_match_rate: float | None = None,
) -> dict:
    """Compare two pictures: do they show the same person?

    Args:
        first: a photo that shows a face.
        second: another one; the order does not matter.
        first_face: which of the faces in the first photo, an index into `found`; 0 is the one to compare by default.
        second_face: likewise in the second.
        false_match_rate: of pairs of different people, the share that "same" may be wrong about: 0.01, 0.001, 0.0001
            or 0.00001, where that was measured; empty for odds of three to one.

    Returns:
        dissimilarity (≥ 0, lower is more alike; null where a photo shows no face), threshold, probability (that both
        show one person, at even odds), band (its 95 % confidence limits), verdict (same, unsure or different), faces
        (where each was found), found (all faces in each photo), warnings.
    """
    for picture, name in ((first, "first"), (second, "second")):
        if not picture:
            raise refusal(f"The {name} picture is missing.")
    try:
        chosen = whole(first_face), whole(second_face)
        return model.compare(first, second, face=chosen, fmr=false_match_rate or None).to_dict()
    except (ValueError, FileNotFoundError) as error:
        raise refusal(error) from error


def refusal(reason: Exception | str) -> gr.Error:
    """Return an error for the one who asked; a name of a file may be in it, so it is not logged."""
    return gr.Error(GONE if isinstance(reason, FileNotFoundError) else str(reason), print_exception=False)


def whole(number: float | None) -> int:
    """Return which face is meant; none means the first.

    Raises:
        ValueError: where it is not a whole number.
    """
    if number is None:
        return 0
    if number not in range(1000):
        raise ValueError(f"a face is chosen by a whole number from 0, got {number}")
    return int(number)


def changed(first: str | None, second: str | None, fmr: float) -> tuple[tuple[int, int], str, str]:
    """Compare the pictures that are there now, with the face in each that is to be compared by default."""
    both = first and second
    return (0, 0), *(show(first, second, fmr) if both else (views.message(missing(first, second)), ""))


def missing(first: str | None, second: str | None) -> str:
    pictures = "the second picture" if first else "the first picture" if second else "two pictures"
    return f"Add {pictures}, or click an example." if faces else f"Add {pictures}."


def ask(first: str | None, second: str | None, fmr: float, chosen: tuple[int, int]) -> Comparison | str:
    """Compare two pictures. Returns a drawn sentence where one or a face is missing, or something is wrong."""
    if not (first and second):
        return views.message(missing(first, second))
    try:
        answer = model.compare(first, second, face=chosen, fmr=fmr or None)
    except FileNotFoundError:
        return views.message(GONE, "problem")
    except ValueError as error:
        return views.message(str(error), "problem")
    return views.message(" ".join(answer.warnings), "problem") if None in answer.faces else answer


@BRIEFLY
def show(first: str | None, second: str | None, fmr: float, chosen: tuple[int, int] = (0, 0)) -> tuple[str, str]:
    """Draw the answer, and what was compared."""
    answer = ask(first, second, fmr, chosen)
    if isinstance(answer, str):
        return answer, ""
    photos = [images.read_at_least(path, PREVIEW) for path in (first, second)]
    return views.card(answer, spread, fmr or None, faces), views.seen(answer, photos, explain.heat(model, answer))


@BRIEFLY
def judge(first: str | None, second: str | None, fmr: float, chosen: tuple[int, int]) -> str:
    """Draw the answer anew where only the strictness changes: what was compared stays as it is."""
    answer = ask(first, second, fmr, chosen)
    return answer if isinstance(answer, str) else views.card(answer, spread, fmr or None, faces)


def choose(first: str, second: str, fmr: float, chosen: tuple[int, int], event: gr.EventData) -> tuple:
    """Compare another face of one of the pictures, that which was clicked."""
    chosen = (event.face, chosen[1]) if event.photo == 0 else (chosen[0], event.face)
    return chosen, *show(first, second, fmr, chosen)


@LONGER
def gather(files: list[str] | None, fmr: float, progress: gr.Progress = gr.Progress()) -> tuple[Group | None, str]:  # noqa: B008
    """Find the faces of many photos, and draw who is one person."""
    if len(files or ()) > MOST_PHOTOS:
        return None, views.message(f"At most {MOST_PHOTOS} photos at once; these are {len(files)}.", "problem")
    if not files:
        return None, regroup(None, None, fmr)
    named = [(Path(file).name, file) for file in files]
    found = group(model, named, lambda done: progress((done, len(named)), "Looking for faces", unit="photos"))
    return found, regroup(files, found, fmr)


def regroup(files: list[str] | None, found: Group | None, fmr: float) -> str:
    """Draw who is one person, anew where only the strictness changes."""
    if found is None and files:
        return views.message(GONE, "problem")
    if found is None:
        return views.message(f"Add up to {MOST_PHOTOS} photos, to see who is in them.")
    return views.people(found, threshold(fmr), faces)


def threshold(fmr: float | None) -> float:
    return model.calibration.operating_point(fmr).distance if fmr else model.calibration.distance_at(SURE)


@LONGER
def group_photos(files: list[str] | None, false_match_rate: float | None = None) -> dict:
    """Find the faces in up to 40 photos, and who of them is one person.

    Args:
        files: the photos.
        false_match_rate: how strictly faces are joined, see `compare`; empty for odds of three to one.

    Returns:
        faces: for each face its photo's name and index, its box there, and its person, a number from 0;
        dissimilarities: of each two faces; threshold: the mean dissimilarity up to which faces were joined; warnings.
    """
    if not files or len(files) > MOST_PHOTOS:
        raise refusal(f"Send 1 to {MOST_PHOTOS} photos; there were {len(files or ())}.")
    try:
        limit = threshold(false_match_rate)
    except ValueError as error:
        raise refusal(error) from error
    found = group(model, [(Path(file).name, file) for file in files])
    person = {row: number for number, rows in enumerate(found.people(limit)) for row in rows}
    return {
        "faces": [
            {"photo": found.names[row], "index": found.photos[row], "box": face.box, "person": person[row]}
            for row, face in enumerate(found.faces)
        ],
        "dissimilarities": found.distances.tolist(),
        "threshold": limit,
        "warnings": list(found.problems),
    }


@BRIEFLY
def side_by_side(first: str | None, second: str | None, chosen: tuple[int, int]) -> str:
    """Show what the tutorial's network makes of the same two heads: the same idea, and 37 people to learn from."""
    if not (first and second):
        first, second, chosen = *(str(EXAMPLES / name) for name in PAIRS[1]), (0, 0)
    answer = ask(first, second, 0.0, chosen)
    if isinstance(answer, str):
        return answer
    heads = [head(path, face) for path, face in zip((first, second), answer.faces, strict=True)]
    other = tutorial.compare(*heads)
    people = len(tutorial.record["people"]["training"])
    return f"""<div class="sides">
{views.side("This network", answer, spread)}
{views.side(f"The tutorial's, which learned from {people} people", other, charts.Spread(tutorial.record["curves"]))}
</div>"""


def head(path: str, face: Face) -> Image.Image:
    """Cut the head out as the AT&T portraits show it: the face in the middle of a frame of 92 : 112."""
    left, top, right, bottom = face.box
    x, y, height = (left + right) / 2, (top + bottom) / 2, (bottom - top) * 1.4
    width = height * 92 / 112
    box = (x - width / 2, y - height * 0.52, x + width / 2, y + height * 0.48)
    photo, scale = images.read_at_least(path, LONGEST)
    return photo.crop([round(edge / scale) for edge in box])


def strictness() -> gr.Radio:
    """Let people choose how sure "same" has to be, each choice with its price."""
    sure = model.calibration.distance_at(SURE)
    offered = [("Everyday", 0.0, spread.closer("impostor", sure), 1 - spread.closer("genuine", sure))]
    for name, fmr in STRICT.items():
        points = [point for point in model.calibration.operating_points if point.fmr == fmr and point.distance < sure]
        offered += [(name, fmr, fmr, point.fnmr) for point in points]
    choices = [
        (f"{name}: {charts.rate(false)} false matches, {missed:.1%} missed", fmr)
        for name, fmr, false, missed in offered
    ]
    return gr.Radio(
        choices,
        value=0.0,
        label="How sure must “same” be?",
        info="Of pairs of different ones, how many pass as the same; of pairs of the same one, how many are missed.",
        visible=len(choices) > 1,
    )


NETWORK = {"concurrency_limit": 2, "concurrency_id": "network", "api_visibility": "private"}
GROUP = {**NETWORK, "concurrency_limit": 1, "concurrency_id": "group"}

with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 1800)) as demo:
    gr.Markdown(f"# {TITLE}\n{INTRODUCTION}")
    with gr.Tab("Compare"):
        with gr.Row():
            first, second = (
                Photo(
                    label=label,
                    height=300,
                    min_width=120,
                    alt_text=label,
                    buttons=[],
                    sources=["upload", "webcam", "clipboard"],
                )
                for label in ("First photo", "Second photo")
            )
        answer = gr.HTML(views.message(missing(None, None)), js_on_load=LIVE)
        fmr = strictness()
        seen = gr.HTML(js_on_load=CHOOSE)
        chosen = gr.State((0, 0))
        if faces:
            pairs = [[str(EXAMPLES / name) for name in pair] for pair in PAIRS]
            gr.Examples(pairs, [first, second], label="Examples", elem_id="examples")
    with gr.Tab("Group"):
        files = gr.File(label=f"Up to {MOST_PHOTOS} photos", file_count="multiple", file_types=["image"], height=180)
        group_fmr = strictness()
        found = gr.State(time_to_live=1800)
        who = gr.HTML(regroup(None, None, 0.0), js_on_load=LIVE)
    with gr.Tab("About this model") as about_tab:
        gr.Markdown(ABOUT)
        gr.HTML(charts.charts(spread, faces))
        if faces:
            gr.Markdown(
                "## The same idea, in small\nThe network of the tutorial that this project grew from, on the same "
                "pair: two numbers a face, to compare and to learn from, not to be believed."
            )
            beside = gr.HTML()
            about_tab.select(side_by_side, [first, second, chosen], beside, **NETWORK)

    gr.on(
        [first.change, second.change],
        changed,
        [first, second, fmr],
        [chosen, answer, seen],
        show_progress="hidden",
        trigger_mode="always_last",
        **NETWORK,
    )
    fmr.change(judge, [first, second, fmr, chosen], answer, show_progress="hidden", **NETWORK)
    seen.select(choose, [first, second, fmr, chosen], [chosen, answer, seen], show_progress="hidden", **NETWORK)
    files.change(gather, [files, group_fmr], [found, who], trigger_mode="always_last", **GROUP)
    group_fmr.change(regroup, [files, found, group_fmr], who, show_progress="hidden", **NETWORK)

    which = [gr.Number(0, visible=False, label=f"Which face of the {order} photo, from 0") for order in views.ORDER]
    rate = gr.Number(None, visible=False, label="False-match rate, empty for odds of three to one")
    for function, inputs, name, settings in (
        (compare, [first, second, *which, rate], "compare", NETWORK),
        (group_photos, [files, rate], "group", GROUP),
    ):
        gr.Button(visible=False).click(
            function,
            inputs,
            gr.JSON(visible=False, label="Answer"),
            api_name=name,
            # Of a docstring, Gradio itself would only tell what comes before the arguments.
            api_description=inspect.getdoc(function),
            **settings | {"api_visibility": "public"},
        )


def sweep() -> None:
    """Delete again and again what Gradio forgets: what was shown in sessions now idle, and uploads that broke off."""
    while True:
        every, age = demo.delete_cache
        time.sleep(every)
        sessions = demo.state_holder
        for session, used in list(sessions.time_last_used.items()):
            if (datetime.now() - used).total_seconds() > age:
                with sessions.lock:
                    sessions.session_data.pop(session, None)
                    sessions.time_last_used.pop(session, None)
        for file in Path(demo.GRADIO_CACHE).glob("tmp*"):
            with contextlib.suppress(OSError):
                if time.time() - file.stat().st_mtime > age:
                    file.unlink()


def launch(**settings) -> None:
    """Serve the page until it is stopped; with SIAMESE_MCP=1 to language models too."""
    mcp = os.environ.get("SIAMESE_MCP") == "1"
    if mcp and not importlib.util.find_spec("mcp"):
        raise SystemExit("error: SIAMESE_MCP=1 needs packages that are not installed: pip install 'gradio[mcp]'")
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has it
        # M_ARENA_MAX = 1: Gradio's many threads share their free memory. With some each, it would only ever grow.
        ctypes.CDLL(None).mallopt(-8, 1)
    threading.Thread(target=sweep, daemon=True).start()
    demo.queue(max_size=64).launch(
        theme=THEME,
        css_paths=HERE / "app.css",
        js=ON_LOAD,
        footer_links=["api"],
        max_file_size="10mb",
        run_history=False,
        state_session_capacity=256,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=mcp,
        **settings,
    )


if __name__ == "__main__":
    launch()
