"""Train both recipes on AT&T, each with three seeds and five folds of people.

    python benchmarks/recipes.py --json benchmarks/results/recipes.json

It runs `siamese train --data att --folds 5` with the default settings, and with `--recipe modern --flip`. It takes an
hour on two CPU cores. The run of the tutorial recipe with seed 0 is `weights/att`.
"""

import json
import tempfile
from pathlib import Path

import common

from siamese.training.run import train

RECIPES = {"tutorial": {}, "modern": {"flip": True}}
SEEDS = range(3)
KEPT = ("settings", "test", "folds")  # of metrics.json


def main() -> None:
    args = common.parser(__doc__).parse_args()
    result: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe, options in RECIPES.items():
            result[recipe] = []
            for seed in SEEDS:
                out = Path(folder, f"{recipe}-{seed}")
                record = train("att", out, recipe=recipe, seed=seed, folds=5, **options).record
                metrics = json.loads(record.to_json())
                result[recipe].append({name: metrics[name] for name in KEPT})
    errors = {recipe: [run["folds"]["pooled"]["eer"] for run in runs] for recipe, runs in result.items()}
    fewer = all(modern <= 0.4 * tutorial for modern, tutorial in zip(errors["modern"], errors["tutorial"], strict=True))
    common.finish(result, args.json, {"the modern recipe has at most 40% of the errors of the tutorial": fewer})


if __name__ == "__main__":
    main()
