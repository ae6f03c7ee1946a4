"""Model cards: the README.md of a trained network, rendered from its record."""

import shlex
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from siamese.checkpoint import hub_id
from siamese.record import ATT_NAME, Folds, Record, Report

TAG = "siamese-network"  # of every card that this project writes
TEMPLATES = Path(__file__).parent / "templates"


def metrics_table(title: str, report: Report, folds: Folds | None = None, before: Report | None = None) -> str:
    """Return reports as a Markdown table; `before` is of the initial weights on the pairs of `report`."""
    rows = [(title, report)]
    if before:
        rows.append(("the same, before training", before))
    if folds:
        count = len(folds.each)
        rows += [(f"fold {number} of {count}", fold) for number, fold in enumerate(folds.each, 1)]
        rows.append((f"all {count} folds", folds.pooled))
        if folds.before:
            rows.append(("the same, before training", folds.before))
    table = [
        {
            "": name,
            "pairs": f"{row.genuine + row.impostor:,}",
            "AUC": f"{row.auc:.3f}" if row.auc < 0.9985 else f"{row.auc:.5f}",  # not "1.000"
            "EER": f"{row.eer:.1%}",
            "TMR at FMR 1e-2": f"{row.tmr_at_fmr_1e_2:.1%}",
            "TMR at FMR 1e-3": f"{row.tmr_at_fmr_1e_3:.1%}" if row.impostor >= 1000 else "–",  # else too few pairs
            "balanced accuracy": f"{row.balanced_accuracy:.1%}",
            "calibration error": f"{row.calibration_error:.1%}",
            "mean genuine distance": f"{row.mean_genuine:.2f}",
            "mean impostor distance": f"{row.mean_impostor:.2f}",
        }
        for name, row in rows
    ]
    lines = [table[0], ["---"] * len(table[0]), *(row.values() for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def model_card(record: Record, weights: str) -> str:
    """Return the model card of a trained network, which its readers load from `weights`, a folder or USER/NAME."""
    settings, title, people = record.settings, record.data.name, record.identities
    assert settings, "converted weights have a README.md of their own"
    is_att = title == ATT_NAME
    results = [(f"held-out {people}", record.test)]
    if record.folds:
        results.append(("cross-validation", record.folds.pooled))
    data = ModelCardData(  # without `datasets`, which would hold ids on the Hub: the data are folders
        license="mit" if is_att and not settings.init else None,  # others are for their authors to choose
        library_name="siamese",
        pipeline_tag="image-feature-extraction",
        tags=[TAG, "contrastive-loss", "image-similarity", *(["face-verification"] if people == "people" else [])],
        base_model=hub_id(settings.init),
        metrics=["roc_auc"],
        model_name=f"Siamese network, {title}",
        eval_results=[
            EvalResult("image-similarity", title, f"{title}, {part}", metric, round(value, 4), metric_name=name)
            for part, report in results
            for metric, name, value in (("roc_auc", "ROC AUC", report.auc), ("eer", "Equal error rate", report.eer))
        ],
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATES / "card_trained.md"),
        title=title,
        record=record,
        settings=settings,
        weights=weights,
        people=people,
        is_att=is_att,
        table=metrics_table(f"{len(record.people.test)} held-out {people}", record.test, record.folds, record.before),
        quote=shlex.quote,
    )
    return str(card).rstrip() + "\n"
