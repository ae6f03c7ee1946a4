"""The embeddings of a network with two-dimensional output."""

from __future__ import annotations

import torch

from siamese.data.dataset import IdentityDataset
from siamese.network import SiameseNetwork
from siamese.record import Plane

MAX_IMAGES = 500  # of the training people, and of the held-out people
DECIMALS = 3


def measure_plane(network: SiameseNetwork, training: IdentityDataset, test: IdentityDataset) -> Plane | None:
    """Embed the training people and the held-out people; None if the embeddings do not have two dimensions.

    Args:
        network: on any device; left in evaluation mode.
        training, test: the people. Of large data sets, `MAX_IMAGES` are embedded, see `IdentityDataset.subsample`.
    """
    if network.embedding_dim != 2:
        return None
    return Plane(_points(network, training), _points(network, test))


@torch.inference_mode()
def _points(network: SiameseNetwork, dataset: IdentityDataset) -> list[tuple[int, float, float]]:
    network.eval()
    drawn = dataset.subsample(MAX_IMAGES)
    z = torch.cat([network.embed(x.to(network.device)) for x in drawn.batches()]).double().cpu().numpy()  # (N, 2)
    people = [dataset.names.index(name) for name in drawn.names]
    rows = zip(drawn.identity, z.round(DECIMALS).tolist(), strict=True)
    return [(people[number], x, y) for number, (x, y) in rows]
