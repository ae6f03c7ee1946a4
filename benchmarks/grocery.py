"""Measure photos of things: 81 kinds of groceries, a fifth of which is held out, with three seeds.

    python benchmarks/grocery.py --data DIR --json benchmarks/results/grocery.json
    python benchmarks/grocery.py --data DIR --finetune --json benchmarks/results/grocery_finetuned.json

DIR holds grocery.zip: at most 40 photos of each class of the Grocery Store Dataset (Klasson et al., WACV 2019), reduced
to 224 × 224 pixels, from https://github.com/marcusklasson/GroceryStoreDataset at fc80ba9. It runs
`siamese train --data grocery.zip --seed SEED` with the default settings, and with `--finetune`.
"""

import tempfile
import time
from pathlib import Path
from statistics import mean

import common
import torch

from siamese.training.run import train

MAX_EER = {False: 0.13, True: 0.09}
MAX_MINUTES = {False: 10, True: 40}  # of processor time


def main() -> None:
    parser = common.parser(__doc__, data=True)
    parser.add_argument("--finetune", action="store_true", help="also train the layers of the pretrained network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            began, cpu = time.perf_counter(), time.process_time()
            out = Path(folder, str(seed))
            record = train(args.data / "grocery.zip", out, seed=seed, finetune=args.finetune).record
            run = {
                "seed": seed,
                "auc": record.test.auc,
                "eer": record.test.eer,
                "tmr_at_fmr_1e_2": record.test.tmr_at_fmr_1e_2,
                "before_eer": record.before.eer if record.before else None,
                "validation_eer": record.validation_eer,
                "seconds": round(time.perf_counter() - began),
                "cpu_seconds": round(time.process_time() - cpu),
                "init": Path(record.settings.init).name,
            }
            print(run, flush=True)
            runs.append(run)
    result = {"runs": runs, "mean_eer": mean(run["eer"] for run in runs), "threads": torch.get_num_threads()}
    limit, minutes = MAX_EER[args.finetune], MAX_MINUTES[args.finetune]
    promises = {
        f"a mean EER of at most {limit:.0%}": result["mean_eer"] <= limit,
        f"at most {minutes} minutes of processor time": all(run["cpu_seconds"] <= 60 * minutes for run in runs),
    }
    common.finish(result, args.json, promises)


if __name__ == "__main__":
    main()
