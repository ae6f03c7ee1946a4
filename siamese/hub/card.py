"""Model cards: the README.md of a trained network, rendered from its record."""

import shlex
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from siamese.checkpoint import hub_id
from siamese.record import ATT_NAME, Folds, Record, Report, Settings

TAG = "siamese-network"  # of every card that this project writes
TEMPLATES = Path(__file__).parent / "templates"


def metrics_table(title: str, report: Report, folds: Folds | None = None, before: Report | None = None) -> str:
    """Return reports as a Markdown table.

    Args:
        title: what `report` was measured on.
        report: metrics on held-out identities.
        folds: cross-validation.
        before: metrics of the initial weights on the same pairs.
    """
    rows = [(title, report)]
    if before:
        rows.append(("the same, before training", before))
    if folds:
        count = len(folds.each)
        rows += [(f"fold {number} of {count}", fold) for number, fold in enumerate(folds.each, 1)]
        rows.append((f"all {count} folds", folds.pooled))
        if folds.before:
            rows.append(("the same, before training", folds.before))
    header = [
        *("", "pairs", "AUC", "EER", "TMR at FMR 1e-2", "TMR at FMR 1e-3", "balanced accuracy", "calibration error"),
        *("mean genuine distance", "mean impostor distance"),
    ]
    lines = [header, ["---"] * len(header)]
    for name, row in rows:
        lines.append(
            [
                name,
                f"{row.genuine + row.impostor:,}",
                f"{row.auc:.3f}" if row.auc < 0.9985 else f"{row.auc:.5f}",  # not "1.000"
                f"{row.eer:.1%}",
                f"{row.tmr_at_fmr_1e_2:.1%}",
                f"{row.tmr_at_fmr_1e_3:.1%}" if row.impostor >= 1000 else "–",  # too few pairs to measure it
                f"{row.balanced_accuracy:.1%}",
                f"{row.calibration_error:.1%}",
                f"{row.mean_genuine:.2f}",
                f"{row.mean_impostor:.2f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def model_card(record: Record, weights: str) -> str:
    """Return the model card of a trained network.

    Args:
        record: content of its metrics.json, with the training settings.
        weights: where the reader loads the network from, a folder or USER/NAME.
    """
    settings, title = record.settings, record.data.name
    assert settings, "converted weights have a README.md of their own"
    att = title == ATT_NAME
    people = record.identities
    results = [(f"held-out {people}", record.test)]
    if record.folds:
        results.append(("cross-validation", record.folds.pooled))
    # The license of other networks is for their authors to choose.
    license = "mit" if att and not settings.init else None
    card = ModelCard.from_template(
        _card_data(title, license, results, is_faces=people == "people", init=settings.init),
        template_path=str(TEMPLATES / "card_trained.md"),
        title=title,
        record=record,
        settings=settings,
        weights=weights,
        people=people,
        is_att=att,
        table=metrics_table(f"{len(record.people.test)} held-out {people}", record.test, record.folds, record.before),
        command=_command(record, settings),
    )
    return str(card).rstrip() + "\n"


def _card_data(
    title: str, license: str | None, results: list[tuple[str, Report]], is_faces: bool, init: str
) -> ModelCardData:
    """Return the front matter of a card.

    Args:
        title: name of the data set.
        license: identifier of the Hub.
        results: part of the data set, and metrics.
        is_faces: whether it compares faces.
        init: the initial weights, a folder or USER/NAME or USER/NAME@REVISION on the Hub; empty for random weights.
    """
    # No `datasets`: it holds ids on the Hub, and the data are folders.
    return ModelCardData(
        license=license,
        library_name="siamese",
        pipeline_tag="image-feature-extraction",
        tags=[TAG, "contrastive-loss", "image-similarity", *(["face-verification"] if is_faces else [])],
        base_model=hub_id(init),
        metrics=["roc_auc"],
        model_name=f"Siamese network, {title}",
        eval_results=[
            EvalResult("image-similarity", title, f"{title}, {part}", metric, round(value, 4), metric_name=name)
            for part, report in results
            for metric, name, value in (("roc_auc", "ROC AUC", report.auc), ("eer", "Equal error rate", report.eer))
        ],
    )


def _command(record: Record, settings: Settings) -> str:
    """Return the shell command that repeats the training."""
    words = ["siamese", "train", "--data", "att" if record.data.name == ATT_NAME else record.data.name]
    if record.folds:
        words += ["--folds", str(len(record.folds.each))]
    words += ["--recipe", settings.recipe, "--epochs", str(settings.epochs), "--batch-size", str(settings.batch_size)]
    words += ["--lr", str(settings.lr), "--margin", str(settings.margin), "--seed", str(settings.seed)]
    if settings.init:
        words += ["--init", settings.init]
    if settings.align != "none":
        words += ["--align", settings.align]
    if settings.flip:
        words.append("--flip")
    return shlex.join(words)
