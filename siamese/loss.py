"""The contrastive loss.

Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006.
"""

import torch
from torch import Tensor


def contrastive_loss(distance: Tensor, same: Tensor, margin: float = 2.0) -> Tensor:
    """Pull genuine pairs together, push impostor pairs at least `margin` apart.

    Equation 4 of the paper (see above) without its factor ½, as in the DataHacker tutorial, to compare losses:
    ``mean(same · d² + (1 − same) · max(0, margin − d)²)``. The paper and the tutorial label a pair with Y = 1 for
    *impostor*; here `same` is 1 for *genuine*.

    Args:
        distance: (P,) float, ≥ 0, the Euclidean distance of each pair's embeddings.
        same: (P,) bool or 0/1, true where a pair shows one identity.
        margin: > 0, in units of distance; impostors further apart than this cost nothing.

    Returns:
        Scalar ≥ 0, the mean over the pairs.

    Raises:
        ValueError: where `distance` and `same` differ in shape or hold no pair, or `margin` is not positive.
    """
    if distance.shape != same.shape or distance.numel() == 0:
        raise ValueError(
            f"expected one label for each of at least one distance, got {tuple(distance.shape)} distances "
            f"and {tuple(same.shape)} labels"
        )
    if not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    same = same.to(distance.dtype)
    return (same * distance.square() + (1 - same) * (margin - distance).clamp(min=0).square()).mean()


def all_pairs_loss(distance: Tensor, identity: Tensor, margin: float, hardness: float) -> Tensor:
    """Apply the contrastive loss to all pairs of a batch, the hard ones weighing most.

    For each image the d² of its genuine pairs are averaged with weights softmax(hardness · d), so that the furthest
    weigh most, and the max(0, margin − d)² of its impostor pairs with weights softmax(−hardness · d), so that the
    closest do; both are added, and averaged over the images. No gradient passes through the weights. The weighting is
    that of the multi-similarity loss (Wang et al., CVPR 2019) without its thresholds.

    Args:
        distance: (B, B) float, ≥ 0, of each image's embedding to each.
        identity: (B,) int, whom each image shows.
        margin: > 0, in units of distance; impostors further apart than this cost nothing.
        hardness: ≥ 0, per unit of distance; at 0 all pairs of an image weigh alike.

    Returns:
        Scalar ≥ 0. A kind of pair that an image has none of costs nothing.
    """
    same = identity[:, None] == identity
    genuine = same & ~torch.eye(len(identity), dtype=torch.bool, device=identity.device)

    def weights(kind: Tensor, log: Tensor) -> Tensor:
        # Finite, so that a row without such pairs is even, not NaN, before it is set to 0.
        return log.masked_fill(~kind, torch.finfo(log.dtype).min).softmax(1) * kind

    hard = hardness * distance.detach()
    pull = weights(genuine, hard) * distance.square()
    push = weights(~same, -hard) * (margin - distance).clamp(min=0).square()
    return (pull + push).sum(1).mean()
