"""The contrastive loss.

Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR 2006.
"""

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
