"""The results blocks of README.md and docs/*.md: one function per block, see make_docs.py.

The numbers come from benchmarks/results/*.json and weights/faces/metrics.json.
"""

from collections.abc import Callable
from dataclasses import asdict

from difficult_pairs_blocks import difficult_pairs, difficult_pairs_basis, difficult_pairs_rates, difficult_pairs_short
from group_photos_blocks import group_photos
from markdown_format import bullets, one_in, paragraph, table
from measurements import faces, results
from search_blocks import SEARCH_BLOCKS
from security_blocks import SECURITY_BLOCKS

from siamese.hub.card import degraded_table
from siamese.wording import VERDICT_PROBABILITY

SEEDS = (0, 1, 2)
TAKE_THE_MIDDLE = ("AT&T network", "raw pixels")  # of the photo, and do not detect faces
# Judged by name and by eye, from the list `lfw.closest_impostors` in weights/faces/metrics.json.
CLOSEST_CHILDREN, CLOSEST_TWINS = 5, 2


# README.md and docs/accuracy.md


def lfw_short() -> str:
    rows = ([row[0], row[1], row[4], row[6]] for row in lfw_rows() if row[0] in ("siamese", "face_recognition"))
    return table(["system", "accuracy", "TMR at FMR 1e-3", "photos without a detected face"], rows)


def lfw_full() -> str:
    rates = ["AUC", "EER", "TMR at FMR 1e-3", "calibration error"]
    return table(["system", "accuracy", *rates, "photos without a detected face"], lfw_rows())


def lfw_rows() -> list[list[str]]:
    ours = {"pooled": asdict(faces().folds.pooled), **asdict(faces().lfw)}
    rows = []
    for name, system in {"siamese": ours, **results("peers")["systems"]}.items():
        report = system["pooled"]
        rates = f"{report['eer']:.2%}", f"{report['tmr_at_fmr_1e_3']:.1%}", f"{report['calibration_error']:.1%}"
        accuracy = f"{system['accuracy']:.2%} ± {system['accuracy_std']:.2%}"
        missed = f"{system['without_face']} of {system['images']:,}"
        if name in TAKE_THE_MIDDLE:
            missed = "–"
        rows.append([name, accuracy, f"{report['auc']:.4f}", *rates, missed])
    return rows


def thresholds_short() -> str:
    record = faces()
    strict = record.test_calibration.operating_point(1e-3)
    return paragraph(
        f"""By default, {one_in(record.lfw.default_fmr)} pairs of different people is wrongly called "same" (the
        false-match rate, FMR), and {record.lfw.default_fnmr:.1%} of the pairs of the same person are missed. With
        `model.compare(a, b, fmr=1e-3)`, or `siamese compare A B --fmr 0.001` in the shell, {one_in(1e-3)} is called
        "same", and {strict.fnmr:.1%} are missed."""
    )


def operating_points() -> str:
    record = faces()
    rows = [
        (point.fmr, one_in(point.fmr), point.distance, point.fnmr) for point in record.test_calibration.operating_points
    ]
    distance = record.test_calibration.distance_at(VERDICT_PROBABILITY)
    default = f"{one_in(record.lfw.default_fmr)} (default, with good photos)"
    rows.append((record.lfw.default_fmr, default, distance, record.lfw.default_fnmr))
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
    record = faces()
    return paragraph(
        f"""On the pairs of View 2, with functions that were fitted without the people in the fold, the expected
        calibration error is {record.folds.pooled.calibration_error:.2%}. The verdict is "unsure" for
        {record.lfw.unsure:.1%} of the pairs."""
    )


def degraded() -> str:
    return degraded_table(faces().degraded)


def min_quality() -> str:
    record = faces()
    return paragraph(
        f"""A strict rate needs faces of at least a quality of {record.test_calibration.min_quality:.2f}, which all but
        2 in 1,000 photos of LFW have. For poorer faces the verdict is "unsure"."""
    )


def closest_impostors() -> str:
    closest = len(faces().lfw.closest_impostors)
    return bullets(
        f"""**Some groups of people.** Of the {closest} closest pairs of different people in LFW, {CLOSEST_CHILDREN}
        show two small children and {CLOSEST_TWINS} show twins (judged by name and by eye)."""
    )


def failures_short() -> str:
    return f"{closest_impostors()}\n{difficult_pairs_short()}"


def hard_photos() -> str:
    hard, report = results("hard_photos"), faces().att
    whole, tight, turned = hard["whole"], hard["tight"], hard["turned"]
    return bullets(
        f"""**Photos cropped to the face.** {tight["accuracy"]:.1%} of the pairs in one fold of LFW are correct; with
        the full photos {whole["accuracy"]:.1%} are.""",
        f"""**Photos on their side or upside down.** In {turned["right"]:.1%} of {turned["images"]} photos the face is
        found and turned upright.""",
        f"""**AT&T faces, without training on them.** AUC {report.auc:.5f}, EER {report.eer:.2%} over all
        {report.genuine + report.impostor:,} pairs.""",
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
        *(
            lfw_short,
            lfw_full,
            thresholds_short,
            operating_points,
            operating_points_basis,
            calibration,
            degraded,
            min_quality,
        ),
        *(group_photos, closest_impostors, hard_photos, saliency, speed),
        *(failures_short, difficult_pairs, difficult_pairs_rates, difficult_pairs_basis),
        *(fine_tuning, tutorial_recipe, tutorial_calibration, modern_recipe, digits, memory, train_speed),
        *(train_speed_notes, space),
        *SEARCH_BLOCKS,
        *SECURITY_BLOCKS,
    )
}
