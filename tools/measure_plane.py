"""Measure the embeddings of the AT&T faces by weights/att, and write its metrics.json, map.png and README.md.

    python tools/measure_plane.py

`siamese train` does the same for new networks. The AT&T faces are found as by `siamese train --data att`.
"""

from dataclasses import replace
from pathlib import Path

from siamese.checkpoint import load
from siamese.data.dataset import load_dataset
from siamese.evaluation import plots
from siamese.evaluation.pairs import measure_plane
from siamese.hub.card import model_card

FOLDER = Path(__file__).parent.parent / "weights" / "att"


def main() -> None:
    model = load(FOLDER, device="cpu")
    dataset = load_dataset("att", model.network.input_shape)
    if dataset.fingerprint() != model.record.data.sha256:
        raise SystemExit("error: these are not the images that weights/att was trained on")
    record = replace(model.record, plane=measure_plane(model.network, *dataset.split()))
    assert record.plane, "weights/att has two-dimensional embeddings"
    (FOLDER / "metrics.json").write_text(record.to_json(), "utf-8")
    (FOLDER / "README.md").write_text(model_card(record, "weights/att"), "utf-8")
    plots.plane(record.plane, FOLDER / "map.png")


if __name__ == "__main__":
    main()
