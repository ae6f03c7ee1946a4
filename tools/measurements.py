"""Read the measurements for make_docs.py."""

import json
from dataclasses import replace
from pathlib import Path

from siamese.record import DifficultPairs, Record

ROOT = Path(__file__).parent.parent
FACES = ROOT / "weights" / "faces"


def results(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def faces() -> Record:
    """Return the record of the face network, with the latest rates of difficult pairs."""
    ages, relatives = results("ages"), results("relatives")
    difficult = DifficultPairs(
        children_fmr=round(ages["impostor"]["child_child"]["fmr"]["default"], 4),
        family_fmr=round(relatives["impostor"]["one_family"]["fmr"]["default"], 4),
        child_adult_fnmr=round(ages["genuine"]["child_adult"]["fnmr"]["default"], 4),
    )
    return replace(Record.from_json((FACES / "metrics.json").read_bytes()), difficult_pairs=difficult)
