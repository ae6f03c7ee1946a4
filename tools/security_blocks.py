"""The results blocks about hostile photos, see make_docs.py."""

from typing import Any

from markdown_format import paragraph, table
from measurements import results


def hostile_files() -> str:
    measured = results("hostile_files")
    rows = [
        [name, _size(file["bytes"]), _outcome(file["before"]), _outcome(file["after"])]
        for name, file in measured["files"].items()
    ]
    costs = [file["after"] for file in measured["files"].values()]
    pillow = measured["pillow"]
    text = paragraph(
        f"""CPU time and memory of one comparison with such a photo, before and after these limits, by
        `python benchmarks/hostile_files.py --before CHECKOUT`. The memory is the sum of what each process of the page
        needs at most, above what it needed before. After: at most
        {max(cost["seconds"] for cost in costs):.1f} s and {max(cost.get("gigabytes", 0) for cost in costs):.2f} GB.
        Of the
        {pillow["files"]:,} pictures of Pillow's test suite, {pillow["answered"]} are answered and {pillow["refused"]}
        refused with a sentence; none takes more than {pillow["most_seconds"]:.1f} s or
        {pillow["most_gigabytes"]:.2f} GB."""
    )
    return f"{text}\n\n{table(['photo', 'size', 'before', 'after'], rows)}"


def hostile_clients() -> str:
    measured = results("hostile_clients")
    without, attacked = measured["without"], measured["with"]
    return paragraph(
        f"""32 clients made 300 comparisons, every tenth of them with a hostile photo, by
        `python benchmarks/hostile_clients.py`. None of the {attacked["good_comparisons"]} others after the first 30
        failed. 95% of them were answered within {attacked["p95_s"]:.1f} s, {measured["p95_ratio"]:.2f} times as long as
        without hostile photos ({without["p95_s"]:.1f} s, with 32 at once on 2 cores). The memory of the page changed by
        {attacked["memory_growth"]:+.0%}."""
    )


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.0f} kB"


def _outcome(measured: dict[str, Any]) -> str:
    outcome = measured["outcome"]
    word = outcome if outcome.startswith("killed") else "refused" if outcome.startswith("refused") else "answered"
    if "seconds" not in measured:
        return word
    memory = f", {measured['gigabytes']:.1f} GB" if "gigabytes" in measured else ""
    return f"{word}, {measured['seconds']:.1f} s{memory}"


SECURITY_BLOCKS = (hostile_files, hostile_clients)
