"""What the page says of a network, in Markdown, by the numbers that came with it."""

from pathlib import Path

from siamese.model import Model

TRAIN_YOUR_OWN = """
**Train your own.** `siamese train --data FOLDER`, with one folder of pictures for each person or thing, makes a
network for this page: `SIAMESE_WEIGHTS=runs/FOLDER python app.py`. `siamese deploy` brings both to a Space.
"""
CREDIT = """
Example photographs: the White House and NASA, in the public domain.
"""
FACES_FAIL = """
**Where it fails.** It confuses children, twins and siblings, faces in profile, and people of groups that its training
photographs showed seldom, more often than these numbers say. It does not notice a photograph of a photograph. Do not
identify strangers with it, and decide nothing that matters by it alone.
"""


def about(model: Model) -> str:
    """Describe the loaded network by the numbers that came with it."""
    record, name, (_, height, width) = model.record, Path(model.name).name, model.network.input_shape
    if not record["recipe"]:
        return _faces(model)
    folds = record["folds"]
    report = folds["pooled"] if folds else record["test"]
    training, test = (len(record["people"][side]) for side in ("training", "test"))
    tested = training + test if folds else test
    looks = (
        f"It looks at the whole picture, squeezed to {width} × {height}: show what matters upright, and little else."
    )
    at = f" (`{model.id}`)" if model.revision else ""
    start = ", having begun from other weights" if record["recipe"].get("init") else ""
    if model.align == "faces":
        looks = f"It finds the faces, and brings them upright.\n{FACES_FAIL}"
    one, many = _kinds(model)
    return f"""
Each picture becomes a point, by the same weights; the dissimilarity is the distance of the two points. This network,
**{name}**{at}, learned from pictures of {training} {many}{start}. Networks of its recipe,
tested on {tested} {many} that they had not seen, put two pictures of one {one} closer together than two of different
{many} {report["auc"]:.1%} of the time (ROC AUC).

{looks} Other lighting, backgrounds and cameras than in its pictures mislead it. Do not decide anything that matters by
it.
{TRAIN_YOUR_OWN}{CREDIT if model.align == "faces" else ""}"""


def _faces(model: Model) -> str:
    folds = model.record["folds"]
    points = "\n".join(
        f"| {round(1 / point.fmr):,} | {point.distance:.2f} | {point.fnmr:.1%} |"
        for point in model.calibration.operating_points
    )
    return f"""
The faces are found, brought upright, and each becomes a point, by the same weights; the dissimilarity is the distance
of the two points. On the {folds["images"]:,} photographs of LFW, of people whom the network had not seen, it tells
{folds["accuracy"]:.1%} of the pairs right, and its probabilities are off by {folds["pooled"]["calibration_error"]:.1%}.

| one false match in … pairs of different people | dissimilarity up to | misses of pairs of one person |
|---|---|---|
{points}

**What it learned from.** About three million photographs of 7,485 people, by Davis King, for dlib; he put the network
into the public domain.

{FACES_FAIL}
{TRAIN_YOUR_OWN}{CREDIT}"""


def introduction(model: Model, notice: str = "") -> str:
    """Say what happens with the photos and, where little is to be expected, that.

    Args:
        model: which the page shows.
        notice: a sentence on it that everybody is to see first.
    """
    text = "Two pictures in, how alike they are out. Uploads are deleted within the hour, and passed on to nobody."
    if notice:
        text += f"\n\n> **Note.** {notice}"
    if model.align == "faces":
        return text
    count, (_, many) = len(model.record["people"]["training"]), _kinds(model)
    return (
        f"{text}\n\nThis network learned from pictures of {count} {many}, and knows little beyond: with pictures "
        "unlike those, expect mistakes."
    )


def _kinds(model: Model) -> tuple[str, str]:
    """Return what the network tells apart, one and many."""
    return ("person", "people") if model.align == "faces" else ("kind", "kinds")
