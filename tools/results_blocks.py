"""The results blocks of README.md and docs/*.md: one function per block, see make_docs.py.

The numbers come from benchmarks/results/*.json and weights/faces/metrics.json.
"""

import json
from collections.abc import Callable
from pathlib import Path

from markdown_format import bullets, one_in, paragraph, table

from siamese.model import VERDICT_PROBABILITY
from siamese.page.charts import PairDistances
from siamese.record import Record

ROOT = Path(__file__).parent.parent
SEEDS = (0, 1, 2)
DETECT_FACES = ("siamese", "face_recognition")  # the other systems take the middle of the photo
# Judged by name and by eye, from the list `lfw.closest_impostors` in weights/faces/metrics.json.
EAST_ASIAN_CLOSEST = 25


# Read the measurements


def results(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def faces() -> Record:
    """Return the record of the face network."""
    return Record.from_json((ROOT / "weights" / "faces" / "metrics.json").read_bytes())


def default_operating_point() -> tuple[float, float, float]:
    """Return the false-match rate, the distance and the false-non-match rate of the default verdict "same"."""
    record = faces()
    distance, pairs = record.test_calibration.distance_at(VERDICT_PROBABILITY), PairDistances(record.curves)
    return pairs.fmr_at(distance), distance, 1 - pairs.tmr_at(distance)


# README.md and docs/accuracy.md


def lfw_short() -> str:
    rows = ([row[0], row[1], row[4], row[6]] for row in lfw_rows() if row[0] in DETECT_FACES)
    return table(["system", "accuracy", "TMR at FMR 1e-3", "photos without a detected face"], rows)


def lfw_full() -> str:
    rates = ["AUC", "EER", "TMR at FMR 1e-3", "calibration error"]
    return table(["system", "accuracy", *rates, "photos without a detected face"], lfw_rows())


def lfw_rows() -> list[list[str]]:
    rows = []
    for name, system in results("peers")["systems"].items():
        report = system["pooled"]
        rates = f"{report['eer']:.2%}", f"{report['tmr_at_fmr_1e_3']:.1%}", f"{report['calibration_error']:.1%}"
        accuracy = f"{system['accuracy']:.2%} ± {system['accuracy_std']:.2%}"
        missed = f"{system['without_face']} of {system['images']:,}" if name in DETECT_FACES else "–"
        rows.append([name, accuracy, f"{report['auc']:.4f}", *rates, missed])
    return rows


def thresholds_short() -> str:
    fmr, _, fnmr = default_operating_point()
    strict = faces().test_calibration.operating_point(1e-3)
    return paragraph(
        f"""By default, {one_in(fmr)} pairs of different people is wrongly called "same" (the false-match rate, FMR),
        and {fnmr:.1%} of the pairs that show the same person are missed. With `model.compare(a, b, fmr=1e-3)`, or
        `siamese compare A B --fmr 0.001` in the shell, {one_in(1e-3)} is called "same", and {strict.fnmr:.1%} are
        missed."""
    )


def operating_points() -> str:
    rows = [
        (point.fmr, one_in(point.fmr), point.distance, point.fnmr)
        for point in faces().test_calibration.operating_points
    ]
    fmr, distance, fnmr = default_operating_point()
    rows.append((fmr, f"{one_in(fmr)} (default)", distance, fnmr))
    return table(
        ["false-match rate (FMR)", "threshold", "false-non-match rate (FNMR)"],
        ([rate, f"{distance:.3f}", f"{fnmr:.1%}"] for _, rate, distance, fnmr in sorted(rows, reverse=True)),
    )


def operating_points_basis() -> str:
    record = faces()
    return paragraph(
        f"""The false-match rates are measured on all {record.lfw.impostor_pairs:,} pairs of different people
        among the {record.lfw.images:,} photos of LFW's View 2. The false-non-match rates are measured on the
        {sum(record.curves.genuine):,} genuine pairs in which both faces were found."""
    )


def calibration() -> str:
    error = faces().folds.pooled.calibration_error
    return paragraph(
        f"On folds of LFW that the curve was not fitted on, the expected calibration error is {error:.2%}."
    )


def closest_impostors() -> str:
    closest = len(faces().lfw.closest_impostors)
    return bullets(
        f"""**Some groups of people.** Of the {closest} closest pairs of different people in LFW, {EAST_ASIAN_CLOSEST}
        show two East or Southeast Asian people (judged by name and by eye)."""
    )


def hard_photos() -> str:
    hard, report = results("hard_photos"), results("att_faces")["test"]
    whole, tight, turned = hard["whole"], hard["tight"], hard["turned"]
    return bullets(
        f"""**Photos cropped to the face.** {tight["accuracy"]:.1%} of the pairs in one fold of LFW are correct; with
        the full photos {whole["accuracy"]:.1%} are.""",
        f"""**Photos on their side or upside down.** In {turned["right"]:.1%} of {turned["images"]} photos the face is
        found and turned upright.""",
        f"""**AT&T faces, without training on them.** AUC {report["auc"]:.5f}, EER {report["eer"]:.2%} over all
        {report["genuine"] + report["impostor"]:,} pairs.""",
    )


def saliency() -> str:
    result = results("saliency")
    blurred = result["change"]["blurred"]
    rows = (
        [f"{kind} pairs", *(f"{blurred[kind][part]['size']:.3f}" for part in ("hottest", "random"))]
        for kind in ("genuine", "impostor")
    )
    header = [f"mean change of the distance, {result['pairs']} pairs of LFW", "marked tenth", "random tenth"]
    return table(header, rows)


def speed() -> str:
    compare, page = results("peers")["speed"], results("page")
    rows = [
        ["compare two files of 250 × 250 pixels, with the models loaded", f"{compare['ours'] * 1000:.0f} ms"],
        ["the same with face_recognition", f"{compare['face_recognition'] * 1000:.0f} ms"],
        ["compare two JPEGs of 12 megapixels", f"{compare['ours_12_megapixels']:.2f} s"],
        ["start of the page until it is ready", f"{page['ready_s']:.1f} s"],
        ["click on an example until the answer", f"{page['click_to_verdict_s']:.2f} s"],
        ["group 40 photos of 12 megapixels", f"{page['forty_photos_s']:.1f} s"],
        ["one comparison over HTTP, with its upload (median)", f"{page['alone_median_s']:.2f} s"],
        ["32 clients without a pause: answers per second", f"{page['together_per_second']:.1f}"],
        ["32 clients without a pause: 95% are answered within", f"{page['together_p95_s']:.1f} s"],
        ["memory of the page", f"{page['resident_mb'] / 1000:.1f} GB"],
        ["growth of this memory after 300 comparisons", f"{page['memory_growth']:.0%}"],
    ]
    return table(["", "measured"], rows)


# docs/training.md


def fine_tuning() -> str:
    att, lfw = results("fine_tuning")["att"], results("fine_tuning")["lfw"]
    rows = [
        ["AT&T, five folds of people", f"{att['before']['eer']:.2%}", f"{att['after']['eer']:.2%}"],
        [
            f"LFW, {sum(lfw['people'].values()):,} people, {lfw['people']['test']} of them held out",
            f"{lfw['before']['eer']:.2%}",
            f"{lfw['after']['eer']:.2%}",
        ],
    ]
    return table(["data", "EER before", "EER after"], rows)


def fold_rows(recipe: str, first: Callable[[dict], list[str]]) -> list[list[str]]:
    rows = []
    for seed in SEEDS:
        record = results(f"att-{recipe}-seed{seed}")
        pooled = record["folds"]["pooled"]
        cells = [str(seed), *first(record), *(f"{fold['auc']:.3f}" for fold in record["folds"]["each"])]
        rates = (pooled[name] for name in ("eer", "tmr_at_fmr_1e_2", "balanced_accuracy"))
        rows.append([*cells, f"{pooled['auc']:.3f}", *(f"{rate:.1%}" for rate in rates)])
    return rows


FOLD_COLUMNS = [*(f"fold {k}" for k in range(1, 6)), "all folds, AUC", "EER", "TMR at FMR 1e-2", "balanced accuracy"]


def tutorial_recipe() -> str:
    rows = fold_rows("tutorial", lambda record: [f"{record['test']['auc']:.3f}"])
    return table(["seed", "s5–s7, AUC", *FOLD_COLUMNS], rows)


def tutorial_calibration() -> str:
    errors = [results(f"att-tutorial-seed{seed}")["folds"]["pooled"]["calibration_error"] for seed in SEEDS]
    first, second, third = (f"{error:.1%}" for error in errors)
    return paragraph(f"The calibration error over all folds is {first}, {second} and {third} for seeds 0, 1 and 2.")


def modern_recipe() -> str:
    return table(["seed", *FOLD_COLUMNS], fold_rows("modern", lambda record: []))


def digits() -> str:
    result = results("digits")
    return paragraph(
        f"""Trained on scikit-learn's handwritten digits from 0 to 6, the network separates pairs of the digits 7, 8 and
        9 with an AUC of {result["mean_auc"]:.3f} (mean of {len(result["auc"])} seeds). Raw pixels reach
        {result["raw_pixels_auc"]:.3f}. Training takes {result["seconds_each"]:.0f} s per seed."""
    )


def memory() -> str:
    rows = (
        [f"{run['images']:,}", run["in"], f"{run['pixels_mb']:,} MB", f"{run['most_mb']:,} MB"]
        for run in results("large")
    )
    return table(["images", "images kept in", "size of the images", "peak memory of the process"], rows)


def train_speed() -> str:
    measured = results("train_speed")
    rows = (
        [name, f"{arm['seconds']:.0f} s", str(arm["images_per_second"]), f"{arm['auc']:.3f}"]
        for name, arm in (("plain loop of the tutorial", measured["plain"]), ("`siamese train`", measured["ours"]))
    )
    return table(["", f"{measured['epochs']} epochs", "images per second", "AUC on s5–s7"], rows)


def train_speed_notes() -> str:
    tutorial, modern = results("train_speed"), results("modern_speed")
    floor, seconds = tutorial["floor"], modern["seconds_all_folds"]
    return bullets(
        f"""`siamese train` is {tutorial["speedup"]:.1f} times as fast as the plain loop. An epoch takes
        {floor["ours_to_bare_distinct"]:.2f} times as long as the bare forward, backward and optimizer steps on the
        distinct images of each batch, and {floor["ours_to_bare_all"]:.2f} times as long as those on all 2 × 64
        images.""",
        f"""Both reach about the same quality: the plain loop has an AUC of
        {results("plain_folds")["pooled_auc"]:.3f} over all folds. The difference on s5–s7 is chance.""",
        f"""The modern recipe trains all five folds in {seconds["modern"]:.0f} s; the plain loop takes
        {seconds["plain"]:.0f} s ({modern["speedup"]:.0f} times as long) and reaches a lower AUC. An epoch takes
        {modern["epoch_to_bare"]:.2f} times as long as the bare steps of its batches.""",
    )


# docs/hub.md


def space() -> str:
    measured = results("space")
    return paragraph(
        f"""`siamese deploy` uploads {measured["uploaded_mb"]:.0f} MB. A Space then installs
        {measured["installed_mb"] / 1000:.1f} GB of packages, of which {measured["of_which_for_cuda_mb"] / 1000:.1f} GB
        are for CUDA. After that, the page is ready {measured["first_start_s"]:.0f} s after its first start and
        {measured["second_start_s"]:.0f} s after a later one, on {measured["cores"]} CPU cores."""
    )


BLOCKS: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        *(lfw_short, lfw_full, thresholds_short, operating_points, operating_points_basis, calibration),
        *(closest_impostors, hard_photos, saliency, speed),
        *(fine_tuning, tutorial_recipe, tutorial_calibration, modern_recipe, digits, memory, train_speed),
        *(train_speed_notes, space),
    )
}
