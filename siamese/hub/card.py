"""Model cards: the README.md of a trained network, rendered from its record."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from siamese import summary
from siamese.checkpoint import hub_id, public_name
from siamese.model import Model
from siamese.names import markdown_text, printable
from siamese.record import ATT_NAME, Folds, Record, Report

TAG = "siamese-network"  # of every card that this project writes
TEMPLATES = Path(__file__).parent / "templates"
# Licenses that the Hub knows by these names, of those that networks often have.
LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "mpl-2.0", "openrail"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
    *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0"),
)


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
            "balanced accuracy": "–" if row.balanced_accuracy is None else f"{row.balanced_accuracy:.1%}",
            "calibration error": "–" if row.calibration_error is None else f"{row.calibration_error:.1%}",
            "mean genuine distance": f"{row.mean_genuine:.2f}",
            "mean impostor distance": f"{row.mean_impostor:.2f}",
        }
        for name, row in rows
    ]
    lines = [table[0], ["---"] * len(table[0]), *(row.values() for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def model_card(model: Model, record: Record, weights: str) -> str:
    """Return the model card of a trained network, without local paths.

    Args:
        model: the network.
        record: of the network; it may be an anonymised one.
        weights: what readers load the network from, a folder or USER/NAME.
    """
    assert record.settings, "converted weights have a README.md of their own"
    settings = replace(record.settings, init=public_name(record.settings.init))
    title, people, source = record.data.name, record.identities, record.source
    is_att = title == ATT_NAME
    results = [(f"held-out {people}", record.test)]
    if record.folds:
        results.append(("cross-validation", record.folds.pooled))
    data = ModelCardData(  # without `datasets`, which would hold ids on the Hub: the data are folders
        # A license that nothing states is for the authors to choose.
        **_license(source.license if source else "mit" if is_att and not settings.init else ""),
        library_name="siamese",
        pipeline_tag="image-feature-extraction",
        tags=[TAG, "contrastive-loss", "image-similarity", *(["face-verification"] if people == "people" else [])],
        base_model=hub_id(settings.init),
        metrics=["roc_auc"],
        model_name=f"Siamese network, {title}",
        eval_results=[row for part, report in results for row in _eval_results(title, f"{title}, {part}", report)],
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
        accuracy=summary.describe_accuracy(record),
        rates=summary.describe_rates(record, model.calibration),
        limitations=summary.limitations(record, settings.align == "faces") + summary.warnings(record),
        has_license=bool(model.license_text),
        uses_timm=model.network.uses_timm,
        table=metrics_table(f"{len(record.people.test)} held-out {people}", record.test, record.folds, record.before),
        quote=lambda argument: shlex.quote(printable(argument)),
        text=markdown_text,
    )
    return str(card).rstrip() + "\n"


def _license(stated: str) -> dict[str, Any]:
    """Return the front matter of a license: a name that the Hub knows, or "other" with its name."""
    name = stated.lower()
    if not name or name in LICENSES:
        return {"license": name or None}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name).strip("-") or None}


def _eval_results(data: str, name: str, report: Report) -> list[EvalResult]:
    """Return the metrics of one set of pairs, which the Hub displays."""
    metrics = (("roc_auc", "ROC AUC", report.auc), ("eer", "Equal error rate", report.eer))
    return [
        EvalResult("image-similarity", data, name, metric, round(value, 4), metric_name=title)
        for metric, title, value in metrics
    ]


def imported_card(model: Model, record: Record, weights: str) -> str:
    """Return the model card of an imported network, see `model_card`."""
    network, source, lfw = model.network, record.source, record.lfw
    assert network.onnx, "it was imported"
    assert source, "it was imported"
    assert lfw, "it was judged on LFW"
    title = f"{Path(source.file).stem}, imported"
    data = ModelCardData(
        **_license(source.license),
        library_name="siamese",
        pipeline_tag="image-feature-extraction",
        tags=[TAG, "onnx", "image-similarity", "face-verification"],
        metrics=["roc_auc"],
        model_name=title,
        eval_results=_eval_results("LFW", record.data.name, record.test),
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATES / "card_imported.md"),
        title=title,
        weights=weights,
        network=network,
        onnx=network.onnx,
        source=source,
        lfw=lfw,
        calibration=record.test_calibration,
        table=metrics_table(markdown_text(record.data.name), record.test, record.folds),
        text=markdown_text,
        numbers=lambda values: ", ".join(f"{value:g}" for value in dict.fromkeys(values)),
    )
    return str(card).rstrip() + "\n"
