"""The Find tab: search several photos for the person of a portrait."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import gradio as gr

from siamese import images, wording
from siamese.comparison import verdict_of
from siamese.model import Model
from siamese.page import widgets
from siamese.page.uploads import Upload
from siamese.search.embedding import PhotoCollection, Progress
from siamese.search.find import Match, Matches, find
from siamese.wording import Vocabulary


class FindTab:
    """The tab and its functions. An example is a caption with a portrait and photos to search."""

    def __init__(self, model: Model, words: Vocabulary, example: Mapping[str, Sequence[Path]]):
        self.model, self.words, self.example = model, words, example

    def find(self, files: list[Upload] | None, portrait: Upload | None, false_match_rate: float | None = None) -> dict:
        """Find the person of a portrait among the faces in up to 40 photos.

        Args:
            files: the photos to search.
            portrait: a photo of the person; its main face is searched for.
            false_match_rate: expected number of false matches among all faces, at most; empty for the default, 0.01.

        Returns:
            ranked (the closest face first; for each its photo, its number in the photo from 1, its box and quality, its
            dissimilarity from the portrait, the probability that it is this person, and whether it is a match), faces
            (how many were searched), threshold (the largest dissimilarity of a match between good faces), fmr,
            warnings.
        """
        if not portrait or not files:
            raise ValueError(f"The {'photos are' if portrait else 'portrait is'} missing")
        return self.search(files, portrait, false_match_rate).to_dict()

    def search(
        self, files: Sequence[Upload], portrait: Upload, fmr: float | None, progress: Progress = lambda *_: None
    ) -> Matches:
        """Search all faces of the photos."""
        photos = PhotoCollection(self.model, widgets.named(files), progress=progress)
        return find(portrait, photos, model=self.model, fmr=fmr, limit=max(len(photos), 1))

    def on_change(
        self,
        files: list[Upload] | None,
        portrait: Upload | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple]:
        """Search the photos for the person of the portrait."""
        drawn = widgets.thumbnails(files or [])
        if not portrait or not files:
            yield self.hint(portrait, files), drawn
            return
        yield widgets.message("Searching…", "comparing"), drawn
        try:
            found = self.search(files, portrait, None, widgets.report(progress))
            yield answer(found, self.words), photos(found, dict(widgets.named(files)))
        except (FileNotFoundError, ValueError) as error:
            yield widgets.explanation(error), "" if isinstance(error, FileNotFoundError) else drawn

    def hint(self, portrait: Upload | None, files: list[Upload] | None) -> str:
        """Say what is missing."""
        photos = "the photos to search"
        return widgets.message(f"Add {photos if portrait else 'a portrait' if files else f'a portrait, and {photos}'}.")

    def draw(self, rate: gr.Number) -> None:
        """Draw the tab, and connect its functions. Only the API uses `rate`, a false-match rate."""
        with gr.Row():
            portrait, files = widgets.photo_input("Portrait"), widgets.photos_input("Photos to search")
        example = widgets.example_buttons(self.example, "chooseGroupExample") if self.example else None
        best = gr.HTML(self.hint(None, None), js_on_load="announceAnswers(element)")
        boxes = gr.HTML()
        search = widgets.gpu_for_files(self.on_change), [files, portrait], [best, boxes]
        settings = widgets.PRIVATE_GROUP | {"show_progress_on": best, "trigger_mode": "always_last"}
        # Not their changes: an example changes both, which would search twice.
        given = [portrait.input, portrait.clear, files.upload, files.delete, files.clear]
        gr.on(given, *search, **settings)
        if example:
            ((first, *others),) = (map(str, photos) for photos in self.example.values())
            added = example.select(lambda: (first, others), None, [portrait, files], queue=False, **widgets.QUIET)
            added.then(*search, **settings)
        widgets.publish(widgets.gpu_for_files(self.find), "find", [files, portrait, rate], widgets.PRIVATE_GROUP)


def answer(found: Matches, words: wording.Vocabulary) -> str:
    """Draw the closest face next to the portrait, or say that there is none."""
    if not found.ranked:
        return widgets.message(" ".join((f"The photos show no {words.item}.", *found.warnings)), "no face")
    best = found.ranked[0]
    state = verdict_of(best.match, best.probability)
    return widgets.card(
        state,
        [
            (found.portraits[0].crop, f"The {words.item} of the portrait"),
            (best.face.crop, f"The most likely {words.item}"),
        ],
        wording.FOUND[state],
        f"<p>The most likely {words.item} is in {escape(best.photo)}: "
        f"<b>{wording.percent(best.probability)}</b> likely {words.same}.</p>",
        widgets.problems(found.warnings),
    )


def photos(found: Matches, uploads: Mapping[str, Upload]) -> str:
    """Draw the photos with a box and a likelihood for each face, the photo with the closest face first."""
    order = dict.fromkeys(face.photo for face in found.ranked)
    return f'<div class="searched">{"".join(_photo(found, name, uploads[name]) for name in order)}</div>'


def _photo(found: Matches, name: str, file: Upload) -> str:
    image, reduced = images.read_reduced(file, widgets.PREVIEW_PIXELS)
    faces = [face for face in found.ranked if face.photo == name]
    boxes = "".join(
        f'<span class="box {verdict_of(face.match, face.probability)} {"best" if face is found.ranked[0] else ""}" '
        f'style="{place}"><span>{escape(_likelihood(face))}</span></span>'
        for face in reversed(faces)  # the closest one on top
        if (place := widgets.place_box(face.box, image, reduced))
    )
    alt = ", ".join(f"{found.words.item} {face.number}: {_likelihood(face)}" for face in faces)
    drawn = widgets.img(image, f"{name} with the likelihood of each {found.words.item}; {alt}", "JPEG")
    return widgets.figure(f'<div class="photo">{drawn}{boxes}</div>', name)


def _likelihood(face: Match) -> str:
    """Return a probability that fits above a box."""
    return wording.percent(face.probability, under="<", over=">")
