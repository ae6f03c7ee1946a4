"""The pictures of a result folder."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from siamese.evaluation import metrics

ACCENT, SAME, DIFFERENT = "#4f46e5", "#0f766e", "#b45309"


def loss(values: list[float], every: int, file: Path) -> None:
    """Draw the training loss, given once every so many batches, on a logarithmic scale."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = _axes(figure, "Batch", "Contrastive loss")
    axes.semilogy(np.arange(len(values)) * every, values, color=ACCENT)
    figure.savefig(file, dpi=120)


def roc(distance: np.ndarray, same: np.ndarray, file: Path) -> None:
    """Draw the ROC curve of held-out pairs, with the area under it and the equal error rate."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = _axes(figure, "False-accept rate", "True-accept rate")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    axes.plot(*metrics.roc(distance, same), color=ACCENT)
    axes.set(title=f"AUC {metrics.auc(distance, same):.3f}, EER {metrics.eer(distance, same):.1%}", aspect="equal")
    figure.savefig(file, dpi=120)


def distances(curves: dict, threshold: float, file: Path) -> None:
    """Draw how the distances of genuine and of impostor pairs are spread (see `metrics.histogram`), and a threshold."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = _axes(figure, "Dissimilarity", "Share of the pairs of its kind")
    for kind, color in (("genuine", SAME), ("impostor", DIFFERENT)):
        counts = np.reshape(curves[kind], (-1, 2)).sum(1)
        edges = np.arange(len(counts) + 1) * 2 * curves["width"]
        axes.stairs(counts / counts.sum(), edges, fill=True, color=color, alpha=0.6, label=kind)
    axes.axvline(threshold, color="0.2", linestyle="--", label=f"threshold {threshold:.2f}")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def pairs(rows: list[tuple[np.ndarray, np.ndarray, float, bool]], file: Path) -> None:
    """Draw pairs of images side by side, each titled "Dissimilarity: x.xx".

    Args:
        rows: for each pair its two images, (H, W) or (H, W, 3) uint8, its distance, and whether it is genuine.
        file: where to write the PNG.
    """
    columns = min(5, len(rows))
    figure = Figure(figsize=(2.6 * columns, 2.3 * -(-len(rows) // columns)), layout="constrained")
    grid = figure.subplots(-(-len(rows) // columns), columns, squeeze=False).ravel()
    for axes, (first, second, distance, same) in zip(grid, rows, strict=False):
        axes.imshow(np.concatenate([first, second], axis=1), cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"Dissimilarity: {distance:.2f}", fontsize=11)
        axes.set_xlabel("genuine" if same else "impostor", color=SAME if same else DIFFERENT, fontweight="bold")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=SAME if same else DIFFERENT, linewidth=3)
    for axes in grid[len(rows) :]:
        axes.set_visible(False)
    figure.savefig(file, dpi=100)


def _axes(figure: Figure, xlabel: str, ylabel: str) -> Axes:
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    return axes
