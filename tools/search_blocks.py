"""The results blocks about folders of photos, see make_docs.py."""

from markdown_format import bullets, paragraph, table
from measurements import results

from siamese.search.strictness import GROUP_FMR


def search_find() -> str:
    found = results("search")["find"]
    rows = []
    for name in ("siamese", "face_recognition"):
        ranked = found[name]
        rows.append([name, f"{ranked['recall_at_1']:.1%}", f"{ranked['mean_average_precision']:.1%}"])
    return table(["", "closest photo is right", "mean average precision"], rows)


def search_strictness() -> str:
    found = results("search")["find"]
    rows = [
        [
            f"`--fmr {rate}`",
            f"{at['threshold']:.3f}",
            f"{at['found']:.1%}",
            f"{at['false_matches']:.3f}",
            f"{at['with_more_than_announced']:.1%}",
        ]
        for rate, at in found["rates"].items()
    ]
    peer = found["face_recognition"]["default"]
    rows.append(
        ["face_recognition", f"{peer['threshold']:.3f}", f"{peer['found']:.1%}", f"{peer['false_matches']:.0f}", "–"]
    )
    header = ["", "threshold", "found", "false matches per search", "searches with more than announced"]
    return table(header, rows)


def search_probability() -> str:
    bins = results("search")["find"]["probability"]
    rows = [[f"{b['announced']:.1%}", f"{b['same']:.1%}", f"{b['faces']:,}"] for b in bins]
    return table(["announced probability", "share that is the person", "faces"], rows)


def search_find_basis() -> str:
    found = results("search")["find"]
    return paragraph(
        f"""Each of the {found["siamese"]["searches"]:,} people in LFW with several photos is searched once: the first
        photo is the portrait, and the others are to be found among {found["faces"]:,} photos. face_recognition is used
        at its default threshold."""
    )


def search_group() -> str:
    grouped = results("search")["group"]
    systems = {f"siamese, `--fmr {rate}`": scores for rate, scores in grouped["siamese"].items()}
    usual, best = grouped["face_recognition"]["0.5"], best_whispers(grouped)
    systems["face_recognition and Chinese whispers at 0.5"] = usual
    systems[f"the same at its best threshold, {best['threshold']}"] = best
    rows = [
        [name, f"{x['groups']:,}", f"{x['precision']:.1%}", f"{x['recall']:.1%}", f"{x['f']:.1%}"]
        for name, x in systems.items()
    ]
    return table(["", "groups", "B-cubed precision", "recall", "F"], rows)


def search_group_basis() -> str:
    grouped = results("search")["group"]
    ours = grouped["siamese"][f"{GROUP_FMR:g}"]
    return paragraph(
        f"""All {grouped["photos"]:,} photos of the {grouped["people"]:,} people in LFW; some people have two names
        there, which count as one. The best threshold of face_recognition was chosen on the same photos, which favours
        it. Ours is from the calibration alone; the default rate of {GROUP_FMR:g} was chosen on LFW's View 1. Of our
        groups, {ours["left_over"]} are single faces that are too poor to group."""
    )


def best_whispers(grouped: dict) -> dict:
    """Return the best result of face_recognition, with its threshold."""
    threshold, scores = max(grouped["face_recognition"].items(), key=lambda item: item[1]["f"])
    return {**scores, "threshold": threshold}


def search_speed() -> str:
    speed, embed = results("search")["speed"], results("search")["embed"]
    return bullets(
        f"""Embedding a folder handles {speed["times_faster"]:.1f} times as many photos of LFW a second as
        `Model.embed` of version 0.1 did, and finds all faces instead of one per photo (both in turns on
        {speed["cores"]} cores).""",
        f"""LFW has {embed["photos"]:,} photos, in which {embed["faces"]:,} faces are found. Embedding takes
        {1000 * embed["cpu_seconds"] / embed["photos"]:.0f} ms of processor time per photo.""",
    )


def search_scale() -> str:
    rows = []
    for what, title in (("find", "find one person"), ("group", "group all")):
        for count, at in results("search")["scale"][what].items():
            memory = max(0, at["peak_mb"] - at["before_mb"])
            seconds = f"{at['seconds']:.0f} s" if at["seconds"] >= 10 else f"{at['seconds']:.2g} s"
            rows.append([title, f"{int(count):,}", seconds, f"{memory} MB"])
    return table(["", "faces", "time", "memory above the empty process"], rows)


def search_scale_basis() -> str:
    return paragraph(
        """The faces are embeddings of LFW with noise. Measured on two CPU cores that also ran other programs. The time
        to embed the portrait is not included."""
    )


SEARCH_BLOCKS = (
    search_find,
    search_strictness,
    search_probability,
    search_find_basis,
    search_group,
    search_group_basis,
    search_speed,
    search_scale,
    search_scale_basis,
)
