"""Gradio components and the theme of the page."""

from __future__ import annotations

import gradio as gr

from siamese.model import Model
from siamese.page.charts import PairDistances, rate
from siamese.page.photo import Photo, Photos
from siamese.wording import VERDICT_PROBABILITY, Vocabulary

STRICTNESS = {"Strict": 1e-3, "Very strict": 1e-5}  # false-match rates

THEME = gr.themes.Soft(primary_hue="indigo", font=["system-ui", "sans-serif"]).set(
    # The theme's own colours have too little contrast.
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
        label=label,
        file_count="multiple",
        file_types=["image"],
        height=180,
        min_width=220,
        elem_classes="photos-input",
    )


def strictness_radio(model: Model, pairs: PairDistances, words: Vocabulary) -> gr.Radio:
    """Offer false-match rates, each with the share of matches that it misses. The value of the default is 0."""
    if lfw := model.record.lfw:
        default = lfw.default_fmr, lfw.default_fnmr
    else:
        distance = model.calibration.distance_at(VERDICT_PROBABILITY)
        default = pairs.fmr_at(distance), 1 - pairs.tmr_at(distance)
    settings = [("Everyday", 0.0, *default)]
    for name, fmr in STRICTNESS.items():
        points = [point for point in model.calibration.operating_points if point.fmr == fmr and fmr < default[0]]
        settings += [(name, fmr, fmr, point.fnmr) for point in points]
    return gr.Radio(
        [
            (
                f"{name}: wrongly says “same” for {rate(fmr)} pairs of {words.different}, and misses {fnmr:.1%} of the "
                f"pairs of {words.same}",
                value,
            )
            for name, value, fmr, fnmr in settings
        ],
        value=0.0,
        label="How sure must “same” be?",
        visible=len(settings) > 1,
    )
