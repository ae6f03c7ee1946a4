"""The Group tab: group the faces of several photos by person."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import gradio as gr
import numpy as np
from PIL import Image

from siamese import wording
from siamese.comparison import compare_faces
from siamese.images import data_uri
from siamese.model import Model
from siamese.page import widgets
from siamese.page.server import PERIOD, write_archive
from siamese.page.uploads import Upload
from siamese.search.embedding import FoundFace, PhotoCollection
from siamese.search.output import write_csv
from siamese.search.people import People, group
from siamese.wording import Vocabulary, counted

MAX_GROUPED_FACES = 200
TILE_PIXELS = 84  # faces of a group


class Kept(NamedTuple):
    """What a session keeps, so that another strictness needs no GPU."""

    files: list[Upload]
    found: PhotoCollection | None  # None while they are read


class GroupTab:
    """The tab and its functions. An example is a caption with photos."""

    def __init__(self, model: Model, words: Vocabulary, examples: Sequence[tuple[str, Sequence[Path]]]):
        self.model, self.words, self.examples = model, words, examples

    def group(self, files: list[Upload] | None, false_match_rate: float | None = None) -> dict:
        """Find the faces in up to 40 photos, and group them by person.

        Args:
            files: the photos.
            false_match_rate: expected number of false matches of a face, at most; empty for the default.

        Returns:
            people (for each person their faces, each with its photo, number, box and quality), left_over (faces that
            are too poor to group), dissimilarities (of each pair of faces in this order), threshold (the root mean
            square dissimilarity up to which groups of faces are merged), fmr, warnings.
        """
        if not files:
            raise ValueError("The photos are missing")
        named = widgets.named(files, self.words, "group")
        photos = widgets.read_photos(self.model, named, None, MAX_GROUPED_FACES)
        people = group(photos, model=self.model, fmr=false_match_rate)
        rows = [face.row for _, faces in groups_of(people, self.words) for face in faces]
        return people.to_dict() | {"dissimilarities": distances(photos.z[rows]).tolist()}

    def on_files(
        self,
        files: list[Upload] | None,
        fmr: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple]:
        """Draw new files, and read them. `show` then draws their faces."""
        files = files or []
        kept = Kept(files, None)
        shown = self.show(files, kept, fmr)
        yield widgets.thumbnails(files), kept, shown
        if shown == widgets.WAITING:
            photos = widgets.named(files, self.words, "group")
            found = widgets.read_photos(self.model, photos, progress, MAX_GROUPED_FACES)
            yield gr.skip(), Kept(files, found), gr.skip()

    def show(self, files: list[Upload] | None, kept: Kept | None, fmr: float) -> str:
        """Draw the faces by person, or say what is missing."""
        if not files:
            return widgets.message(f"Add up to {widgets.MAX_PHOTOS} {self.words.photo}s.")
        try:
            widgets.named(files, self.words, "group")
            if not kept:
                raise FileNotFoundError
        except (FileNotFoundError, ValueError) as error:
            return widgets.explanation(error)
        if kept.files != files or kept.found is None:
            return widgets.WAITING
        return draw_people(group(kept.found, model=self.model, fmr=fmr or None), kept.found, self.words)

    def on_pair(self, kept: Kept | None, fmr: float, first: int | None, second: int | None) -> str:
        """Compare the two faces that are chosen, given their rows."""
        found = kept and kept.found
        if not found or first is None or second is None or max(first, second) >= len(found):
            return ""
        chosen = [found.faces([row]) for row in (first, second)]
        faces = [face.face for (face,) in chosen]
        compared = compare_faces(
            self.model.calibration, (faces[:1], faces[1:]), (found.z[[first]], found.z[[second]]), fmr or None
        )
        chance = wording.describe_probability(compared.verdict, compared.probability, self.words)
        return widgets.card(
            compared.verdict,
            [(face.face.crop, f"{self.words.item.capitalize()} in {face.photo}") for (face,) in chosen],
            wording.describe_verdict(compared.verdict, compared.probability, compared.fmr, self.words),
            f'<p class="numbers">Dissimilarity <b>{compared.dissimilarity:.2f}</b> · {chance}</p>'
            '<button type="button" data-close aria-label="Close">×</button>',
        )

    def on_archive(self, kept: Kept | None, fmr: float, request: gr.Request) -> str:
        """Write the photos of each person into a ZIP archive, and return a link to it, which the page opens."""
        try:
            if not kept or not kept.found:
                raise FileNotFoundError
            people = group(kept.found, model=self.model, fmr=fmr or None)
            photos = archive(people, dict(widgets.named(kept.files, self.words, "group")), self.words)
            file = write_archive(photos, request.client.host)
        except (FileNotFoundError, ValueError) as error:
            raise gr.Error(f"{widgets.reason(error)}.", print_exception=False) from error
        return f'<a href="gradio_api/file={quote(str(file))}" download>Download</a>'

    def draw(self, rate: gr.Number) -> None:
        """Draw the tab, and connect its functions. Only the API uses `rate`, a false-match rate."""
        words = self.words
        sentence = f"{words.item.capitalize()}s that likely show {words.same} are put together."
        widgets.heading(f"Group {words.photo}s by {words.one}", sentence)
        files = widgets.photos_input(f"Up to {widgets.MAX_PHOTOS} {words.photo}s")
        if self.examples:
            widgets.example_buttons(self.examples).select(None, None, files, js="() => [example]")
        drawn = gr.HTML(js_on_load="removePhotos(element)")
        kept = gr.State(time_to_live=PERIOD)
        hint, script = self.show(None, None, 0), "announceAnswers(element, watch); onGroup(element, trigger, watch)"
        grouped = gr.HTML(hint, js_on_load=script, elem_classes="progress")
        pair = gr.HTML(elem_id="pair", js_on_load="announceAnswers(element)")
        link = gr.HTML(visible="hidden", js_on_load="watch('value', () => element.querySelector('a')?.click())")
        strictness = widgets.strictness_of_groups(self.model, words)
        settings = widgets.PRIVATE_GROUP | {"show_progress_on": grouped, "trigger_mode": "always_last"}
        read = widgets.gpu_for_files(self.on_files)
        new = files.change(read, [files, strictness], [drawn, kept, grouped], **settings)
        for changed in (new.then, strictness.change):
            changed(self.show, [files, kept, strictness], grouped, **widgets.QUIET)
        rows = [gr.Number(precision=0, minimum=0, visible=False) for _ in range(2)]
        latest = widgets.QUIET | {"js": "comparePair", "trigger_mode": "always_last"}
        grouped.select(self.on_pair, [kept, strictness, *rows], pair, **latest)
        grouped.download(self.on_archive, [kept, strictness], link, **widgets.ONE_AT_A_TIME)
        widgets.publish(widgets.gpu_for_files(self.group), "group", [files, rate], widgets.PRIVATE_GROUP)


def groups_of(people: People, words: Vocabulary) -> list[tuple[str, Sequence[FoundFace]]]:
    """Return the faces of each person with a title; the faces that are too poor to group come last."""
    groups: list[tuple[str, Sequence[FoundFace]]] = [
        (f"{words.group.capitalize()} {number}", faces) for number, faces in enumerate(people.people, 1)
    ]
    return [*groups, ("Too poor to group", people.left_over)] if people.left_over else groups


def distances(z: np.ndarray) -> np.ndarray:
    """Return the dissimilarity of each pair of embeddings, (N, N)."""
    return np.linalg.norm(z[:, None] - z, axis=-1)


def draw_people(people: People, photos: PhotoCollection, words: Vocabulary) -> str:
    """Draw the faces of each person, the dissimilarity of each pair of faces, and links to the numbers and photos."""
    if not len(photos):
        return widgets.message(" ".join(people.warnings), "problem")
    groups = groups_of(people, words)
    rows = "".join(
        f"""
  <h3>{title} ({counted(len(faces), words.item)})</h3>
  <div class="person">{"".join(_tile(face, words) for face in faces)}</div>"""
        for title, faces in groups
    )
    shown = [face for _, faces in groups for face in faces]
    apart = distances(photos.z[[face.row for face in shown]])
    count, photos_shown = counted(len(shown), words.item), len({face.photo for face in shown})
    found = count if words.item == words.photo else f"{count} · {counted(photos_shown, words.photo)}"
    return f"""
<div class="answer">
  <p class="verdict">{counted(len(people.people), words.group, words.groups)}</p>
  <p>{found}</p>
  {widgets.problems(people.warnings)}
</div>
<div class="people">
  <p>Click two {words.item}s to compare them.</p>{rows}
  {_downloads(groups, apart, words)}
  <h3>Dissimilarity of each pair of {words.item}s</h3>
  <p class="quiet">In the order above. A stronger color means more alike. Two groups are merged if the dissimilarity of
    their {words.item}s is at most {people.threshold:.2f} on average (root mean square).</p>
  <img class="matrix" src="{data_uri(matrix(shown, apart, people.threshold))}"
    alt="Matrix of the dissimilarities of {count}; the CSV file above contains its numbers">
</div>"""


def _label(face: FoundFace) -> str:
    """Return the name of the photo, with the number of the face if it is not the main one."""
    return f"{face.photo} {face.number}" if face.number > 1 else face.photo


def _tile(face: FoundFace, words: Vocabulary) -> str:
    assert face.face.crop, "the photos are in memory"
    crop = face.face.crop.resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.LANCZOS)
    drawn = widgets.img(crop, f"{words.item.capitalize()} in {_label(face)}")
    button = f'<button type="button" data-face="{face.row}" aria-pressed="false">{drawn}</button>'
    return widgets.figure(button, _label(face))


def _downloads(groups: Sequence[tuple[str, Sequence[FoundFace]]], apart: np.ndarray, words: Vocabulary) -> str:
    faces = [(title, _label(face)) for title, members in groups for face in members]
    rows = [[label, title, *(f"{x:.4f}" for x in row)] for (title, label), row in zip(faces, apart, strict=True)]
    table = write_csv([words.item, words.group, *(label for _, label in faces)], rows)
    csv = base64.b64encode(table.encode()).decode()
    return f"""
  <p class="downloads"><button type="button" data-zip>Download the {words.photo}s by {words.group} (ZIP)</button>
    <a download="dissimilarities.csv" href="data:text/csv;base64,{csv}">Download the dissimilarities (CSV)</a>
    <span class="quiet">In the archive, files of more than 4 MB are reduced.</span></p>"""


def archive(people: People, uploads: Mapping[str, Upload], words: Vocabulary) -> list[tuple[str, str]]:
    """Return the name in the archive and the path of each photo, once for each person that it shows."""
    names = dict.fromkeys((title.lower(), face.photo) for title, faces in groups_of(people, words) for face in faces)
    return [(f"{title}/{name}", uploads[name].path) for title, name in names]


def matrix(faces: Sequence[FoundFace], apart: np.ndarray, threshold: float) -> Image.Image:
    """Draw the dissimilarities of N faces, (N, N), as squares, with the faces along the top and left edges.

    The color is indigo for a dissimilarity of 0, pale at the threshold, and transparent at twice the threshold.
    """
    side = max(8, min(48, 840 // (len(faces) + 1)))
    similarity = (1 - apart / (2 * threshold)).clip(0, 1) ** 1.5
    cells = np.dstack([np.broadcast_to((79, 70, 229), (*apart.shape, 3)), 255 * similarity]).astype(np.uint8)
    drawn = Image.new("RGBA", (side * (len(faces) + 1),) * 2)
    drawn.paste(Image.fromarray(cells.repeat(side, 0).repeat(side, 1)), (side, side))
    for place, face in enumerate(faces, 1):
        assert face.face.crop, "the photos are in memory"
        tile = face.face.crop.convert("RGB").resize((side, side))
        drawn.paste(tile, (place * side, 0))
        drawn.paste(tile, (0, place * side))
    return drawn
