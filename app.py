"""The page: two pictures in, how unlike they are out. `python app.py`, then http://127.0.0.1:7860."""

import base64
import html
import io
import os
from pathlib import Path

import gradio as gr

import siamese
from siamese.compare import SURE, WEIGHTS, Comparison, Face

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
.answer .seen { display: flex; justify-content: center; align-items: center; gap: 12px; margin-top: 16px; }
.answer .seen img { width: 72px; height: 72px; border-radius: 8px; margin: 0; }
#examples thead { display: none; }
#examples tbody { display: grid; grid-template-columns: repeat(4, 1fr); }
@media (max-width: 1000px) { #examples tbody { grid-template-columns: repeat(2, 1fr); } }
@media (max-width: 500px) { #examples tbody { grid-template-columns: 1fr; } }
#examples tr { display: flex; justify-content: center; background: none; border: none; border-radius: 8px; }
#examples td { padding: 2px 4px; border: none; }
"""

try:
    model = siamese.load(os.environ.get("SIAMESE_WEIGHTS") or WEIGHTS)
except (OSError, ValueError) as error:
    raise SystemExit(f"error: {error}") from error


class Photo(gr.Image):
    """An image input that hands over the uploaded file as it is, so that `siamese.images` judges it, not Gradio."""

    is_template = True  # drawn as a gr.Image

    def preprocess(self, payload):
        return payload and payload.path


def compare(first: str | None, second: str | None) -> dict:
    """Compare two face pictures.

    Args:
        first: a picture of a face, cropped to the head.
        second: another one; the order does not matter.

    Returns:
        dissimilarity (≥ 0, lower is more alike), threshold, probability (that both show one person, at even odds),
        verdict (same, unsure or different), faces (where each was found; null for whole pictures), warnings.
    """
    for picture, name in ((first, "first"), (second, "second")):
        if not picture:
            raise gr.Error(f"The {name} picture is missing.")
    try:
        return model.compare(first, second).to_dict()
    except (ValueError, FileNotFoundError) as error:
        raise gr.Error(str(error)) from error


def show(first: str | None, second: str | None) -> str:
    """Return the answer for people: the comparison, or a sentence that says what is missing or wrong."""
    if not (first and second):
        missing = "the second picture" if first else "the first picture" if second else "two pictures"
        return message(f"Add {missing}, or click an example.")
    try:
        return card(model.compare(first, second))
    except (ValueError, FileNotFoundError) as error:
        return message(str(error), "problem")


def message(text: str, kind: str = "hint") -> str:
    return f'<div class="answer {kind}" role="status">{html.escape(text)}</div>'


def card(answer: Comparison) -> str:
    """Draw an answer: the verdict, the number, where it lies between alike and unlike, and what was compared."""
    full = 2 * answer.threshold
    distances = [*map(model.calibration.distance, (SURE, 1 - SURE)), answer.dissimilarity]
    low, high, here = (min(max(distance / full, 0), 1) * 100 for distance in distances)
    seen = "".join(crop(face, order) for face, order in zip(answer.faces, ("First", "Second"), strict=True))
    warnings = "".join(f"<p><i>{html.escape(warning)}</i></p>" for warning in answer.warnings)
    return f"""
<div class="answer {answer.verdict}" role="status">
  <p class="verdict">{WORDS[answer.verdict]}</p>
  <p class="number">Dissimilarity: <b>{answer.dissimilarity:.2f}</b></p>
  <div class="scale" style="--low:{low:.1f}%; --high:{high:.1f}%; --here:{here:.1f}%" aria-hidden="true"><i></i></div>
  <div class="ends" aria-hidden="true">
    <span>alike</span><span>even odds at {answer.threshold:.2f}</span><span>unlike</span>
  </div>
  <p>If both were equally likely beforehand: <b>{answer.probability:.0%}</b> that these show one person.</p>
  {warnings}
  <div class="seen"><span>What the network saw</span>{seen}</div>
</div>"""


def crop(face: Face, order: str) -> str:
    file = io.BytesIO()
    face.crop.save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{order} picture as the network saw it">'


def about() -> str:
    """Describe the loaded network by the numbers that came with it."""
    record, name, (_, height, width) = model.record, Path(model.name).name, model.network.input_shape
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


with gr.Blocks(title="How alike are two faces?", analytics_enabled=False, delete_cache=(600, 1800)) as demo:
    gr.Markdown(
        "# How alike are two faces?\n"
        "Two pictures in, one number out. Uploads are deleted within the hour and passed on to nobody.\n\n"
        f"This network learned from pictures of {len(model.record['people']['training'])} people, and knows little "
        "beyond: with pictures unlike those, expect mistakes."
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
    gr.Button(visible=False).click(compare, [first, second], gr.JSON(visible=False), api_name="compare")

if __name__ == "__main__":
    demo.launch(theme=THEME, css=CSS, footer_links=["api"], max_file_size="10mb")
