"""Contrastive losses.

Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006.
"""

import torch
from torch import Tensor


def contrastive_loss(distance: Tensor, same: Tensor, margin: float = 2.0) -> Tensor:
    """Compute the contrastive loss of pairs.

    Pulls genuine pairs together and pushes impostor pairs at least `margin` apart. This is equation 4 of the paper
    (Hadsell et al., 2006) without its factor ½, as in the DataHacker tutorial:
    ``mean(same · d² + (1 − same) · max(0, margin − d)²)``. Paper and tutorial use the label Y = 1 for *impostor*
    pairs; here `same` is 1 for *genuine* pairs.

    Args:
        distance: (P,) float, ≥ 0, Euclidean distance of the two embeddings of each pair.
        same: (P,) bool or 0/1, true for genuine pairs.
        margin: > 0, in units of distance. Impostor pairs further apart than this have zero loss.

    Returns:
        Scalar ≥ 0, the mean over all pairs.

    Raises:
        ValueError: if `distance` and `same` differ in shape or are empty, or `margin` is not positive.
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
    """Compute the contrastive loss of all pairs in a batch, with larger weights for harder pairs.

    For each image: the mean of d² over its genuine pairs with weights softmax(hardness · d), plus the mean of
    max(0, margin − d)² over its impostor pairs with weights softmax(−hardness · d). No gradient flows through the
    weights. The weights are those of the multi-similarity loss (Wang et al., CVPR 2019) without its thresholds.

    Args:
        distance: (B, B) float, ≥ 0, distances of all embeddings to each other.
        identity: (B,) int, the identity that each image shows.
        margin: > 0, in units of distance. Impostor pairs further apart than this have zero loss.
        hardness: ≥ 0, per unit of distance. 0 gives all pairs of an image the same weight.

    Returns:
        Scalar ≥ 0, the mean over all images. An image without genuine (impostor) pairs adds 0 for them.
    """
    same = identity[:, None] == identity  # (B, B)
    genuine = same & ~torch.eye(len(identity), dtype=torch.bool, device=identity.device)

    def weights(kind: Tensor, log: Tensor) -> Tensor:
        # The lowest finite number instead of -inf: the softmax of a row without such pairs is then not NaN.
        return log.masked_fill(~kind, torch.finfo(log.dtype).min).softmax(1) * kind

    hard = hardness * distance.detach()
    pull = weights(genuine, hard) * distance.square()
    push = weights(~same, -hard) * (margin - distance).clamp(min=0).square()
    return (pull + push).sum(1).mean()
