"""The Group tab: group the faces of several photos by person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import gradio as gr

from siamese.model import Model
from siamese.page import html, people
from siamese.page.charts import PairDistances
from siamese.page.components import photos_input, strictness_radio
from siamese.page.tab import (
    CHOOSE,
    DELETED,
    EACH_IN_ORDER,
    MAX_PHOTOS,
    PRIVATE_GROUP,
    QUIET,
    gpu_for_files,
    named,
    publish,
    report,
)
from siamese.page.uploads import Upload
from siamese.search.group import Group, group
from siamese.wording import VERDICT_PROBABILITY, Vocabulary


class GroupTab:
    """The tab and its functions.

    Args:
        model: the network.
        words: what it compares.
        pairs: distances of its test pairs.
        example: photos; empty for no example.
    """

    def __init__(self, model: Model, words: Vocabulary, pairs: PairDistances, example: Sequence[Path]):
        self.model, self.words, self.pairs, self.example = model, words, pairs, example

    def group(self, files: list[Upload] | None, false_match_rate: float | None = None) -> dict:
        """Find the faces in up to 40 photos, and group them by person.

        Args:
            files: the photos.
            false_match_rate: how strictly faces are grouped, see `compare`; empty for the default.

        Returns:
            faces (for each face the name and index of its photo, its box, and its person, a number from 1),
            dissimilarities (of each pair of faces), threshold (the root mean square dissimilarity up to which groups of
            faces are merged), warnings.
        """
        try:
            if not files:
                raise ValueError("The photos are missing")
            return group(self.model, named(files)).to_dict(self.merge_distance(false_match_rate))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def merge_distance(self, fmr: float | None) -> float:
        """Return the root mean square distance up to which two groups of faces are merged."""
        calibration = self.model.calibration
        return calibration.operating_point(fmr).distance if fmr else calibration.distance_at(VERDICT_PROBABILITY)

    def on_files(
        self,
        files: list[Upload] | None,
        fmr: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple]:
        """Draw new files, and then their faces by person."""
        if not files:
            yield "", None, self.show(None, None, fmr), ""
            return
        try:
            photos = named(files)
        except ValueError as error:
            yield "", None, html.message(f"{error}."), ""
            return
        yield people.thumbnails(files), None, html.message("Finding faces…", "comparing"), ""
        found = group(self.model, photos, report(progress, files))
        yield gr.skip(), found, self.show(files, found, fmr), ""

    def show(self, files: list[Upload] | None, found: Group | None, fmr: float) -> str:
        """Draw the faces by person."""
        if files and found:
            return people.people(found, self.merge_distance(fmr), files, self.words)
        if files:
            return html.message(f"{DELETED}.", "problem")
        return html.message(f"Add up to {MAX_PHOTOS} photos to group the {self.words.item}s by {self.words.one}.")

    def on_strictness(self, files: list[Upload] | None, found: Group | None, fmr: float) -> tuple[str, str]:
        """Draw the faces again for another false-match rate."""
        return self.show(files, found, fmr), ""

    def on_pair(self, found: Group | None, fmr: float, event: gr.EventData) -> str:
        """Compare the two faces that are chosen."""
        if not found or len(event.faces) < 2:
            return ""
        return people.pair(found, tuple(event.faces), fmr or None, self.words)

    def draw(self, rate: gr.Number) -> None:
        """Draw the tab, and connect its functions.

        Args:
            rate: a false-match rate, for the API.
        """
        files = photos_input(f"Up to {MAX_PHOTOS} photos")
        thumbnails = gr.HTML()
        if self.example:
            example = gr.HTML(people.example(self.example, "Seven photos of four people"), js_on_load=CHOOSE)
            example.select(lambda: list(map(str, self.example)), None, files, queue=False, **QUIET)
        found = gr.State(time_to_live=1800)
        grouped = gr.HTML(
            self.show(None, None, 0), js_on_load="announceAnswers(element); onGroup(element, trigger, watch)"
        )
        pair = gr.HTML(elem_id="pair", js_on_load="announceAnswers(element)")
        with gr.Accordion("Stricter?", open=False):
            strictness = strictness_radio(self.model, self.pairs, self.words)
        settings = PRIVATE_GROUP | {"show_progress_on": grouped, "trigger_mode": "always_last"}
        shown = [thumbnails, found, grouped, pair]
        files.change(gpu_for_files(self.on_files), [files, strictness], shown, **settings)
        strictness.change(self.on_strictness, [files, found, strictness], [grouped, pair], **QUIET)
        grouped.select(self.on_pair, [found, strictness], pair, **EACH_IN_ORDER)
        publish(gpu_for_files(self.group), "group", [files, rate], PRIVATE_GROUP)
