"""The page: two pictures in, how unlike they are out. `python app.py`, then http://127.0.0.1:7860."""

import base64
import html
import io
import os
from pathlib import Path

import gradio as gr
from PIL import Image

import siamese
from siamese import images
from siamese.compare import SURE, Comparison, Face
from siamese.faces import LONGEST
from siamese.network import shipped
from siamese.store import DEFAULT

EXAMPLES = Path(__file__).parent / "examples"
PAIRS = (
    ("obama-portrait.jpg", "obama-standing.jpg"),
    ("obama-standing.jpg", "biden.jpg"),
    ("obama-speaking.jpg", "biden.jpg"),
    ("biden.jpg", "collins.jpg"),
)
WORDS = {
    "same": "Probably the same person",
    "unsure": "Could be either",
    "different": "Probably different people",
}
THEME = gr.themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"])
CSS = """
.gradio-container { max-width: 860px !important; margin: auto; }
.html-container:has(.answer) { padding: 0; }
.answer { border: 1px solid var(--border-color-primary); border-radius: 12px; padding: 20px 24px; text-align: center; }
.answer, .answer p { color: var(--body-text-color); }
.answer p { margin: 6px 0; }
.answer .verdict { font-size: 1.7em; font-weight: 650; }
.answer .number { font-size: 1.15em; }
.answer.hint { border-style: dashed; }
.answer.problem { border-color: #b45309; }
.answer .scale { position: relative; height: 12px; margin: 18px 4px 6px; border-radius: 6px; background:
  linear-gradient(90deg, #4f46e5 var(--low), #a5b4fc var(--low) var(--high), #94a3b8 var(--high)); }
.answer .scale i { position: absolute; left: var(--here); top: -6px; width: 6px; height: 24px; margin-left: -3px;
  border-radius: 3px; background: var(--body-text-color); outline: 2px solid var(--background-fill-primary); }
.answer .ends { display: flex; justify-content: space-between; margin: 0 4px 12px; font-size: .9em; }
.beside { border: 1px solid var(--border-color-primary); border-radius: 12px; margin-top: 12px; padding: 10px 24px; }
.beside summary { cursor: pointer; }
.seen { display: flex; justify-content: center; align-items: center; gap: 12px; margin-top: 16px; }
.seen img { width: 72px; height: 72px; border-radius: 8px; margin: 0; }
#examples thead { display: none; }
#examples tbody { display: grid; grid-template-columns: repeat(4, 1fr); }
@media (max-width: 1000px) { #examples tbody { grid-template-columns: repeat(2, 1fr); } }
@media (max-width: 500px) { #examples tbody { grid-template-columns: 1fr; } }
#examples tr { display: flex; justify-content: center; background: none; border: none; border-radius: 8px; }
#examples td { padding: 2px 4px; border: none; }
"""

try:
    model = siamese.load(os.environ.get("SIAMESE_WEIGHTS") or DEFAULT)
    tutorial = siamese.load(shipped("att"))
except (OSError, ValueError) as error:
    raise SystemExit(f"error: {error}") from error


class Photo(gr.Image):
    """An image input that hands over the uploaded file as it is, so that `siamese.images` judges it, not Gradio."""

    is_template = True  # drawn as a gr.Image

    def preprocess(self, payload):
        return payload and payload.path


def compare(first: str | None, second: str | None, first_face: int = 0, second_face: int = 0) -> dict:
    """Compare two face pictures.

    Args:
        first: a photo that shows a face.
        second: another one; the order does not matter.
        first_face: which of the faces in the first photo, an index into `found`.
        second_face: likewise in the second.

    Returns:
        dissimilarity (≥ 0, lower is more alike; null where a photo shows no face), threshold, probability (that both
        show one person, at even odds), band (its 95 % confidence limits), verdict (same, unsure or different), faces
        (where each was found), found (all faces in each photo), warnings.
    """
    for picture, name in ((first, "first"), (second, "second")):
        if not picture:
            raise gr.Error(f"The {name} picture is missing.")
    try:
        return model.compare(first, second, face=tuple(map(whole, (first_face, second_face)))).to_dict()
    except (ValueError, FileNotFoundError) as error:
        raise gr.Error(str(error)) from error


def show(first: str | None, second: str | None) -> str:
    """Return the answer for people: the comparison, or a sentence that says what is missing or wrong."""
    if not (first and second):
        missing = "the second picture" if first else "the first picture" if second else "two pictures"
        return message(f"Add {missing}, or click an example.")
    try:
        answer = model.compare(first, second)
        if None in answer.faces:
            return message(" ".join(answer.warnings), "problem")
        return card(answer) + beside(answer, first, second)
    except (ValueError, FileNotFoundError) as error:
        return message(str(error), "problem")


def message(text: str, kind: str = "hint") -> str:
    return f'<div class="answer {kind}" role="status">{html.escape(text)}</div>'


def card(answer: Comparison) -> str:
    """Draw an answer: the verdict, the number, where it lies between alike and unlike, and what was compared."""
    full = 2 * answer.threshold
    distances = [*map(model.calibration.distance, (SURE, 1 - SURE)), answer.dissimilarity]
    low, high, here = (min(max(distance / full, 0), 1) * 100 for distance in distances)
    seen = "".join(
        crop(face, f"{order} picture as the network saw it")
        for face, order in zip(answer.faces, ("First", "Second"), strict=True)
    )
    limits = list(dict.fromkeys(map(percent, answer.band or ())))
    band = f" ({' to '.join(limits)})" if len(limits) > 1 else ""
    warnings = "".join(f"<p><i>{html.escape(warning)}</i></p>" for warning in answer.warnings)
    return f"""
<div class="answer {answer.verdict}" role="status">
  <p class="verdict">{WORDS[answer.verdict]}</p>
  <p class="number">Dissimilarity: <b>{answer.dissimilarity:.2f}</b></p>
  <div class="scale" style="--low:{low:.1f}%; --high:{high:.1f}%; --here:{here:.1f}%" aria-hidden="true"><i></i></div>
  <div class="ends" aria-hidden="true">
    <span>alike</span><span>even odds at {answer.threshold:.2f}</span><span>unlike</span>
  </div>
  <p>If both were equally likely beforehand: <b>{percent(answer.probability)}</b> that these show one person{band}.</p>
  {warnings}
  <div class="seen"><span>What the network saw</span>{seen}</div>
</div>"""


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


def percent(probability: float) -> str:
    """Return a percentage that never claims certainty."""
    return "under 0.1%" if probability < 0.001 else "over 99.9%" if probability > 0.999 else f"{probability:.1%}"


def beside(answer: Comparison, first: str, second: str) -> str:
    """Say what the tutorial's network makes of the same two heads: the same idea, and 37 people to learn from."""
    if model.align == "none":
        return ""
    heads = [head(path, face) for path, face in zip((first, second), answer.faces, strict=True)]
    other = tutorial.compare(*heads)
    seen = "".join(
        crop(face, f"{order} picture as the tutorial's network saw it")
        for face, order in zip(other.faces, ("First", "Second"), strict=True)
    )
    people = len(tutorial.record["people"]["training"])
    return f"""
<details class="beside">
  <summary>What the small network of the tutorial says</summary>
  <p><b>{WORDS[other.verdict]}</b> (dissimilarity {other.dissimilarity:.2f}, even odds at {other.threshold:.2f}).</p>
  <p>The same idea, two numbers a face, learned from {people} people: it is here to compare and to learn from, not to be
  believed.</p>
  <div class="seen"><span>What it saw</span>{seen}</div>
</details>"""


def head(path: str, face: Face) -> Image.Image:
    """Cut the head out as the AT&T portraits show it: the face in the middle of a frame of 92 : 112."""
    left, top, right, bottom = face.box
    x, y, height = (left + right) / 2, (top + bottom) / 2, (bottom - top) * 1.4
    width = height * 92 / 112
    box = (x - width / 2, y - height * 0.52, x + width / 2, y + height * 0.48)
    photo, scale = images.read_at_least(path, LONGEST)
    return photo.crop([round(edge / scale) for edge in box])


def crop(face: Face, text: str) -> str:
    file = io.BytesIO()
    face.crop.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(text)}">'


def about() -> str:
    """Describe the loaded network by the numbers that came with it."""
    record, name, (_, height, width) = model.record, Path(model.name).name, model.network.input_shape
    if not record["recipe"]:
        return about_faces(record)
    folds = record["folds"]
    report = folds["pooled"] if folds else record["test"]
    tested = sum(map(len, record["people"].values())) if folds else len(record["people"]["test"])
    return f"""
Each picture becomes a point, by the same weights; the dissimilarity is the distance of the two points. This network,
**{name}**, learned from pictures of {len(record["people"]["training"])} people. Networks of its recipe,
tested on {tested} people whom they had not seen, put two pictures of one person closer together than two of different
people {report["auc"]:.1%} of the time (ROC AUC).

It looks at the whole picture, squeezed to {width} × {height}: crop both to an upright head, as in the examples. Other
lighting, backgrounds and cameras than in its portraits mislead it. Do not decide anything that matters by it.

Example photographs: the White House and NASA, in the public domain.
"""


def about_faces(record: dict) -> str:
    folds = record["folds"]
    points = "\n".join(
        f"| {round(1 / point['fmr']):,} | {point['distance']:.2f} | {point['fnmr']:.1%} |"
        for point in record["test_calibration"]["points"]
    )
    return f"""
The faces are found, brought upright, and each becomes a point, by the same weights; the dissimilarity is the distance
of the two points. On the {folds["images"]:,} photographs of LFW, of people whom the network had not seen, it tells
{folds["accuracy"]:.1%} of the pairs right, and its probabilities are off by {folds["pooled"]["calibration_error"]:.1%}.

| one false match in … pairs of different people | dissimilarity below | misses of pairs of one person |
|---|---|---|
{points}

It confuses children, twins and siblings, faces in profile, and people of groups that its training photographs showed
seldom, more often than these numbers say. It does not notice a photograph of a photograph. Do not identify strangers
with it, and decide nothing that matters by it alone.

Network: Davis King's, of dlib. Example photographs: the White House and NASA. All in the public domain.
"""


def introduction() -> str:
    """Say what to expect, where that is little."""
    if model.align == "faces":
        return ""
    people = len(model.record["people"]["training"])
    return (
        f"\n\nThis network learned from pictures of {people} people, and knows little beyond: with pictures unlike "
        "those, expect mistakes."
    )


with gr.Blocks(title="How alike are two faces?", analytics_enabled=False, delete_cache=(600, 1800)) as demo:
    gr.Markdown(
        "# How alike are two faces?\n"
        "Two pictures in, one number out. Uploads are deleted within the hour and passed on to nobody." + introduction()
    )
    with gr.Row():
        first = Photo(label="First picture", height=300, alt_text="First picture", buttons=[])
        second = Photo(label="Second picture", height=300, alt_text="Second picture", buttons=[])
    answer = gr.HTML(show(None, None), padding=False)
    pairs = [[str(EXAMPLES / name) for name in pair] for pair in PAIRS]
    gr.Examples(pairs, [first, second], label="Examples", elem_id="examples")
    with gr.Accordion("How it works, and what it cannot do", open=False):
        gr.Markdown(about())
    gr.on(
        [first.change, second.change],
        show,
        [first, second],
        answer,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    which = [gr.Number(0, visible=False, label=label) for label in ("First face", "Second face")]
    gr.Button(visible=False).click(compare, [first, second, *which], gr.JSON(visible=False), api_name="compare")

if __name__ == "__main__":
    demo.launch(theme=THEME, css=CSS, footer_links=["api"], max_file_size="10mb")
