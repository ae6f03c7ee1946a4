"""The record of a network: what it was trained on and how well it does. This is what metrics.json holds."""

from __future__ import annotations

from dataclasses import field, replace
from functools import cache
from pathlib import PurePath
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from siamese.calibration import Calibration

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Identity = str | int  # a name or, after anonymisation, a number


@dataclass(frozen=True, config=STRICT)
class DataSource:
    """A data set.

    Attributes:
        name: for people to read.
        images: how many images it holds.
        sha256: of names and pixels, see `IdentityDataset.fingerprint`; None where it was not computed.
    """

    name: str
    images: int
    sha256: str | None = None


@dataclass(frozen=True, config=STRICT)
class People:
    """The identities that a network has seen, and those it was tested on.

    Attributes:
        training: the identities it was trained on.
        test: the identities held out.
        pretraining: the identities that the weights it started from were trained on; None if they are not all known
            by name.
    """

    training: list[str] | list[int]
    test: list[str] | list[int]
    pretraining: list[str] | list[int] | None = field(default_factory=list)

    @property
    def anonymous(self) -> bool:
        """Whether names were replaced by numbers, see `Record.anonymise`."""
        return any(isinstance(person, int) for person in self.training)

    @property
    def seen(self) -> list[str] | None:
        """All identities seen in training or pretraining; None if they are not all known by name."""
        if self.anonymous or self.pretraining is None:
            return None
        return [str(name) for name in (*self.training, *self.pretraining)]


@dataclass(frozen=True, config=STRICT)
class Settings:
    """The training settings that decide the result, see `TrainConfig`."""

    recipe: str
    epochs: int
    batch_size: int
    lr: float
    margin: float
    seed: int
    flip: bool = False
    init: str = ""
    align: Literal["faces", "none"] = "none"


@dataclass(frozen=True, config=STRICT)
class Report:
    """Metrics of one set of pairs, see `siamese.evaluation.metrics.report`. Rates are in [0, 1].

    Attributes:
        auc: area under the ROC curve.
        eer: equal error rate.
        tmr_at_fmr_1e_2: true-match rate at a false-match rate of 1 in 100.
        tmr_at_fmr_1e_3: true-match rate at a false-match rate of 1 in 1,000.
        balanced_accuracy: mean of the accuracies on genuine and on impostor pairs, at P(same) = 0.5.
        calibration_error: expected calibration error at even odds.
        mean_genuine: mean distance of genuine pairs.
        mean_impostor: mean distance of impostor pairs.
        genuine: number of genuine pairs.
        impostor: number of impostor pairs.
        accuracy: accuracy at the best threshold of the other folds; LFW's protocol only.
    """

    auc: float
    eer: float
    tmr_at_fmr_1e_2: float
    tmr_at_fmr_1e_3: float
    balanced_accuracy: float
    calibration_error: float
    mean_genuine: float
    mean_impostor: float
    genuine: int
    impostor: int
    accuracy: float | None = None


@dataclass(frozen=True, config=STRICT)
class Folds:
    """Cross-validation over identities.

    Attributes:
        each: one report per fold.
        pooled: of the pairs of all folds.
        before: of the same pairs with the weights that training started from.
    """

    each: list[Report]
    pooled: Report
    before: Report | None = None


@dataclass(frozen=True, config=STRICT)
class Curves:
    """Histograms of the distances of test pairs, and a reliability diagram.

    Attributes:
        width: of a bin, in units of distance; the first bin starts at 0.
        genuine: number of genuine pairs in each bin.
        impostor: number of impostor pairs in each bin.
        reliability: for each bin of P(same) the share of pairs, the mean predicted and the observed probability.
    """

    width: float
    genuine: list[int]
    impostor: list[int]
    reliability: list[tuple[float, float, float]]

    def __post_init__(self):
        if not (self.width > 0 and sum(self.genuine) and sum(self.impostor)):
            raise ValueError("curves need a positive width, genuine pairs and impostor pairs")
        if len(self.genuine) != len(self.impostor):
            raise ValueError("curves need as many genuine as impostor bins")


@dataclass(frozen=True, config=STRICT)
class Confusion:
    """Two identities that the network confuses.

    Attributes:
        first, second: the identities.
        share: of their impostor pairs that are at most the threshold apart, in [0, 1].
        pairs: how many impostor pairs they have.
    """

    first: Identity
    second: Identity
    share: float
    pairs: int


@dataclass(frozen=True, config=STRICT)
class LossCurve:
    """The training loss, once every `every_batches` batches."""

    every_batches: int
    values: list[float]


@dataclass(frozen=True, config=STRICT)
class Source:
    """The published file that converted weights were read from."""

    package: str
    file: str
    sha256: str


@dataclass(frozen=True, config=STRICT)
class LfwProtocol:
    """Results of LFW's standard protocol (View 2) beside the pairs' metrics.

    Attributes:
        accuracy: mean over the folds, each at the best threshold of the others.
        accuracy_std: standard deviation over the folds.
        images: number of photographs.
        without_face: number of photographs in which no face was found.
        impostor_pairs: number of impostor pairs that the operating points rest on.
        closest_impostors: two photographs and their distance, the closest pairs first.
    """

    accuracy: float
    accuracy_std: float
    images: int
    without_face: int
    impostor_pairs: int = 0
    closest_impostors: list[tuple[str, str, float]] = field(default_factory=list)


@dataclass(frozen=True, config=STRICT)
class Record:
    """What metrics.json holds.

    Attributes:
        data: the data set that the network was trained on, or for converted weights tested on.
        people: the identities in it.
        test: metrics on held-out identities.
        curves: of the same pairs; for LFW with all impostor pairs.
        test_calibration: the calibration behind `test`'s probabilities. It never saw the held-out identities.
        settings: the training settings; None for converted weights.
        folds: cross-validation; None if there was none.
        before: metrics on the held-out identities of the weights that training started from.
        confused: the identities confused most, worst first.
        loss: None for converted weights.
        validation_eer: equal error rate among the validation identities after each epoch.
        device: name of the device that the network was trained on.
        minutes: training time of the network itself.
        versions: of Python, PyTorch and this package.
        source: where converted weights come from; None for trained ones.
        lfw: results of LFW's protocol; None if it was not run.
    """

    data: DataSource
    people: People
    test: Report
    curves: Curves
    test_calibration: Calibration
    settings: Settings | None = None
    folds: Folds | None = None
    before: Report | None = None
    confused: list[Confusion] = field(default_factory=list)
    loss: LossCurve | None = None
    validation_eer: list[float] = field(default_factory=list)
    device: str = ""
    minutes: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    source: Source | None = None
    lfw: LfwProtocol | None = None

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Parse the content of a metrics.json.

        Raises:
            ValueError: if it is not JSON, or a key is missing, unknown or of the wrong type; the key is named.
        """
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"{key}: {first['msg']}" if key else first["msg"]) from None

    def to_json(self) -> str:
        """Return the content of a metrics.json."""
        return _adapter().dump_json(self, indent=1, exclude_defaults=True).decode() + "\n"

    def anonymise(self, is_public: bool) -> Record:
        """Replace what must not be published: names of identities and paths of this machine.

        Identities become numbers, their places in the sorted list of all names, so that a copy of the same data still
        tells who was trained on. Pretraining identities that are not in that list are left out.

        Args:
            is_public: whether the weights that training started from are named by an id on the Hub. A folder is
                reduced to its name.
        """
        place: dict[Identity, int] = {
            name: number for number, name in enumerate(sorted([*self.people.training, *self.people.test], key=str))
        }
        before = self.people.pretraining
        people = People(
            [place[name] for name in self.people.training],
            [place[name] for name in self.people.test],
            before if before is None else [place[name] for name in before if name in place],
        )
        confused = [replace(row, first=place[row.first], second=place[row.second]) for row in self.confused]
        settings = self.settings
        if settings and not is_public:
            settings = replace(settings, init=PurePath(settings.init).name)
        return replace(self, people=people, confused=confused, settings=settings)


@cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
