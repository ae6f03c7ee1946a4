"""The photo input of the page. Gradio writes a .pyi file next to a module with a component, so this one has its own."""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import ImageData


class Photo(gr.Image):
    """An image input that returns the path of the upload unchanged, so that `siamese.images` reports its errors."""

    is_template = True  # use the frontend of gr.Image

    def preprocess(self, payload: ImageData | None) -> str | None:
        return payload.path if payload else None
