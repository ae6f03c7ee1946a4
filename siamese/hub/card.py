"""The model card: the README.md of a trained network, written from its metrics, so that the two cannot disagree."""

import html
import re
import shlex

from huggingface_hub import EvalResult, ModelCardData

from siamese.data.sources import ATT_NAME

TAG = "siamese-network"  # of every card that this project writes
LOAD = """```python
import siamese

model = siamese.load("{weights}")
print(f"ROC AUC {{model.record['test']['auc']:.4f}}")
```

```text
ROC AUC {auc:.4f}
```

`model.compare("a.jpg", "b.jpg")` answers with `dissimilarity`, `threshold`, `probability` and `verdict`.
"""
TRAINING_LOSS = """
![Training loss](loss.png)
"""
ATT_CREDIT = """
The AT&T (ORL) faces are by courtesy of the Olivetti Research Laboratory: Samaria and Harter, "Parameterisation of a
Stochastic Model for Human Face Identification", WACV 1994.
"""
CONFUSED = """
Of the held-out {kinds}, these are confused most:

| one | the other | pairs of the two at most the threshold apart | of |
|---|---|---|---|
"""


def model_card(record: dict, weights: str) -> str:
    """Write the card of a network.

    Args:
        record: the contents of metrics.json.
        weights: where the reader loads it from, a folder or a Hub id.
    """
    return _trained(record, weights) if record["recipe"] else _faces(record, weights)


def _front(title: str, data: str, license: str | None, results: list[EvalResult], faces: bool) -> str:
    return ModelCardData(
        license=license,
        library_name="siamese",
        pipeline_tag="image-feature-extraction",
        tags=[TAG, "contrastive-loss", "image-similarity", *(["face-verification"] if faces else [])],
        datasets=[name] if (name := re.sub(r"[^a-z0-9]+", "-", data.replace("&", "").lower()).strip("-")) else None,
        metrics=["roc_auc"],
        model_name=f"Siamese network, {title}",
        eval_results=results,
    ).to_yaml()


def _results(data: str, parts: list[tuple[str, dict]]) -> list[EvalResult]:
    return [
        EvalResult("image-similarity", data, f"{data}, {part}", kind, round(report[key], 4), metric_name=name)
        for part, report in parts
        for key, kind, name in (("auc", "roc_auc", "ROC AUC"), ("eer", "eer", "Equal error rate"))
    ]


def _trained(record: dict, weights: str) -> str:
    recipe, people, test, folds = record["recipe"], record["people"], record["test"], record["folds"]
    title = record["data"]["name"]
    att = title == ATT_NAME
    kinds = "people" if att or recipe.get("align") == "faces" else "kinds"
    results = [(f"held-out {kinds}", test)] + ([("cross-validation", folds["pooled"])] if folds else [])
    # Of a network of their own, users say the licence.
    front = _front(
        title, title, "mit" if att and "init" not in recipe else None, _results(title, results), kinds == "people"
    )
    calibrated_on = (
        f"pairs of {len(people['training'])} {kinds}, each scored by a network of this recipe that had not seen them."
        if folds
        else f"the pairs of the held-out {kinds}. (The accuracy and calibration error above are at a curve fitted on\n"
        f"the training {kinds}, so that they do not judge themselves, and worse for it; `--folds 5` does better.)"
    )
    command = f"siamese train --data {'att' if att else shlex.quote(title)}"
    command += f" --folds {len(folds['each'])}" if folds else ""
    command += "".join(
        f" --{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for name, value in recipe.items()
        if value is not False
    )
    confused = ""
    if rows := [f"| {_cell(a)} | {_cell(b)} | {share:.0%} | {count:,} |" for a, b, share, count in record["confused"]]:
        confused = CONFUSED.format(kinds=kinds) + "\n".join(rows) + "\n"
    count = len(people["training"])
    learned = f"Trained with the contrastive loss on pairs of {count} {kinds}."
    if "init" in recipe and recipe["epochs"]:
        kept = f" and kept the first {recipe['freeze']} of its stages as they were" if recipe["freeze"] else ""
        learned += (
            f"\nThe training began from the weights {recipe['init']}{kept}; whom these had seen, their card says."
        )
    elif "init" in recipe:
        learned = (
            f"The network is that of the weights {recipe['init']}, whose\ncard says whom it has seen, with a last "
            f"layer fitted to {count} {kinds}, where that helped others."
        )
    return f"""---
{front}
---

# Siamese network, {title}

Two images in, one number out: the Euclidean distance between two embeddings made with the same weights. Lower is more
alike. {learned}

{LOAD.format(weights=weights, auc=record["test"]["auc"])}
## How well it does

Of {kinds} that it has not seen; every pair of their images, or of very many a sample.

{metrics_table(f"{len(people['test'])} held-out {kinds}", test, folds, record.get("before"))}

A distance becomes a probability by a logistic curve fitted on
{calibrated_on}

![ROC curve of the held-out {kinds}](roc.png)

![Distances of pairs of the held-out {kinds}, and the accuracy's threshold](distances.png)
{confused}
## How it was made

```bash
{command}
```

{record["minutes"]} minutes for the network itself ({record["device"]}); versions and losses are in metrics.json.
{TRAINING_LOSS if record["loss"]["values"] else ""}{ATT_CREDIT if att else ""}"""


def _cell(name: str | int) -> str:
    """Return a name as a table in Markdown shows it."""
    return html.escape(str(name), quote=False).replace("|", "\\|")


def _faces(record: dict, weights: str) -> str:
    folds, source = record["folds"], record["source"]
    points = "\n".join(
        f"| {point['fmr']:.0e} | {point['distance']:.3f} | {point['fnmr']:.1%} |"
        for point in record["test_calibration"]["points"]
    )
    return f"""---
{_front("faces", "LFW", "cc0-1.0", _results("LFW", [("View 2", folds["pooled"])]), faces=True)}
---

# Siamese network, faces

Two photographs in, one number out: the Euclidean distance between the embeddings of the two faces, made with the same
weights. Lower is more alike; 0 to 2. The faces are found and brought upright first.

{LOAD.format(weights=weights, auc=record["test"]["auc"])}
## What it is

Davis King's face network of dlib, a residual network of 29 convolutions that was trained on about three million
photographs of 7,485 people with a contrastive loss over all pairs of a batch; its author put it into the public domain.
About half of the photographs are those of VGG Face and FaceScrub, he says, and the others he gathered from the web.
Converted from {source["file"]} in the package {source["package"]}, with the same embeddings to 1e-5. An embedding is
the mean over the face and its mirror image, scaled to length 1.

## How well it does

LFW, View 2, whose people its author kept out of the training: **{folds["accuracy"]:.2%} ± {folds["accuracy_std"]:.2%}**
of the pairs are told right, with the threshold of each fold taken from the other nine. A face was found in all but
{folds["without_face"]} of the {folds["images"]:,} photographs.

{metrics_table("LFW, View 2", record["test"], folds)}

A distance becomes a probability by a logistic curve fitted on LFW; the calibration errors above are of curves fitted on
the other nine folds. False-match rates are measured on all {record["impostor_pairs"]:,} pairs of different people among
these photographs, false-non-match rates on the genuine pairs in which both faces were found:

| false-match rate | threshold | false-non-match rate |
|---|---|---|
{points}

![ROC curve on LFW](roc.png)

## What it is not for

It knows some groups worse than others: of the 30 closest pairs of different people in LFW, which metrics.json lists, 25
are, by name and eye, of two East or Southeast Asian people. (Nine pairs of names were found to be of one person each,
and are counted so.) Children, twins and siblings, and faces in profile are confused more often than these numbers say;
LFW shows mostly adults, public figures of 2002 to 2004. It does not notice a photograph of a photograph. Do not
identify strangers with it, and decide nothing that matters by it alone.

## Credits

Davis E. King, dlib; packaged by Adam Geitgey. LFW: Huang, Ramesh, Berg and Learned-Miller, "Labeled Faces in the Wild",
2007.
"""


def metrics_table(title: str, test: dict, folds: dict | None, before: dict | None = None) -> str:
    """Return reports (see `metrics.report`) as a Markdown table.

    Args:
        title: whom `test` was measured on.
        test: a report.
        folds: `{"each": [report, …], "pooled": report}`, perhaps with `before`, or None.
        before: of the network that training began from, or None.
    """
    rows = [(title, test)]
    if before:
        rows += [("the same, before training", before)]
    if folds:
        count = len(folds["each"])
        rows += [(f"fold {number} of {count}", fold) for number, fold in enumerate(folds["each"], 1)]
        rows += [(f"all {count} folds together", folds["pooled"])]
        if "before" in folds:
            rows += [("the same, before training", folds["before"])]
    lines = [
        "| | pairs | AUC | EER | TMR at FMR 1e-2 | at 1e-3 | balanced accuracy | calibration error "
        "| mean distance, genuine | impostor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in rows:
        lines.append(
            f"| {name} | {r['genuine'] + r['impostor']:,} | {_auc(r['auc'])} | {r['eer']:.1%} "
            f"| {r['tmr_at_fmr_1e_2']:.1%} "
            # One in a thousand of fewer than a thousand is none at all, and says nothing.
            f"| {format(r['tmr_at_fmr_1e_3'], '.1%') if r['impostor'] >= 1000 else '–'} | {r['balanced_accuracy']:.1%} "
            f"| {r['calibration_error']:.1%} "
            f"| {r['mean_genuine']:.2f} | {r['mean_impostor']:.2f} |"
        )
    return "\n".join(lines)


def _auc(value: float) -> str:
    """Three digits, or as many as tell it from 1."""
    return f"{value:.3f}" if value < 0.9985 else f"{value:.5f}"
