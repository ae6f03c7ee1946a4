"""Distances and labels in, numbers out: no model, no files."""

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

BINS = 100


def report(distance: np.ndarray, same: np.ndarray, probability: np.ndarray) -> dict[str, float | int]:
    """Measure how well distances tell genuine from impostor pairs.

    Args:
        distance: (P,) float, lower is more alike.
        same: (P,) bool, true for genuine pairs; both kinds must be there.
        probability: (P,) float in [0, 1], P(same) at even odds by a calibration that was fitted on other people.

    Returns:
        `auc`: area under the ROC curve, in [0, 1]. `eer`: equal error rate, in [0, 1].
        `tmr_at_fmr_1e_2`, `tmr_at_fmr_1e_3`: see `tmr_at_fmr`. `balanced_accuracy`: the mean of the shares of genuine
        pairs with a probability of at least ½ and of impostor pairs with less. `calibration_error`: see
        `calibration_error`.
        `mean_genuine`, `mean_impostor`: mean distances. `genuine`, `impostor`: how many pairs.

    Raises:
        ValueError: where genuine or impostor pairs are missing, or a distance is not finite.
    """
    distance, same = np.asarray(distance, dtype=float), np.asarray(same, dtype=bool)
    if not (same.any() and (~same).any()):
        raise ValueError(f"need genuine and impostor pairs, got {same.sum()} and {(~same).sum()}")
    accepted = np.asarray(probability) >= 0.5
    return {
        "auc": auc(distance, same),
        "eer": eer(distance, same),
        "tmr_at_fmr_1e_2": tmr_at_fmr(distance, same, 1e-2),
        "tmr_at_fmr_1e_3": tmr_at_fmr(distance, same, 1e-3),
        "balanced_accuracy": float((accepted[same].mean() + (~accepted[~same]).mean()) / 2),
        "calibration_error": calibration_error(probability, same),
        "mean_genuine": float(distance[same].mean()),
        "mean_impostor": float(distance[~same].mean()),
        "genuine": int(same.sum()),
        "impostor": int((~same).sum()),
    }


def roc(distance: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC curve from (0, 0) to (1, 1): false-accept rates and true-accept rates, both (K,) and rising."""
    fmr, tmr, _ = roc_curve(same, -np.asarray(distance), drop_intermediate=False)
    return fmr, tmr


def auc(distance: np.ndarray, same: np.ndarray) -> float:
    """Return the area under the ROC curve: the chance that a genuine pair is closer than an impostor pair."""
    return float(roc_auc_score(same, -np.asarray(distance)))


def eer(distance: np.ndarray, same: np.ndarray) -> float:
    """Return the equal error rate: where false-accept and false-reject rate meet on the straight-lined ROC."""
    fmr, tmr = roc(distance, same)
    return float(np.interp(0, far - (1 - tar), far))


def tmr_at_fmr(distance: np.ndarray, same: np.ndarray, target: float) -> float:
    """Return the largest true-accept rate whose false-accept rate is at most `target`; no interpolation."""
    fmr, tmr = roc(distance, same)
    return float(tar[far <= target].max())


def best_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """Return the distance up to which "same" is most often right; of several equally good ones, the middle one."""
    fmr, tmr, threshold = roc_curve(same, -np.asarray(distance), drop_intermediate=False)
    right = tar * np.sum(same) + (1 - far) * np.sum(~np.asarray(same))
    best = np.flatnonzero(right == right.max())
    here = best[len(best) // 2]
    after = -threshold[min(here + 1, len(threshold) - 1)]
    return float((max(-threshold[here], 0) + after) / 2)


def calibration_error(probability: np.ndarray, same: np.ndarray, bins: int = 10) -> float:
    """Measure whether stated probabilities come true: the expected calibration error at even odds, in [0, 1].

    Genuine and impostor pairs count half each, however many there are, as `probability` assumes even odds
    (Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3, with weights).

    Args:
        probability: (P,) float in [0, 1], P(same) at even odds.
        same: (P,) bool.
        bins: how many equally wide bins [0, 1] is cut into.
    """
    share, stated, true = reliability(probability, same, bins)
    return float((share * np.abs(true - stated)).sum())


def reliability(probability: np.ndarray, same: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare stated probabilities with what was true, bin by bin, at even odds: see `calibration_error`.

    Returns:
        Three (K,) arrays of the K bins that are not empty, lowest first: the share of the pairs in each, which sum to
        1; the mean probability stated; the share of genuine pairs. All weighted so that both kinds count half.
    """
    same, probability = np.asarray(same, dtype=bool), np.asarray(probability, dtype=float)
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    share, stated, true = (
        np.bincount(bin_of, weights=weight * values, minlength=bins) for values in (1, probability, same)
    )
    filled = share > 0
    return share[filled], stated[filled] / share[filled], true[filled] / share[filled]


def curves(distance: np.ndarray, same: np.ndarray, probability: np.ndarray) -> dict:
    """Return how distances are spread and whether probabilities come true, to be drawn.

    Args:
        distance, same, probability: of P pairs, see `report`.

    Returns:
        A `histogram`, and `reliability`: see there, a row (share, stated, true) for each bin.
    """
    distance, same = np.asarray(distance), np.asarray(same, dtype=bool)
    rows = np.transpose(reliability(probability, same)).tolist()
    return {**histogram(distance[same], distance[~same]), "reliability": rows}


def histogram(genuine: np.ndarray, impostor: np.ndarray) -> dict:
    """Count distances in equally wide bins, the first of which begins at 0.

    Args:
        genuine: (G,) float ≥ 0, distances of genuine pairs.
        impostor: (I,) float ≥ 0, distances of impostor pairs.

    Returns:
        `width` of a bin; `genuine`, `impostor`: how many pairs lie in each.
    """
    top = float(max(genuine.max(), impostor.max())) or 1.0
    counts = [np.histogram(kind, BINS, (0, top))[0].tolist() for kind in (genuine, impostor)]
    return {"width": top / BINS, "genuine": counts[0], "impostor": counts[1]}
