"""The plots of a result folder."""

import colorsys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from siamese.evaluation import metrics
from siamese.record import Curves, Plane

ACCENT, GENUINE, IMPOSTOR = "#4f46e5", "#0f766e", "#b45309"
MAX_MARKERS = 50  # points of a curve that are marked


def plot_loss(values: list[float], epochs: int, validation_eer: list[float], file: Path) -> None:
    """Plot the losses of batches, equally spaced over all epochs, and the validation error after each epoch, if any."""
    figure, axes = _figure((6, 3.5), "Epoch", "Contrastive loss")
    middle = (np.arange(len(values)) + 0.5) * epochs / len(values)
    axes.plot(middle, values, color=ACCENT, marker="." if len(values) <= MAX_MARKERS else None, label="training loss")
    axes.set(xlim=(0, 1.02 * epochs), ylim=(0, 1.05 * max(values) or 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if validation_eer:
        right = axes.twinx()
        right.plot(
            np.arange(1, epochs + 1), validation_eer, color=IMPOSTOR, marker="o", label="validation error (right)"
        )
        right.set(ylabel="Equal error rate", ylim=(0, 1.1 * max(*validation_eer, 0.02)))
        right.yaxis.set_major_formatter(PercentFormatter(1))
        right.spines["top"].set_visible(False)
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(file, dpi=120)


def plot_roc(distance: np.ndarray, same: np.ndarray, file: Path) -> None:
    """Plot the ROC curve of pairs; the title gives AUC and EER."""
    figure, axes = _figure((4.5, 4.5), "False-match rate", "True-match rate")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    axes.plot(*metrics.roc(distance, same), color=ACCENT)
    axes.set(title=f"AUC {metrics.auc(distance, same):.3f}, EER {metrics.eer(distance, same):.1%}", aspect="equal")
    figure.savefig(file, dpi=120)


def plot_distances(curves: Curves, threshold: float, file: Path) -> None:
    """Plot the histograms of genuine and impostor distances, two bins drawn as one, with a threshold."""
    figure, axes = _figure((6, 3.5), "Dissimilarity", "Share of pairs")
    for label, counts, color in (("genuine", curves.genuine, GENUINE), ("impostor", curves.impostor, IMPOSTOR)):
        merged = np.reshape(counts, (-1, 2)).sum(1)
        edges = np.arange(len(merged) + 1) * 2 * curves.width
        axes.stairs(merged / merged.sum(), edges, fill=True, color=color, alpha=0.6, label=label)
    axes.axvline(threshold, color="0.2", linestyle="--", label=f"threshold {threshold:.2f}")
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def plot_plane(points: Plane, file: Path) -> None:
    """Plot two-dimensional embeddings: one color per person, held-out people as large dots with an edge."""
    figure, axes = _figure((6, 6), "Embedding, first dimension", "Embedding, second dimension")
    for rows, size, edge, label in ((points.training, 9, "none", "training"), (points.test, 45, "0.1", "held out")):
        people, x, y = zip(*rows, strict=True)
        colors = [person_color(person) for person in people]
        axes.scatter(x, y, s=size, c=colors, edgecolors=edge)
        axes.scatter([], [], s=size, c="0.6", edgecolors=edge, label=f"{len(set(people))} people, {label}")
    axes.set_aspect("equal", "datalim")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(file, dpi=120)


def person_color(person: int) -> str:
    """Return the color of a person as #rrggbb. People with close numbers get very different colors."""
    rgb = colorsys.hls_to_rgb(person * 0.618 % 1, 0.5, 0.65)
    return "#" + "".join(f"{round(255 * value):02x}" for value in rgb)


def plot_pairs(rows: list[tuple[np.ndarray, np.ndarray, float, bool]], file: Path) -> None:
    """Plot pairs of images, (H, W) or (H, W, 3) uint8, side by side, with distance and kind."""
    columns = min(5, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.3 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (first, second, distance, same) in zip(grid, rows, strict=False):
        color = GENUINE if same else IMPOSTOR
        axes.imshow(np.concatenate([first, second], axis=1), cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"Dissimilarity: {distance:.2f}", fontsize=11)
        axes.set_xlabel("genuine" if same else "impostor", color=color, fontweight="bold")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=color, linewidth=3)
    for axes in grid[len(rows) :]:
        axes.set_visible(False)
    figure.savefig(file, dpi=100)


def _figure(size: tuple[float, float], xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    return figure, axes
