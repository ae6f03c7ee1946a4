"""Measure pytorch-metric-learning on the same images, the same held-out classes and the same processor.

    python benchmarks/metric_learning.py --data DIR --json benchmarks/results/metric_learning.json

It needs `pip install pytorch-metric-learning`, and grocery.zip in DIR, see grocery.py. scikit-learn's digits are
trained on 0 to 6 and tested on 7 to 9, the groceries are split as by `siamese train --seed 0`. Its loops are those of
its documentation: `MPerClassSampler` with four images per class (16 for the digits), batches of 64, Adam, and a linear
layer of 128 numbers on top of the network. For the digits this is a ConvNet of four blocks from scratch, with its
`ContrastiveLoss` and with `MultiSimilarityLoss` and `MultiSimilarityMiner`. For the groceries it is `weights/images`
with the second of them; it gets the image size, the number of epochs and the augmentation of `siamese train
--finetune`, and a tenth of the learning rate for its own layers.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch
from digits import HELD_OUT, write_digits
from pytorch_metric_learning.losses import ContrastiveLoss, MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from pytorch_metric_learning.samplers import MPerClassSampler
from torch import nn

import siamese
from siamese.data.dataset import IdentityDataset, load_dataset
from siamese.data.pairs import all_pairs
from siamese.evaluation import metrics
from siamese.record import Settings
from siamese.training.recipes import ModernRecipe
from siamese.training.run import train

DIM, BATCH, LR = 128, 64, 1e-3
PER_CLASS = (4, 8, 16, 32)  # images in a batch; few classes need more of them to fill it
SCRATCH_EPOCHS, FINETUNED_EPOCHS = 20, 8
SCRATCH_SIDE, FINETUNED_SIDE = 16, 128  # pixels
LOSSES: dict[str, Callable[[], tuple[nn.Module, nn.Module | None]]] = {
    "ContrastiveLoss": lambda: (ContrastiveLoss(), None),
    "MultiSimilarityLoss": lambda: (MultiSimilarityLoss(), MultiSimilarityMiner()),
}


def conv_net(side: int) -> nn.Module:
    """Return a ConvNet of four blocks, as for few-shot learning (Vinyals et al., NIPS 2016)."""
    layers: list[nn.Module] = []
    for inputs in (3, 64, 64, 64):
        layers += [nn.Conv2d(inputs, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (side // 16) ** 2, DIM))


def pretrained(side: int) -> tuple[nn.Module, list[dict]]:
    """Return the network of weights/images with a new last layer, and its groups of parameters."""
    source = siamese.load("weights/images", device="cpu").network
    network = siamese.SiameseNetwork("efficientnet-lite0", DIM, image_size=side).backbone
    weights = {
        name.removeprefix("backbone."): weight
        for name, weight in source.state_dict().items()
        if name.startswith("backbone.")
    }
    network.load_state_dict(weights | network[-1].state_dict(prefix=f"{len(network) - 1}."))
    *layers, last = network.children()
    trunk = [parameter for layer in layers for parameter in layer.parameters()]
    return network, [{"params": trunk, "lr": LR / 10}, {"params": last.parameters(), "lr": LR}]


def fit(
    network: nn.Module, groups: list[dict], loss_name: str, data: IdentityDataset, epochs: int, augmented: bool
) -> None:
    """Train a network in the usual loop of pytorch-metric-learning."""
    loss, miner = LOSSES[loss_name]()
    recipe = ModernRecipe(Settings("modern", epochs, BATCH, LR, 0, 0, init="weights/images"))  # to augment photos
    optimizer, random = torch.optim.Adam(groups), torch.Generator().manual_seed(0)
    per_class = next(count for count in PER_CLASS if count * len(data.names) >= BATCH)
    network.train()
    for _ in range(epochs):
        sampler = MPerClassSampler(data.identity, per_class, BATCH, length_before_new_iter=len(data))
        for rows in torch.tensor(list(sampler)).split(BATCH):
            x, labels = data.pixels[data.rows[rows]], torch.from_numpy(data.identity[rows])
            draws = torch.rand((recipe.draws, len(x)), generator=random)
            z = network(recipe.augment(x, draws, labels) if augmented else x / 255)
            optimizer.zero_grad()
            loss(z, labels, miner(z, labels) if miner else None).backward()
            optimizer.step()


@torch.inference_mode()
def measure(network: nn.Module, data: IdentityDataset) -> dict[str, float]:
    """Return AUC and EER over all pairs of the held-out images."""
    network.eval()
    z = torch.cat([nn.functional.normalize(network(x / 255)) for batch in data.batches() for x in batch.split(32)])
    first, second, same = all_pairs(data.identity)
    distance = (z[first] - z[second]).norm(dim=1).numpy()
    return {"auc": metrics.auc(distance, same), "eer": metrics.eer(distance, same)}


def ours(source: Path, finetune: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        report = train(source, Path(folder, "out"), finetune=finetune, progress=False).record.test
    return {"auc": report.auc, "eer": report.eer}


def theirs(source: Path, loss: str, side: int, starts_pretrained: bool) -> dict[str, float]:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  the sampler has no generator of its own
    training, test = load_dataset(source, (3, side, side), progress=False).split(0)
    if starts_pretrained:
        network, groups = pretrained(side)
        fit(network, groups, loss, training, FINETUNED_EPOCHS, augmented=True)
    else:
        network = conv_net(side)
        fit(network, [{"params": network.parameters(), "lr": LR}], loss, training, SCRATCH_EPOCHS, augmented=False)
    return measure(network, test)


def main() -> None:
    parser = common.parser(__doc__, data=True)
    parser.add_argument("--sets", nargs="+", choices=("digits", "groceries"), default=["digits", "groceries"])
    args = parser.parse_args()
    result: dict[str, dict] = {data: {} for data in args.sets}

    def add(data: str, system: str, run: Callable[[], dict[str, float]]) -> None:
        cpu = time.process_time()
        scores = run()
        result[data][system] = {**scores, "cpu_seconds": round(time.process_time() - cpu)}
        print(data, system, result[data][system], flush=True)

    if "digits" in args.sets:
        with tempfile.TemporaryDirectory() as folder:
            digits = Path(folder, "digits")
            write_digits(digits, HELD_OUT["7 to 9"])
            add("digits", "`siamese train`", partial(ours, digits, False))
            for loss in LOSSES:
                add("digits", f"ConvNet, {loss}", partial(theirs, digits, loss, SCRATCH_SIDE, False))
    if "groceries" in args.sets:
        groceries, loss = args.data / "grocery.zip", "MultiSimilarityLoss"
        add("groceries", "`siamese train`", partial(ours, groceries, False))
        add("groceries", "`siamese train --finetune`", partial(ours, groceries, True))
        add("groceries", f"`weights/images`, {loss}", partial(theirs, groceries, loss, FINETUNED_SIDE, True))
    common.finish({"sets": result, "threads": torch.get_num_threads()}, args.json, {})


if __name__ == "__main__":
    main()
