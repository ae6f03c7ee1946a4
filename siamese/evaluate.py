"""A network and people it has not seen → the distances of all pairs."""

import numpy as np
import torch

from siamese import data
from siamese.network import SiameseNetwork, distance


@torch.inference_mode()
def pair_distances(network: SiameseNetwork, gallery: data.Gallery) -> tuple[np.ndarray, np.ndarray]:
    """Embed each image once and measure every pair.

    Args:
        network: on any device; left in evaluation mode.
        gallery: N images.

    Returns:
        distance: (P,) float32 and same: (P,) bool, with P = N (N − 1) / 2, in the order of `data.all_pairs`.

    Raises:
        ValueError: where a distance is not finite.
    """
    network.eval()
    z = torch.cat([network.embed(pixels.to(network.device)).float().cpu() for pixels in gallery.pixels.split(256)])
    first, second, same = data.all_pairs(gallery.identity)
    distances = distance(z[first], z[second]).numpy()
    if not np.isfinite(distances).all():
        raise ValueError("the network's distances are not finite; train it anew, with a lower learning rate")
    return distances, same
