"""Words for a verdict, the same in Python, on the command line and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from siamese.calibration import VERDICT_PROBABILITY

VERY_LIKELY = 0.99

Verdict = Literal["same", "unsure", "different", "no face", "not read"]

PHOTOS = ("first", "second")
NOT_READ = "The {} photo was not read: {}."
NO_FACE = "No face was found in the {}. Use a photo in which the whole face is large and well lit."
NO_FACES_HINT = "To compare them as images of things, {}."
OTHER_CLASSES = (
    "Threshold and probability are those of the classes of the {}. For other things, train on your own images."
)
TOO_POOR = "At this strictness the answer cannot be the same, whatever the distance: the evidence is too weak."


@dataclass(frozen=True)
class Vocabulary:
    """Words for what a network compares: an item shows one of many, and similar items are a group of groups.

    A visitor brings photos of it, and a portrait to search for.
    """

    item: str
    one: str
    many: str
    group: str
    groups: str
    photo: str
    portrait: str

    @property
    def same(self) -> str:
        return f"the same {self.one}"

    @property
    def different(self) -> str:
        return f"different {self.many}"

    @property
    def a_photo(self) -> str:
        return f"{'an' if self.photo[0] in 'aeiou' else 'a'} {self.photo}"


FACES = Vocabulary("face", "person", "people", "person", "people", "photo", "portrait")
IMAGES = Vocabulary("image", "thing", "things", "group", "groups", "image", "sample image")


def describe_verdict(
    verdict: Verdict, probability: float, fmr: float | None, words: Vocabulary, strictness: str = ""
) -> str:
    """Return a verdict in words, given P(same) and the requested false-match rate, or its name such as "strict"."""
    if verdict == "no face":
        return "No face was found"
    if verdict == "unsure":
        if fmr and probability >= VERDICT_PROBABILITY:
            return f"Similar, but not enough for {strictness or f'a false-match rate of {one_in(fmr)}'}"
        return "Not sure"
    certainty = "Very likely" if max(probability, 1 - probability) >= VERY_LIKELY else "Probably"
    return f"{certainty} {words.same if verdict == 'same' else words.different}"


def describe_probability(verdict: Verdict, probability: float, words: Vocabulary) -> str:
    """Return how likely the verdict is, such as "over 99.9% likely the same person"."""
    likely = f"to be {words.different}" if verdict == "different" else words.same
    return f"{describe_chance(verdict, probability)} likely {likely}"


def describe_chance(verdict: Verdict, probability: float) -> str:
    """Return the probability of the verdict, given P(same), such as "over 99.9%"."""
    return percent(1 - probability if verdict == "different" else probability)


def describe_faces(numbers: tuple[int, int], found: tuple[int, int]) -> str:
    """Say which faces were compared, such as "face 2 of 5 in the first photo"; empty for the only faces."""
    return " and ".join(
        f"face {number} of {count} in the {photo} photo"
        for number, count, photo in zip(numbers, found, PHOTOS, strict=True)
        if count > 1
    )


def percent(probability: float, under: str = "under ", over: str = "over ") -> str:
    """Return a percentage that is never 0% or 100%."""
    if probability < 0.001:
        return f"{under}0.1%"
    return f"{over}99.9%" if probability > 0.999 else f"{probability:.1%}"


def one_in(rate: float) -> str:
    """Return a rate such as "1 in 1,000"."""
    return f"1 in {round(1 / rate):,}"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number of things, such as "1 face" or "1,200 faces"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(items: Sequence[object]) -> str:
    """Join items: "1", "1 and 2", "1, 2 and 3"."""
    *others, last = map(str, items)
    return f"{', '.join(others)} and {last}" if others else last
