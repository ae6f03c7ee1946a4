"""The model card, and the way to the Hugging Face Hub."""

import json
from pathlib import Path

from huggingface_hub import CommitOperationAdd, EvalResult, HfApi, ModelCardData, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from siamese import data, metrics

# Not pairs.png: it shows photographs of the training data, which may not be the user's to publish.
PUBLISHED = ("config.json", "model.safetensors", "metrics.json", "loss.png", "roc.png")

ATT_CREDIT = """
The AT&T (ORL) faces are by courtesy of the Olivetti Research Laboratory: Samaria and Harter, "Parameterisation of a
Stochastic Model for Human Face Identification", WACV 1994.
"""


def model_card(record: dict, weights: str) -> str:
    """Write the README.md of a trained network from its metrics, so that the two cannot disagree.

    Args:
        record: the contents of metrics.json.
        weights: where the reader loads it from, a folder or a Hub id.
    """
    recipe, people, test, folds = record["recipe"], record["people"], record["test"], record["folds"]
    title = record["data"]["name"]
    att = title == data.ATT_NAME
    results = [("held-out people", test)] + ([("cross-validation", folds["pooled"])] if folds else [])
    front = ModelCardData(
        license="mit" if att else None,  # of a network of their own, users say
        library_name="siamese",
        pipeline_tag="image-feature-extraction",
        tags=["siamese-network", "contrastive-loss", "image-similarity", "face-verification"],
        metrics=["roc_auc"],
        model_name=f"Siamese network, {title}",
        eval_results=[
            EvalResult("image-similarity", title, f"{title}, {split}", kind, round(report[key], 4), metric_name=name)
            for split, report in results
            for key, kind, name in (("auc", "roc_auc", "ROC AUC"), ("eer", "eer", "Equal error rate"))
        ],
    )
    calibrated_on = (
        f"pairs of {len(people['training'])} people, each scored by a network of this recipe that had not seen them."
        if folds
        else "the pairs of the held-out people. (The accuracy and calibration error above are at a curve fitted on\n"
        "the training people, so that they do not judge themselves, and worse for it; `--folds 5` does better.)"
    )
    command = f"siamese train --data {'att' if att else title}" + (f" --folds {len(folds['each'])}" if folds else "")
    command += "".join(f" --{name.replace('_', '-')} {value}" for name, value in recipe.items())
    return f"""---
{front.to_yaml()}
---

# Siamese network, {title}

Two images in, one number out: the Euclidean distance between two embeddings made with the same weights. Lower is more
alike. Trained with the contrastive loss on pairs of {len(people["training"])} people.

```python
import siamese

model = siamese.load("{weights}")
print(model.compare("a.jpg", "b.jpg").dissimilarity)
```

## How well it does

People whom it has not seen; every pair of their images.

{metrics.table(f"{len(people['test'])} held-out people", test, folds)}

A distance becomes a probability by a logistic curve fitted on
{calibrated_on}

![ROC curve of the held-out people](roc.png)

## How it was made

```bash
{command}
```

{record["minutes"]} minutes for the network itself ({record["device"]}); versions and losses are in metrics.json.

![Training loss](loss.png)
{ATT_CREDIT if att else ""}"""


def check(repo_id: str) -> None:
    """Refuse what a push would fail on, before a training begins.

    Raises:
        ValueError: where `repo_id` is not USER/NAME, or no token is there.
    """
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError
    except HFValidationError as error:
        raise ValueError(f"a repository on the Hub is named USER/NAME, got {repo_id!r}") from error
    if not get_token():
        raise ValueError("no Hugging Face token: run `hf auth login`, or set HF_TOKEN to one that may write")


def push(folder: Path, repo_id: str, private: bool = False) -> str:
    """Push a result folder to the Hub in one commit, creating the repository if need be; safe to repeat.

    Args:
        folder: what `train` wrote.
        repo_id: USER/NAME.
        private: whether a new repository is to be private.

    Returns:
        The address of the model.

    Raises:
        ValueError: where the name, the folder or the token will not do.
        ConnectionError: where the Hub cannot be reached or refuses; no file was changed, and it can be run again.
    """
    check(repo_id)
    if missing := [name for name in PUBLISHED if not (folder / name).is_file()]:
        raise ValueError(f"{folder} is not a trained network: {', '.join(missing)} missing; `siamese train` makes them")
    card = model_card(json.loads((folder / "metrics.json").read_text()), repo_id)
    operations = [CommitOperationAdd(name, folder / name) for name in PUBLISHED]
    operations.append(CommitOperationAdd("README.md", card.encode()))
    api, again = HfApi(), f"run `siamese push {folder} {repo_id}`"
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message="Upload Siamese network")
    except OfflineModeIsEnabled as error:
        raise ConnectionError("HF_HUB_OFFLINE is set; unset it to push") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        why = {401: "the token is not valid", 403: "the token may not write there"}.get(status, f"it answered {status}")
        raise ConnectionError(f"the Hub did not take {repo_id}: {why}. Once that is mended, {again}") from error
    except (HTTPError, OSError) as error:  # the client's own, whichever HTTP library it uses
        raise ConnectionError(f"the Hub cannot be reached ({error}). With a network, {again}") from error
    return str(url)
