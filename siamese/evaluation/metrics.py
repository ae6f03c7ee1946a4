"""Verification metrics of scored pairs.

A match is a pair at most a threshold apart. FMR, the false-match rate, is the share of impostor pairs that match; TMR,
the true-match rate, the share of genuine pairs that match; FNMR = 1 − TMR.
"""

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from siamese.record import Curves, Report

DISTANCE_BINS = 100  # of a histogram of distances
RELIABILITY_BINS = 10


def compute_report(distance: np.ndarray, same: np.ndarray, probability: np.ndarray | None) -> Report:
    """Compute all metrics of distances (P,), genuine or impostor pairs (P,), and, if known, P(same) at even odds."""
    distance, same = np.asarray(distance, dtype=float), np.asarray(same, dtype=bool)
    if not (same.any() and (~same).any()):
        raise ValueError(f"metrics need genuine and impostor pairs, got {same.sum()} and {(~same).sum()}")
    return Report(
        auc=auc(distance, same),
        eer=eer(distance, same),
        tmr_at_fmr_1e_2=tmr_at_fmr(distance, same, 1e-2),
        tmr_at_fmr_1e_3=tmr_at_fmr(distance, same, 1e-3),
        balanced_accuracy=None if probability is None else balanced_accuracy(probability, same),
        calibration_error=None if probability is None else calibration_error(probability, same),
        mean_genuine=float(distance[same].mean()),
        mean_impostor=float(distance[~same].mean()),
        genuine=int(same.sum()),
        impostor=int((~same).sum()),
    )


def roc(distance: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC curve: FMR and TMR, both (K,), increasing from 0 to 1."""
    fmr, tmr, _ = roc_curve(same, -np.asarray(distance), drop_intermediate=False)
    return fmr, tmr


def auc(distance: np.ndarray, same: np.ndarray) -> float:
    """Return the area under the ROC curve: the probability that a genuine pair is closer than an impostor pair."""
    return float(roc_auc_score(same, -np.asarray(distance)))


def eer(distance: np.ndarray, same: np.ndarray) -> float:
    """Return the equal error rate, where FMR = FNMR on the linearly interpolated ROC curve."""
    fmr, tmr = roc(distance, same)
    return float(np.interp(0, fmr - (1 - tmr), fmr))


def tmr_at_fmr(distance: np.ndarray, same: np.ndarray, target: float) -> float:
    """Return the highest TMR of all thresholds with FMR ≤ `target`, without interpolation."""
    fmr, tmr = roc(distance, same)
    return float(tmr[fmr <= target].max())


def best_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """Return the threshold with the highest accuracy; of several equally good ones, the middle one."""
    fmr, tmr, threshold = roc_curve(same, -np.asarray(distance), drop_intermediate=False)
    correct = tmr * np.sum(same) + (1 - fmr) * np.sum(~np.asarray(same))
    best = np.flatnonzero(correct == correct.max())
    middle = best[len(best) // 2]
    # Half-way to the next distance. The first threshold is −∞, at which no pair matches.
    following = -threshold[min(middle + 1, len(threshold) - 1)]
    return float((max(-threshold[middle], 0) + following) / 2)


def balanced_accuracy(probability: np.ndarray, same: np.ndarray) -> float:
    """Return the mean of the accuracies on genuine and on impostor pairs at P(same) = 0.5, in [0, 1]."""
    accepted = np.asarray(probability) >= 0.5
    return float((accepted[same].mean() + (~accepted[~same]).mean()) / 2)


def calibration_error(probability: np.ndarray, same: np.ndarray) -> float:
    """Return the expected calibration error of P(same) at even odds, in [0, 1].

    Equation 3 of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, weighted so that genuine and
    impostor pairs count half each, however many there are.
    """
    share, predicted, observed = reliability(probability, same)
    return float((share * np.abs(observed - predicted)).sum())


def reliability(probability: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare predicted with observed probabilities in equally wide bins.

    Returns (K,) of the K bins that are not empty, lowest first: the weight of the pairs in the bin, which sums to 1;
    their mean probability; and the weighted share of genuine pairs.
    """
    same, probability = np.asarray(same, dtype=bool), np.asarray(probability, dtype=float)
    weight = balance(same)
    bin_of = np.minimum((probability * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    share, predicted, observed = (
        np.bincount(bin_of, weights=weight * values, minlength=RELIABILITY_BINS) for values in (1, probability, same)
    )
    filled = share > 0
    share, predicted, observed = share[filled], predicted[filled] / share[filled], observed[filled] / share[filled]
    return share.clip(max=1), predicted.clip(max=1), observed.clip(max=1)  # sums of weights are rounded


def balance(same: np.ndarray) -> np.ndarray:
    """Return weights of pairs (P,) whose sum is 1, half of it for the genuine ones."""
    return np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())


def compute_curves(distance: np.ndarray, same: np.ndarray, probability: np.ndarray | None) -> Curves:
    """Return histograms of distances and a reliability diagram, which is empty without probabilities."""
    distance, same = np.asarray(distance), np.asarray(same, dtype=bool)
    width, genuine, impostor = histogram(distance[same], distance[~same])
    columns = () if probability is None else (column.tolist() for column in reliability(probability, same))
    return Curves(width, genuine, impostor, list(zip(*columns, strict=True)))


def histogram(genuine: np.ndarray, impostor: np.ndarray) -> tuple[float, list[int], list[int]]:
    """Count distances in `DISTANCE_BINS` bins from 0 to the largest. Returns the width of a bin, and both counts."""
    top = float(max(genuine.max(), impostor.max())) or 1.0
    counts = [np.histogram(distance, DISTANCE_BINS, (0, top))[0].tolist() for distance in (genuine, impostor)]
    return top / DISTANCE_BINS, counts[0], counts[1]
