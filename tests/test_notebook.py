"""The notebooks of the examples: their code cells run in order, against a Hub on localhost."""

import json

import pytest

from .conftest import EXAMPLES
from .hub_server import Hub

NOTEBOOKS = {name: json.loads((EXAMPLES / f"{name}.ipynb").read_text("utf-8")) for name in ("siamese", "tutorial")}


def code_of(name: str) -> list[list[str]]:
    return [cell["source"] for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "code"]


def run(cell: list[str], names: dict) -> None:
    """Run a cell without its lines for the shell."""
    exec("".join(line for line in cell if line[0] not in "!%"), names)


def test_notebook_loads_compares_trains_and_pushes(monkeypatch, tmp_path, capsys):
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    server = Hub("hf_token", "USER")
    server.connect(monkeypatch, tmp_path / "cache")
    names = {}
    for cell in code_of("siamese"):
        run(cell, names)
    assert (names["same"].verdict, names["different"].verdict) == ("same", "different")
    assert names["own"].record.test.auc > 0.6
    pushed = server.repositories["models/USER/siamese-digits"]
    assert names["own"].id == f"{names['NAME']}@{pushed.branches['main']}"
    server.connect(monkeypatch, tmp_path / "cache", token="")
    server.asked.clear()
    run(code_of("siamese")[-1], names)
    assert server.asked == []
    assert "nothing was pushed" in capsys.readouterr().out


def test_tutorial_trains_with_both_losses_and_draws(digits, monkeypatch):
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    drawn = []
    monkeypatch.setattr(plt, "show", lambda: drawn.append([axes.get_title() for axes in plt.gcf().axes]))
    settings = {"DATA": str(digits), "EPOCHS, BATCH": (2, 16), "MAPS": (1, 2)}
    names: dict = {}
    for cell in code_of("tutorial"):
        for target, value in settings.items():
            cell = [f"{target} = {value!r}\n" if line.startswith(f"{target} = ") else line for line in cell]
        run(cell, names)
    plt.close("all")
    assert len(names["losses"]) == 2 * -(-len(names["images"]) // 16)
    loss, pairs, contrastive, triplet = drawn
    assert (len(loss), len(pairs), len(contrastive), len(triplet)) == (1, 10, 2, 2)
    shown = [float(title.removeprefix("Dissimilarity: ")) for title in pairs]
    assert shown == pytest.approx(names["dissimilarities"].tolist(), abs=0.006)
    for maps in (names["maps"], names["triplet_maps"]):
        assert [z.shape for z in maps.values()] == [(16, 2)] * 2
        assert 0 <= names["auc"](maps[2]) <= 1


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_valid_and_has_no_outputs(name):
    """The fields that version 4.5 of the format requires."""
    assert (NOTEBOOKS[name]["nbformat"], NOTEBOOKS[name]["nbformat_minor"]) == (4, 5)
    cells = NOTEBOOKS[name]["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        code = cell["cell_type"] == "code"
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if code else set()
        )
        assert not cell.get("outputs")
