"""Write the measured numbers into README.md, docs/*.md and the model cards of weights/faces and weights/images.

    python tools/make_docs.py

The table between `<!-- results:NAME -->` and `<!-- /results -->` is replaced by the table NAME of tables.jinja, and the
number between `<!-- n:NAME -->` and `<!-- /n -->` by its number NAME. All sentences are written by people, in the
documents. The page and the model card also run where there is no benchmarks/results, so the numbers that they need are
written into weights/faces/metrics.json.
"""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

from huggingface_hub import ModelCard
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from siamese.hub.card import metrics_table
from siamese.record import DifficultPairs, Record

ROOT = Path(__file__).parent.parent
FACES, IMAGES = ROOT / "weights" / "faces", ROOT / "weights" / "images"
TABLE = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)
NUMBER = re.compile(r"(<!-- n:(\w+) -->).*?(<!-- /n -->)")


def main() -> None:
    for file, text in contents().items():
        file.write_text(text, "utf-8")


def contents() -> dict[Path, str]:
    """Return the new text of each file.

    Raises:
        KeyError: if a table or a number has an unknown name.
    """
    record, card = faces(), FACES / "README.md"
    tables = fill_tables(record)
    numbers = dict(line.split(": ", 1) for line in tables["numbers"].splitlines())

    def render(text: str) -> str:
        text = TABLE.sub(lambda match: f"{match[1]}{tables[match[2]]}\n{match[3]}", text)
        return NUMBER.sub(lambda match: f"{match[1]}{numbers[match[2]]}{match[3]}", text)

    files = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), card, IMAGES / "README.md")
    texts = {file: render(file.read_text("utf-8")) for file in files}
    return {**texts, card: with_front_matter(texts[card], record), FACES / "metrics.json": record.to_json()}


def results(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def faces() -> Record:
    """Return the record of the face network, with the latest rates of difficult pairs."""
    ages, relatives = results("ages"), results("relatives")
    difficult = DifficultPairs(
        children_fmr=round(ages["impostor"]["child_child"]["fmr"], 4),
        family_fmr=round(relatives["impostor"]["one_family"]["fmr"], 4),
        child_adult_fnmr=round(ages["genuine"]["child_adult"]["fnmr"], 4),
    )
    return replace(Record.from_json((FACES / "metrics.json").read_bytes()), difficult_pairs=difficult)


def fill_tables(record: Record) -> dict[str, str]:
    """Return the tables of tables.jinja by their names, and the lines of `numbers`."""
    environment = Environment(
        loader=FileSystemLoader(ROOT / "tools"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"f": format, "one_in": one_in, "small": small}
    measured = {file.stem: results(file.stem) for file in (ROOT / "benchmarks" / "results").glob("*.json")}
    ours, peer = measured["search"]["group"]["siamese"], measured["search"]["group"]["face_recognition"]
    best = max(peer, key=lambda threshold: peer[threshold]["f"])
    text = environment.get_template("tables.jinja").render(
        **measured,
        faces=record,
        images=Record.from_json((IMAGES / "metrics.json").read_bytes()),
        systems={
            "siamese": {"pooled": asdict(record.folds.pooled), **asdict(record.lfw)},
            **measured["peers"]["systems"],
        },
        calibration=record.test_calibration,
        group_systems={
            **{f"siamese, `--fmr {rate}`": scores for rate, scores in ours.items()},
            "face_recognition and Chinese whispers at 0.5": peer["0.5"],
            f"the same at its best threshold, {best}": peer[best],
        },
        metrics_table=metrics_table,
    )
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: table.strip() for name, table in zip(parts[::2], parts[1::2], strict=True)}


def one_in(rate: float | str) -> str:
    """Return a rate as "1 in 510", to two digits; "default" as it is."""
    return rate if rate == "default" else f"1 in {float(f'{1 / float(rate):.2g}'):,.0f}"


def small(rate: float) -> str:
    """Return a rate in percent, with one digit after the point, or one digit if it is below 0.1%."""
    return f"{rate:.1%}" if rate >= 0.001 else f"{100 * rate:.1g}%"


def with_front_matter(text: str, record: Record) -> str:
    """Return the card of the face network with the results in its front matter, which the Hub displays."""
    card = ModelCard(text)
    for result, value in zip(card.data.eval_results, (record.test.auc, record.test.eer), strict=True):
        result.metric_value = round(value, 4)
    return str(card)


if __name__ == "__main__":
    main()
