"""The results blocks about children and relatives, see make_docs.py."""

from markdown_format import bullets, one_in, paragraph, table
from measurements import faces, results

from siamese.page import text


def difficult_pairs_short() -> str:
    rates = faces().difficult_pairs
    return bullets(
        f"""**Children, relatives, twins, faces in profile.** By default, {rates.children_fmr:.0%} of the pairs of
        different children and {rates.family_fmr:.0%} of those within families are wrongly called "same".
        {rates.child_adult_fnmr:.0%} of the pairs of a child and the same person as an adult are missed."""
    )


def difficult_pairs() -> str:
    titles = ("Children", "Relatives", "The same person as a child and as an adult")
    sentences = text.difficult_pairs(faces())
    return bullets(*(f"**{title}.** {sentence}" for title, sentence in zip(titles, sentences, strict=True)))


def difficult_pairs_rates() -> str:
    ages, relatives = results("ages"), results("relatives")
    kinds = {
        "two different adults": ages["impostor"]["adult_adult"],
        "two different children": ages["impostor"]["child_child"],
        "a child and a different adult": ages["impostor"]["child_adult"],
        "two members of one family": relatives["impostor"]["one_family"],
        "members of different families": relatives["impostor"]["strangers"],
        "the same adult": ages["genuine"]["adult_adult"],
        "the same child": ages["genuine"]["child_child"],
        "a child and the same person as an adult": ages["genuine"]["child_adult"],
        "the same member of a family": relatives["genuine"]["one_person"],
    }
    rows = []
    for kind, result in kinds.items():
        name = "fmr" if "fmr" in result else "fnmr"
        rates = (f"{rate:.1%}" if rate >= 0.001 else f"{100 * rate:.1g}%" for rate in result[name].values())
        rows.append([kind, f"{result['pairs']:,}", name.upper(), *rates])
    settings = (
        "default" if name == "default" else one_in(float(name)) for name in ages["impostor"]["adult_adult"]["fmr"]
    )
    return table(["pairs", "number", "error", *settings], rows)


def difficult_pairs_basis() -> str:
    ages, relatives = results("ages"), results("relatives")
    return paragraph(
        f"""Of the {ages["images"]:,} photos of {ages["people"]:,} people in LAG, no face is found in
        {ages["without_face"]:,}. Of FIW we use a random sample of {relatives["families"]} families with
        {relatives["people"]:,} people and {relatives["images"]:,} photos; no face is found in
        {relatives["without_face"]:,} of them."""
    )
