"""The notebook of the examples: its code cells run in order, against a Hub on localhost."""

import json

from .conftest import EXAMPLES
from .hub_server import Hub

NOTEBOOK = json.loads((EXAMPLES / "siamese.ipynb").read_text("utf-8"))


CODE = [cell["source"] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(cell: list[str], names: dict) -> None:
    """Run a cell without its lines for the shell."""
    exec("".join(line for line in cell if line[0] not in "!%"), names)


def test_notebook_loads_compares_trains_and_pushes(monkeypatch, tmp_path, capsys):
    (tmp_path / "examples").symlink_to(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    server = Hub("hf_token", "USER")
    server.connect(monkeypatch, tmp_path / "cache")
    names = {}
    for cell in CODE:
        run(cell, names)
    assert (names["same"].verdict, names["different"].verdict) == ("same", "different")
    assert names["own"].record.test.auc > 0.6
    pushed = server.repositories["models/USER/siamese-digits"]
    assert names["own"].id == f"{names['NAME']}@{pushed.branches['main']}"
    server.connect(monkeypatch, tmp_path / "cache", token="")
    server.asked.clear()
    run(CODE[-1], names)
    assert server.asked == []
    assert "nothing was pushed" in capsys.readouterr().out


def test_notebook_is_valid_and_has_no_outputs():
    """The fields that version 4.5 of the format requires."""
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    cells = NOTEBOOK["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        code = cell["cell_type"] == "code"
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if code else set()
        )
        assert not cell.get("outputs")
