"""The Find tab: search several photos for the person of a portrait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import gradio as gr

from siamese.model import Model
from siamese.page import find, html, people
from siamese.page.components import photo_input, photos_input
from siamese.page.tab import CHOOSE, DELETED, PRIVATE_GROUP, QUIET, gpu_for_files, named, publish, report
from siamese.page.uploads import Upload
from siamese.search.find_in_photos import find_in_photos
from siamese.wording import Vocabulary


class FindTab:
    """The tab and its functions.

    Args:
        model: the network.
        words: what it compares.
        example: a portrait, and photos to search; empty for no example.
    """

    def __init__(self, model: Model, words: Vocabulary, example: Sequence[Path]):
        self.model, self.words, self.example = model, words, example

    def find(self, files: list[Upload] | None, portrait: Upload | None) -> dict:
        """Find the person of a portrait among the faces in up to 40 photos.

        Args:
            files: the photos to search.
            portrait: a photo of the person; its main face is searched for.

        Returns:
            faces (the most likely one first; for each the name and index of its photo, its number in the photo from 1,
            its box, the probability that it is the person of the portrait, and its dissimilarity), warnings.
        """
        try:
            if not portrait or not files:
                raise ValueError(f"The {'photos are' if portrait else 'portrait is'} missing")
            return find_in_photos(self.model, portrait, named(files)).to_dict()
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def on_change(
        self,
        files: list[Upload] | None,
        portrait: Upload | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple]:
        """Search the photos for the person of the portrait."""
        drawn = people.thumbnails(files or [])
        if not portrait or not files:
            yield self.hint(portrait, files), drawn
            return
        yield html.message("Searching…", "comparing"), drawn
        try:
            found = find_in_photos(self.model, portrait, named(files), report(progress, files))
            yield find.answer(found, self.words), find.photos(found, files)
        except FileNotFoundError:
            yield html.message(f"{DELETED}.", "problem"), ""
        except ValueError as error:
            yield html.message(f"{error}.", "problem"), drawn

    def on_example(self) -> tuple[str, list[str]]:
        """Add the example photos."""
        portrait, *photos = map(str, self.example)
        return portrait, photos

    def hint(self, portrait: Upload | None, files: list[Upload] | None) -> str:
        """Say what is missing."""
        photos = "the photos to search"
        return html.message(f"Add {photos if portrait else 'a portrait' if files else f'a portrait, and {photos}'}.")

    def draw(self) -> None:
        """Draw the tab, and connect its functions."""
        with gr.Row():
            portrait, files = photo_input("Portrait"), photos_input("Photos to search")
        example = gr.HTML(people.example(self.example, "One of a group"), js_on_load=CHOOSE) if self.example else None
        best = gr.HTML(self.hint(None, None), js_on_load="announceAnswers(element)")
        boxes = gr.HTML()
        search = gpu_for_files(self.on_change), [files, portrait], [best, boxes]
        settings = PRIVATE_GROUP | {"show_progress_on": best, "trigger_mode": "always_last"}
        # Not their changes: an example changes both, which would search twice.
        given = [portrait.input, portrait.clear, files.upload, files.delete, files.clear]
        gr.on(given, *search, **settings)
        if example:
            added = example.select(self.on_example, None, [portrait, files], queue=False, **QUIET)
            added.then(*search, **settings)
        publish(gpu_for_files(self.find), "find", [files, portrait], PRIVATE_GROUP)
