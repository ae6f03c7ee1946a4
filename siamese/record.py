"""The typed content of metrics.json: what a network was trained on and how well it does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from siamese.calibration import Calibration

ATT_NAME = "AT&T faces"  # `DataSource.name`
MIN_JUDGED = 4  # held-out identities; with fewer, cross-fitting is not possible
MAX_BINS = 1000
Identity = str | int  # a name or, after `Record.anonymise`, a number
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Distance = Annotated[float, Field(ge=0, le=1e12)]
T = TypeVar("T")


class Checked:
    """Base class of the dataclasses that `parse` reads: unknown keys and non-finite numbers are errors."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class DataSource(Checked):
    """A data set. `sha256` is the hash of names and pixels, if it was computed."""

    name: str
    images: int
    sha256: str | None = None


@dataclass(frozen=True)
class People(Checked):
    """The identities that a network was trained and tested on.

    Attributes:
        training: identities in the training set.
        test: held-out identities.
        pretraining: those that the initial weights were trained on; None if not all of them are known by name.
    """

    training: list[str] | list[int]
    test: list[str] | list[int]
    pretraining: list[str] | list[int] | None = field(default_factory=list)

    @property
    def anonymous(self) -> bool:
        """Whether numbers replace the names, see `Record.anonymise`."""
        return any(isinstance(person, int) for person in self.training)

    @property
    def seen(self) -> list[str] | None:
        """All identities in training and pretraining; None if not all of them are known by name."""
        if self.anonymous or self.pretraining is None:
            return None
        return [str(name) for name in (*self.training, *self.pretraining)]


@dataclass(frozen=True)
class Settings(Checked):
    """The training settings that determine the result.

    `init` are the weights to start from, or timm/NAME. `turned` says that a turned image shows another class.
    `image_size` and `embedding_dim` are 0 if the network's own are used.
    """

    recipe: str
    epochs: int
    batch_size: int
    lr: float
    margin: float
    seed: int
    flip: bool = False
    init: str = ""
    align: Literal["faces", "none"] = "none"
    turned: bool = False
    image_size: int = 0
    embedding_dim: int = 0


@dataclass(frozen=True)
class Report(Checked):
    """Metrics of one set of pairs. Rates are in [0, 1].

    Attributes:
        auc: area under the ROC curve.
        eer: equal error rate.
        tmr_at_fmr_1e_2: true-match rate (TMR) at a false-match rate (FMR) of 1 in 100.
        tmr_at_fmr_1e_3: TMR at an FMR of 1 in 1,000.
        balanced_accuracy: mean of the accuracies on genuine and on impostor pairs at P(same) = 0.5, which was fitted
            without the two identities of a pair; None if there were too few others to fit it to.
        calibration_error: expected calibration error of the same P(same), with genuine and impostor pairs weighted
            equally; None in the same cases.
        mean_genuine: mean distance of genuine pairs.
        mean_impostor: mean distance of impostor pairs.
        genuine: number of genuine pairs.
        impostor: number of impostor pairs.
        accuracy: at the best threshold of the other folds; only in LFW's protocol.
    """

    auc: Share
    eer: Share
    tmr_at_fmr_1e_2: Share
    tmr_at_fmr_1e_3: Share
    balanced_accuracy: Share | None
    calibration_error: Share | None
    mean_genuine: Distance
    mean_impostor: Distance
    genuine: Count
    impostor: Count
    accuracy: Share | None = None


@dataclass(frozen=True)
class Folds(Checked):
    """Cross-validation over identities.

    Attributes:
        each: one report per fold.
        pooled: of the pairs of all folds together.
        before: of the same pairs with the initial weights; None if training started from scratch.
    """

    each: list[Report]
    pooled: Report
    before: Report | None = None


@dataclass(frozen=True)
class Curves(Checked):
    """Histograms of the distances of test pairs, and a reliability diagram.

    Attributes:
        width: of a bin, in units of distance; the first bin starts at 0.
        genuine: number of genuine pairs per bin.
        impostor: number of impostor pairs per bin.
        reliability: per bin of P(same): share of pairs, mean predicted probability, observed probability; empty if
            P(same) is not known, see `Report.balanced_accuracy`.
    """

    width: Annotated[float, Field(ge=1e-12, le=1e12)]
    genuine: Annotated[list[Count], Field(max_length=MAX_BINS)]
    impostor: Annotated[list[Count], Field(max_length=MAX_BINS)]
    reliability: Annotated[list[tuple[Share, Share, Share]], Field(max_length=MAX_BINS)]

    def __post_init__(self) -> None:
        if not (sum(self.genuine) and sum(self.impostor)):
            raise ValueError("there must be genuine and impostor pairs")
        if len(self.genuine) != len(self.impostor):
            raise ValueError("genuine and impostor must have the same number of bins")


@dataclass(frozen=True)
class Confusion(Checked):
    """Two identities that the network confuses: the share of their impostor pairs up to the threshold, in [0, 1]."""

    first: Identity
    second: Identity
    share: Share
    pairs: Count


@dataclass(frozen=True)
class Plane(Checked):
    """Two-dimensional embeddings to draw: (person, x, y), with the index into `People.training` or `People.test`."""

    training: list[tuple[int, float, float]]
    test: list[tuple[int, float, float]]


@dataclass(frozen=True)
class LossCurve(Checked):
    """The training loss, recorded once per `every_batches` batches."""

    every_batches: int
    values: list[float]


@dataclass(frozen=True)
class Source(Checked):
    """The published file that the weights were converted or imported from.

    Attributes:
        package: where it was published: a package with its version, or an address; empty if it was not stated.
        file: its name.
        sha256: its hash.
        license: an identifier such as "apache-2.0"; empty if it was not stated.
        training_data: what the network was trained on; empty if it was not stated.
        credit: who made the network; empty if it was not stated.
        limitations: where it fails; empty if it was not stated.
    """

    package: str
    file: str
    sha256: str
    license: str = ""
    training_data: str = ""
    credit: str = ""
    limitations: str = ""


@dataclass(frozen=True)
class LfwProtocol(Checked):
    """Results of LFW's View 2 protocol (Huang et al., 2007) in addition to the metrics of its pairs.

    Attributes:
        accuracy: mean over the folds, each at the best threshold of the other folds.
        accuracy_std: standard deviation over the folds.
        images: number of photos.
        without_face: number of photos in which no face was found.
        impostor_pairs: number of impostor pairs that the operating points were measured on.
        default_fmr: share of these impostor pairs with the default verdict "same".
        default_fnmr: share of genuine pairs without it, of those in which both faces were found.
        unsure: share of the protocol's pairs with the verdict "unsure", likewise.
        closest_impostors: two photos and their distance; the closest pairs come first.
    """

    accuracy: Share
    accuracy_std: Share
    images: Count
    without_face: Count
    impostor_pairs: Count = 0
    default_fmr: Share = 0.0
    default_fnmr: Share = 0.0
    unsure: Share = 0.0
    closest_impostors: list[tuple[str, str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class DifficultPairs(Checked):
    """How often the default verdict is wrong on pairs that are harder than those of LFW. Rates are in [0, 1].

    Attributes:
        children_fmr: share of two different children with the verdict "same", in LAG (Bianco, "Large Age-Gap Face
            Verification by Feature Injection in Deep Networks", 2017).
        family_fmr: share of two members of one family with the verdict "same", in FIW (Robinson et al., "Families in
            the Wild", 2016).
        child_adult_fnmr: share of a child and the same person as an adult without the verdict "same", in LAG.
    """

    children_fmr: Share
    family_fmr: Share
    child_adult_fnmr: Share


@dataclass(frozen=True)
class Record(Checked):
    """What metrics.json holds.

    Attributes:
        data: the data set that the network was trained on; for converted weights the one it was tested on.
        people: the identities in it.
        test: metrics on held-out identities.
        curves: of the same pairs; for LFW the histogram is of all impostor pairs.
        test_calibration: behind the probabilities in `test`, and not fitted on held-out identities; None if these are
            cross-fitted: `MIN_JUDGED` or more held-out identities, each pair judged by a calibration of the others.
        settings: training settings; None for converted and imported weights.
        folds: cross-validation; None if there was none.
        before: metrics of the initial weights on the held-out identities, with their own calibration or, if they have
            none, cross-fitted; None if training started from scratch.
        unchanged: whether training left the initial weights as they were, because nothing helped other identities.
        confused: the identities that are confused most, worst first.
        loss: None for converted weights.
        validation_eer: equal error rate on the validation identities after each epoch.
        device: name of the device used for training.
        minutes: training time of the network itself, without the folds.
        versions: of Python, PyTorch and this package.
        source: where converted or imported weights come from, also if they were trained further; else None.
        lfw: results of LFW's protocol; None if it was not run.
        att: metrics of all pairs of the AT&T faces, for a network that was not trained on them; None if not measured.
        difficult_pairs: of children and relatives; None if they were not measured.
        plane: embeddings of the people, for a network with two-dimensional output; else None.
    """

    data: DataSource
    people: People
    test: Report
    curves: Curves
    test_calibration: Calibration | None = None
    settings: Settings | None = None
    folds: Folds | None = None
    before: Report | None = None
    unchanged: bool = False
    confused: list[Confusion] = field(default_factory=list)
    loss: LossCurve | None = None
    validation_eer: list[Share] = field(default_factory=list)
    device: str = ""
    minutes: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    source: Source | None = None
    lfw: LfwProtocol | None = None
    att: Report | None = None
    difficult_pairs: DifficultPairs | None = None
    plane: Plane | None = None

    @property
    def identities(self) -> str:
        """What the identities of a trained network are called: "people" or "classes"."""
        is_people = self.data.name == ATT_NAME or (self.settings is not None and self.settings.align == "faces")
        return "people" if is_people else "classes"

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Parse the content of a metrics.json. Raises a ValueError that names the key that is wrong."""
        return parse(cls, text)

    def to_json(self) -> str:
        """Return the content of a metrics.json."""
        return _adapter(Record).dump_json(self, indent=1, exclude_defaults=True).decode() + "\n"

    def anonymise(self, init: str) -> Record:
        """Remove names of identities and local paths, which must not be published.

        Each identity becomes its index in the sorted list of all names, so that somebody with the same data can still
        tell which identities were used for training. Pretraining identities that are not in that list are dropped. The
        path of the initial weights becomes `init`.
        """
        settings = self.settings and replace(self.settings, init=init)
        if self.people.anonymous:
            return replace(self, settings=settings)
        index = {name: number for number, name in enumerate(sorted([*self.people.training, *self.people.test]))}
        pretraining = self.people.pretraining
        people = People(
            training=[index[name] for name in self.people.training],
            test=[index[name] for name in self.people.test],
            pretraining=None if pretraining is None else [index[name] for name in pretraining if name in index],
        )
        confused = [replace(row, first=index[row.first], second=index[row.second]) for row in self.confused]
        return replace(self, people=people, confused=confused, settings=settings)


def parse(kind: type[T], text: str | bytes) -> T:
    """Parse JSON into a dataclass. Raises a ValueError that names the first key that is missing, unknown or wrong."""
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{key}: {first['msg']}" if key else first["msg"]) from None


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)
