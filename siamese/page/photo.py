"""The photo inputs of the page. Gradio writes a .pyi file next to a module with a component, so they have their own."""

from __future__ import annotations

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles


class Photo(gr.Image):
    """An image input that returns the path of the upload unchanged, so that `siamese.images` reports its errors."""

    is_template = True  # use the frontend of gr.Image

    def preprocess(self, payload: ImageData | None) -> str | None:
        return payload.path if payload else None


class Photos(gr.File):
    """An input for several photos that returns their paths. `siamese.images` decides which of them are photos.

    `gr.File` would reject all of them because of one whose name does not end like that of an image.
    """

    is_template = True  # use the frontend of gr.File

    def preprocess(self, payload: FileData | ListFiles | None) -> list[str] | None:
        files = payload.root if isinstance(payload, ListFiles) else [payload] if payload else []
        return [file.path for file in files] or None
