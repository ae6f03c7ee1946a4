"""The results block about photos with several faces, see make_docs.py."""

from markdown_format import one_in, paragraph, table
from measurements import results


def group_photos() -> str:
    measured = results("group_photos")
    photos, rates = measured["photos"], measured["false_match_rates"]
    rows = [
        [
            "default" if rate == "default" else one_in(float(rate)),
            f"{r['rate']:.4%}",
            " to ".join(f"{x:.4%}" for x in r["interval"]),
        ]
        for rate, r in rates.items()
    ]
    return "\n\n".join(
        [
            paragraph(
                f"""We compared {measured["group_photos"]} portraits with group photos of 3 to 8 people, made of
                photos of {measured["people"]:,} people of LFW. The calibration was not fitted on them. Every second
                group includes the person of the portrait. {photos["all_faces"]["right"]:.1%} of the answers are right,
                with the right face. With only the main face of each photo, {photos["main_face"]["right"]:.1%} would be
                right. For {measured["draws"]:,} random draws of a portrait and 3 to 8 other people:"""
            ),
            table(["requested false-match rate", "measured", "95% confidence interval"], rows),
        ]
    )
