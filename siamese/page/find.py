"""The Find tab: search several photos for the person of a portrait."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from siamese import images, wording
from siamese.comparison import verdict_of
from siamese.faces.detection import MAX_PHOTO_SIDE
from siamese.model import Model
from siamese.page import widgets
from siamese.page.uploads import ReadPhoto, Upload, read_together
from siamese.search.find import Match, Matches, find
from siamese.wording import FACES, Vocabulary, counted


class FindTab:
    """The tab and its functions. An example is a caption with a portrait and photos to search."""

    def __init__(self, model: Model, words: Vocabulary, examples: Sequence[tuple[str, Sequence[Path]]]):
        self.model, self.words, self.examples = model, words, examples

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
        self,
        files: Sequence[Upload],
        portrait: images.ImageSource,
        fmr: float | None = None,
        face: int | None = None,
        progress: gr.Progress | None = None,
    ) -> Matches:
        """Search all faces of the photos for a face of the portrait."""
        photos = widgets.read_photos(self.model, widgets.named(files, self.words, "find"), progress)
        return find(portrait, photos, model=self.model, face=face, fmr=fmr, limit=max(len(photos), 1))

    def on_change(
        self,
        files: list[Upload] | None,
        portrait: Upload | None,
        face: float | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple]:
        """Check the portrait, and search the photos for its person, or for the face that was chosen, from 1."""
        drawn, number = widgets.thumbnails(files or []), int(face or 1)
        yield self.hint(portrait, files) if not portrait else widgets.WAITING, "", drawn, ""
        if not portrait:
            return
        try:
            (photo,) = read_together([portrait], MAX_PHOTO_SIDE if self.words is FACES else None)
            yield gr.skip(), self.choice(photo, number), gr.skip(), gr.skip()
            if files:
                found = self.search(files, photo, face=number, progress=progress)
                uploads = dict(widgets.named(files, self.words, "find"))
                yield answer(found, self.words), gr.skip(), gr.skip(), photos(found, uploads)
            else:
                yield self.hint(portrait, files), gr.skip(), gr.skip(), gr.skip()
        except (FileNotFoundError, ValueError) as error:
            yield widgets.explanation(error), "", gr.skip(), ""

    def choice(self, portrait: ReadPhoto, number: int) -> str:
        """Draw the faces of the portrait as buttons, if it shows several.

        Raises:
            ValueError: if it shows no face.
        """
        (faces,) = self.model.detect([portrait])
        if not faces:
            raise ValueError(wording.NO_FACE.format(self.words.portrait))
        if len(faces) == 1:
            return ""
        drawn = widgets.faces_to_choose(
            *portrait.read_reduced(widgets.PREVIEW_PIXELS), faces, 0, number, f"the {self.words.portrait}"
        )
        sentence = f"Face {number} is searched for. To change that, click another face."
        return f'<div class="seen"><p>{sentence}</p><div class="group-photos">{drawn}</div></div>'

    def hint(self, portrait: Upload | None, files: list[Upload] | None) -> str:
        """Say what is missing."""
        wanted = [] if portrait else [f"a {self.words.portrait}"]
        wanted += [] if files else [f"the {self.words.photo}s to search"]
        return widgets.message(f"Add {wording.listed(wanted)}.")

    def draw(self, rate: gr.Number) -> None:
        """Draw the tab, and connect its functions. Only the API uses `rate`, a false-match rate."""
        words = self.words
        many = f"{widgets.MAX_PHOTOS} {words.photo}s to search"
        widgets.heading(f"Find one {words.one} in many {words.photo}s", f"Add a {words.portrait} and up to {many}.")
        with gr.Row():
            portrait = widgets.photo_input(words.portrait.capitalize(), words)
            with gr.Column():
                files = widgets.photos_input(f"{words.photo.capitalize()}s to search")
                drawn = gr.HTML(js_on_load="removePhotos(element)")
        example = widgets.example_buttons(self.examples) if self.examples else None
        chooser = gr.HTML(js_on_load="choosePortraitFace(element, trigger, watch)")
        best = gr.HTML(self.hint(None, None), js_on_load="announceAnswers(element, watch)", elem_classes="progress")
        found = gr.HTML()
        face = gr.Number(visible=False, label="Face of the portrait")
        settings: dict[str, Any] = widgets.PRIVATE_GROUP | {"show_progress_on": best, "trigger_mode": "always_last"}
        # Not their changes: an example changes both, which would search twice.
        given = [portrait.input, portrait.clear, files.upload, files.delete, files.clear, chooser.select]
        search, shown = widgets.gpu_for_files(self.on_change), [best, chooser, drawn, found]
        gr.on(given, search, [files, portrait, face], shown, js="search", **settings)
        if example:
            filled = example.select(None, None, [portrait, files], js="() => [example[0], example.slice(1)]")
            filled.then(None, js="() => askFind()")
        widgets.publish(widgets.gpu_for_files(self.find), "find", [files, portrait, rate], widgets.PRIVATE_GROUP)


def answer(found: Matches, words: Vocabulary) -> str:
    """Draw the closest face next to the portrait, and say in how many photos the person is."""
    if not found.ranked:
        return widgets.message(" ".join((f"The {words.photo}s show no {words.item}.", *found.warnings)), "no face")
    best, matches = found.ranked[0], {face.photo for face in found.matches}
    state = "same" if matches else verdict_of(False, best.probability)
    chance = wording.percent(best.probability)
    if matches:
        searched = counted(len({face.photo for face in found.ranked}), words.photo)
        verdict = f"Found in {len(matches)} of {searched}"
        where = f"match up to {found.threshold:.2f} · best: {best.photo}, {chance} likely"
    else:
        verdict = "Perhaps found" if state == "unsure" else "Not found"
        where = f"the closest {words.item}, in {best.photo}: {chance} likely {words.same}"
    return widgets.card(
        state,
        [
            (found.portraits[0].crop, f"The {words.item} of the {words.portrait}"),
            (best.face.crop, f"The most likely {words.item}"),
        ],
        verdict,
        f'<p class="numbers">Dissimilarity <b>{best.dissimilarity:.2f}</b> · {escape(where)}</p>',
        widgets.problems(found.warnings),
    )


def photos(found: Matches, uploads: Mapping[str, Upload]) -> str:
    """Draw the photos with a box for each face: the matches, or the best one without a match, and the others folded."""
    order = list(dict.fromkeys(face.photo for face in found.ranked))
    shown = max(len({face.photo for face in found.matches}), 1)
    order.sort(key=lambda name: not any(face.photo == name for face in found.matches))  # stable
    figures = [_photo(found, name, uploads[name]) for name in order]
    others = counted(len(figures) - shown, f"other {found.words.photo}")
    folded = f'<details><summary>{others}</summary><div class="searched">{"".join(figures[shown:])}</div></details>'
    return f'<div class="searched">{"".join(figures[:shown])}</div>{folded if figures[shown:] else ""}'


def _photo(found: Matches, name: str, file: Upload) -> str:
    image, reduced = images.read_reduced(file, widgets.PREVIEW_PIXELS // 2)
    faces = [face for face in found.ranked if face.photo == name]
    boxes = "".join(
        f'<span class="box {"match" if face.match else ""} {"best" if face is found.ranked[0] else ""}" '
        f'style="{place}" title="{_likelihood(face)}"></span>'
        for face in reversed(faces)  # the closest one on top
        if (place := widgets.place_box(face.box, image, reduced))
    )
    alt = ", ".join(f"{found.words.item} {face.number}: {_likelihood(face)}" for face in faces)
    drawn = widgets.img(image, f"{name} with the likelihood of each {found.words.item}; {alt}", "JPEG")
    state = "match" if any(face.match for face in faces) else ""
    return (
        f'<figure class="{state}"><div class="photo">{drawn}{boxes}</div><figcaption><b>{_likelihood(faces[0])}</b> '
        f"{escape(name)}</figcaption></figure>"
    )


def _likelihood(face: Match) -> str:
    """Return a probability that fits into a caption."""
    return wording.percent(face.probability, under="<", over=">")
