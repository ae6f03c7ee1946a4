"""The photo inputs of the page. Gradio writes a .pyi file next to a module with a component, so they have their own."""

import gradio as gr
from gradio.data_classes import FileData, ImageData, ListFiles

from siamese.page.uploads import Upload


class Photo(gr.Image):
    """An image input that returns the upload unchanged, so that `siamese.images` reports its errors."""

    is_template = True  # use the frontend of gr.Image

    def preprocess(self, payload: ImageData | None) -> Upload | None:  # pyrefly: ignore[bad-override]
        return Upload(payload.path) if payload and payload.path else None


class Photos(gr.File):
    """An input for several photos that returns the uploads. `gr.File` would reject all because of one other file."""

    is_template = True  # use the frontend of gr.File

    def preprocess(self, payload: FileData | ListFiles | None) -> list[Upload] | None:  # pyrefly: ignore[bad-override]
        files = payload.root if isinstance(payload, ListFiles) else [payload] if payload else []
        return [Upload(file.path) for file in files] or None
