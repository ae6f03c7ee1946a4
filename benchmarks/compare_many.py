"""How much faster `Model.compare_many` is than `compare`, and whether both give the same verdicts.

    python benchmarks/compare_many.py --data DIR --json benchmarks/results/compare_many.json

DIR holds LFW, see `siamese.data.lfw.Lfw`. `compare_many` gets all 6,000 pairs of View 2 in one call, and then one photo
against 500 others. `compare` gets a random sample of these pairs, one half before and one half after `compare_many`,
with as many threads as there are cores. All photos are in memory. Takes half an hour on two CPU cores.
"""

import os
import random
import time
from collections.abc import Callable

import common
import torch

import siamese
from siamese import Comparison
from siamese.data.lfw import Lfw

SAMPLE = 300  # pairs for `compare`
OTHERS, OTHERS_SAMPLE = 500, 50  # photos that one is compared with


def measure(do: Callable[[], list[Comparison]]) -> tuple[dict[str, float], list[Comparison]]:
    """Return the time per pair, and the answers."""
    cpu, (seconds, answers) = -time.process_time(), common.timed(do)
    cpu += time.process_time()
    return {"milliseconds": 1e3 * seconds / len(answers), "cpu_milliseconds": 1e3 * cpu / len(answers)}, answers


def compare_both(model: siamese.Model, pairs: list[tuple[bytes, bytes]], sample: int) -> dict:
    """Time `compare_many` on all pairs and `compare` on a random sample of them."""
    rows = random.Random(0).sample(range(len(pairs)), sample)
    halves = rows[: sample // 2], rows[sample // 2 :]

    def one_by_one(half: list[int]) -> tuple[dict[str, float], list[Comparison]]:
        return measure(lambda: [model.compare(*pairs[row]) for row in half])

    before = one_by_one(halves[0])
    many, answers = measure(lambda: model.compare_many(pairs))
    after = one_by_one(halves[1])
    single = {key: (before[0][key] + after[0][key]) / 2 for key in many}
    both = [(answers[row], answer) for row, answer in zip(rows, [*before[1], *after[1]], strict=True)]
    return {
        "pairs": len(pairs),
        "photos": len({id(photo) for pair in pairs for photo in pair}),
        "compare_many": {key: round(value, 2) for key, value in many.items()},
        "compare": {"sample": sample, **{key: round(value, 2) for key, value in single.items()}},
        "times_as_fast": round(single["milliseconds"] / many["milliseconds"], 2),
        "times_less_processor_time": round(single["cpu_milliseconds"] / many["cpu_milliseconds"], 2),
        "equal_verdicts": sum(a.verdict == b.verdict for a, b in both),
        "largest_difference": float(f"{max(abs(a.dissimilarity - b.dissimilarity) for a, b in both):.2g}"),
    }


def main() -> None:
    args = common.parser(__doc__, data=True).parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    model, lfw = siamese.load(device="cpu"), Lfw(args.data)
    pairs = [pair for fold in lfw.folds() for pair in fold]
    contents = dict(lfw.read({file for pair in pairs for file in (pair.first, pair.second)}))
    model.compare(*list(contents.values())[:2])  # loads the detector
    portrait, *others = random.Random(0).sample(sorted(contents), 1 + OTHERS)
    result = {
        "lfw": compare_both(model, [(contents[pair.first], contents[pair.second]) for pair in pairs], SAMPLE),
        "one_against_many": compare_both(
            model, [(contents[portrait], contents[other]) for other in others], OTHERS_SAMPLE
        ),
    }
    promises = {
        f"{name}: the same verdicts": part["equal_verdicts"] == part["compare"]["sample"]
        for name, part in result.items()
    }
    common.finish(result, args.json, {"all pairs of LFW": result["lfw"]["pairs"] == 6000, **promises})


if __name__ == "__main__":
    main()
