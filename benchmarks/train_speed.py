"""Compare the speed of `siamese train` with the training loop of the tutorial, on one machine in one run.

    python benchmarks/train_speed.py --json benchmarks/results/train_speed.json
    python benchmarks/train_speed.py folds --json benchmarks/results/plain_folds.json
    python benchmarks/train_speed.py modern --json benchmarks/results/modern_speed.json

The first command takes six minutes on two CPU cores. It measures

- both loops for 100 epochs on the default split: images per second, seconds, and AUC on the held-out people;
- an epoch of `siamese train` against a bare epoch: only forward, backward and step, on prepared batches.

The second command measures the quality of the tutorial's loop: it trains it on each of five folds of all 40 people.

The third command measures how long the modern recipe takes for better results on those folds. On each fold it times
five of the hundred epochs of the tutorial's loop, and a whole run of the modern recipe. It also compares an epoch of
the modern recipe, with drawing, augmentation, validation and checkpoint, with a bare epoch.

All runs are on the CPU. The tutorial's loop decodes files in the main process, which is faster on two cores than the
tutorial's eight workers.
"""

import random
import tempfile
import zipfile
from copy import deepcopy
from pathlib import Path
from statistics import median

import common
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from siamese.backbones import TutorialBackbone
from siamese.data.att import find_att
from siamese.data.dataset import IdentityDataset, load_dataset
from siamese.evaluation import metrics
from siamese.evaluation.pairs import score_all_pairs
from siamese.loss import contrastive_loss
from siamese.network import SiameseNetwork, distance
from siamese.training.config import TrainConfig
from siamese.training.recipes import make_recipe
from siamese.training.start import decide, initial_network
from siamese.training.trainer import Job, Trainer

SEED = 0
EPOCHS = 100  # as in the tutorial
FOLDS = 5
TIMED_EPOCHS = 5  # of the tutorial's loop, beside the modern recipe
ROUNDS = 15  # of the comparison with bare epochs
CPU = torch.device("cpu")


class PlainPairs(Dataset):
    """Random pairs as in the tutorial: it draws until a partner fits, and decodes files each time."""

    def __init__(self, folder: Path, people: tuple[str, ...]):
        self.files = [(file, person) for person in people for file in next(folder.rglob(person)).iterdir()]
        self.transform = transforms.Compose([transforms.Resize((100, 100)), transforms.ToTensor()])

    def __len__(self):
        return len(self.files)

    def __getitem__(self, _):
        file0, person0 = random.choice(self.files)
        want_same = random.randint(0, 1)
        while True:
            file1, person1 = random.choice(self.files)
            if (person0 == person1) == want_same:
                break
        pictures = [self.transform(Image.open(file).convert("L")) for file in (file0, file1)]
        return *pictures, torch.tensor([float(person0 != person1)])


class PlainNetwork(nn.Module):
    """The same layers. The two images of a pair are embedded one after the other."""

    def __init__(self):
        super().__init__()
        self.layers = TutorialBackbone(2)

    def forward(self, x1, x2):
        return self.layers(x1), self.layers(x2)


def plain(pairs: PlainPairs, epochs: int) -> SiameseNetwork:
    """Train with the loop of the tutorial."""
    network = PlainNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.0005)
    loader = DataLoader(pairs, shuffle=True, batch_size=64)
    for epoch in range(epochs):
        for number, (x1, x2, impostor) in enumerate(loader):
            optimizer.zero_grad()
            z1, z2 = network(x1, x2)
            d = nn.functional.pairwise_distance(z1, z2, keepdim=True)
            loss = torch.mean((1 - impostor) * d**2 + impostor * torch.clamp(2.0 - d, min=0.0) ** 2)
            loss.backward()
            optimizer.step()
            if number % 10 == 0:
                loss_value = loss.item()
        print(f"plain loop, epoch {epoch + 1}: loss {loss_value:.3f}", end="\r", flush=True)
    print()
    siamese_network = SiameseNetwork()
    siamese_network.backbone.load_state_dict(network.layers.state_dict())
    return siamese_network


def bare_epoch(network: SiameseNetwork, optimizer, batches) -> None:
    """Run forward, backward and step of one epoch on prepared batches."""
    for x, sides, same in batches:
        z1, z2 = network.backbone(x)[sides]
        loss = contrastive_loss(distance(z1, z2), same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def against_floor(training: IdentityDataset) -> dict:
    """Time an epoch of `Trainer`, with drawing, copying and checkpoint, and bare epochs, in turns."""
    settings, _ = decide(TrainConfig(data="att", out=Path(), epochs=1))
    start = initial_network(settings, None)
    network = SiameseNetwork()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr, fused=True)

    def ready(rows):
        return (training.pixels[rows].float() / 255).contiguous(memory_format=torch.channels_last)

    distinct = [
        (ready(training.rows[rows]), torch.from_numpy(sides), torch.from_numpy(same))
        for rows, sides, same in make_recipe(settings).epoch_batches(training.identity, 0)
    ]
    # All 2 × 64 images of each batch, as if they were distinct.
    every = [(x[sides.flatten()], torch.arange(sides.numel()).reshape(2, -1), same) for x, sides, same in distinct]
    times = {"ours": [], "bare, distinct images": [], "bare, all images": []}

    def job(folder: str) -> Job:
        return Job(start, settings, CPU, Path(folder))

    with tempfile.TemporaryDirectory() as folder:
        for turn in range(ROUNDS + 1):
            arms = {
                "ours": lambda turn=turn: Trainer(job(folder), training, f"ours {turn}").train(),
                "bare, distinct images": lambda: bare_epoch(network, optimizer, distinct),
                "bare, all images": lambda: bare_epoch(network, optimizer, every),
            }
            for name, run in arms.items():
                seconds, _ = common.timed(run)
                if turn:  # the first round warms up
                    times[name].append(seconds)
    ours = np.array(times["ours"])
    return {
        "epoch_seconds": {name: round(median(seconds), 3) for name, seconds in times.items()},
        "ours_to_bare_distinct": round(float(np.median(ours / times["bare, distinct images"])), 3),
        "ours_to_bare_all": round(float(np.median(ours / times["bare, all images"])), 3),
    }


def modern(dataset: IdentityDataset, folder: Path) -> dict:
    """On each fold, time epochs of the tutorial's loop, a run of the modern recipe, and a bare epoch of it."""
    settings, _ = decide(TrainConfig(data="att", out=folder, recipe="modern", flip=True, seed=SEED))
    job = Job(initial_network(settings, None), settings, CPU, folder)
    parts, times = [], {"plain": [], "modern": [], "ours": [], "bare": []}
    for k, (training, test) in enumerate(load_dataset("att", job.start.input_shape).folds(FOLDS)):
        times["plain"].append(common.timed(plain, PlainPairs(folder, training.names), TIMED_EPOCHS)[0])
        seconds, (network, state) = common.timed(Trainer(job, training, f"modern {k}").train)
        times["modern"].append(seconds)
        times["ours"].append(state.seconds / settings.epochs)
        times["bare"].append(modern_bare_epoch(job, training))
        parts.append(score_all_pairs(network, test)[:2])
    seconds = {"plain": sum(times["plain"]) * EPOCHS / TIMED_EPOCHS, "modern": sum(times["modern"])}
    return {
        "seconds_all_folds": {name: round(value, 1) for name, value in seconds.items()},
        "speedup": round(seconds["plain"] / seconds["modern"], 1),
        "pooled_auc": round(metrics.auc(*(np.concatenate(column) for column in zip(*parts, strict=True))), 4),
        "epoch_to_bare": round(float(np.median(np.divide(times["ours"], times["bare"]))), 3),
    }


def modern_bare_epoch(job: Job, dataset: IdentityDataset) -> float:
    """Return the seconds of forward, backward and step of one epoch of the modern recipe, on prepared batches."""
    recipe, network = make_recipe(job.settings), deepcopy(job.start).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=job.settings.lr, fused=True)
    batches = [
        (network.prepare(dataset.pixels[dataset.rows[rows]]), torch.from_numpy(identity))
        for rows, identity in recipe.epoch_batches(dataset.identity, 0)
    ]

    def run() -> None:
        for x, identity in batches:
            loss = recipe.loss(network.head(network.average(network.backbone(x))), identity)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    run()  # warms up
    return common.timed(run)[0]


def plain_folds(dataset: IdentityDataset, folder: Path) -> dict:
    """Train the tutorial's loop on each fold, and pool the distances of the people that it has not seen."""
    parts = []
    for training, test in dataset.folds(FOLDS):
        network = plain(PlainPairs(folder, training.names), EPOCHS)
        parts.append(score_all_pairs(network, test)[:2])
    distances, same = (np.concatenate(column) for column in zip(*parts, strict=True))
    each = [round(metrics.auc(*part), 4) for part in parts]
    return {"auc": each, "pooled_auc": round(metrics.auc(distances, same), 4)}


def speed(dataset: IdentityDataset, folder: Path) -> dict:
    """Time both loops on the default split, and ours against bare epochs."""
    training, test = dataset.split()

    def measured(network: SiameseNetwork, seconds: float) -> dict:
        auc = metrics.auc(*score_all_pairs(network, test)[:2])
        rate = EPOCHS * 2 * len(training) / seconds
        return {"seconds": round(seconds, 1), "images_per_second": round(rate), "auc": round(auc, 4)}

    result = {"epochs": EPOCHS, "floor": against_floor(training)}
    settings, _ = decide(TrainConfig(data="att", out=folder, epochs=EPOCHS, seed=SEED))
    job = Job(initial_network(settings, None), settings, CPU, folder)
    ours, (network, _) = common.timed(Trainer(job, training, "siamese train").train)
    result["ours"] = measured(network, ours)
    theirs, network = common.timed(plain, PlainPairs(folder, training.names), EPOCHS)
    result["plain"] = measured(network, theirs)
    result["speedup"] = round(theirs / ours, 2)
    return result


def promises_of_speed(result: dict) -> dict[str, bool]:
    return {"faster than the plain loop": result["speedup"] > 1}


def promises_of_folds(result: dict) -> dict[str, bool]:
    ours = [run["folds"]["pooled"]["auc"] for run in common.results("recipes")["tutorial"]]
    return {"as good as the tutorial recipe": min(ours) - 0.03 < result["pooled_auc"] < max(ours) + 0.03}


def promises_of_modern(result: dict) -> dict[str, bool]:
    better = result["pooled_auc"] > common.results("plain_folds")["pooled_auc"]
    return {"20 times as fast as the plain loop": result["speedup"] > 20, "a higher AUC than the plain loop": better}


MEASURES = {
    "speed": (speed, promises_of_speed),
    "folds": (plain_folds, promises_of_folds),
    "modern": (modern, promises_of_modern),
}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("what", nargs="?", choices=MEASURES, default="speed")
    args = parser.parse_args()
    measure, promises = MEASURES[args.what]
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(find_att()).extractall(folder)
        random.seed(SEED)
        torch.manual_seed(SEED)
        result = measure(load_dataset("att", TutorialBackbone.input_shape), Path(folder))
    common.finish(result, args.json, {**common.two_cores(args.json), **promises(result)})


if __name__ == "__main__":
    main()
