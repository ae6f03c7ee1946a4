"""Checks of the page on ZeroGPU. Each runs in a process of its own, because it decides which `spaces` is imported."""

import os
import sys
from pathlib import Path


def networks_run_inside_gpu_functions() -> None:
    """With the replacement of `spaces` in this folder."""
    sys.path.insert(0, str(Path(__file__).parent))
    import app

    pair = [app.Upload(str(photo)) for photo in (app.PORTRAIT, app.STANDING)]
    choice = '{"faces": [null, null]}'
    assert app.compare.duration == 5
    find, group, on_find, on_files = (function(app.demo, name) for name in ("find", "group", "on_change", "on_files"))
    assert [group.duration(pair * times) for times in (1, 20)] == [5, 15]
    (card, among, _, _, kept), (*_, compared, _) = app.on_choice(*pair, choice, 0.0, None)
    assert "verdict" in card
    assert "wipe" in compared
    assert list(app.on_choice(None, None, choice, 0.0, None)) == [("", "", "", "", None)]
    for fmr in (0.0, 1e-4):  # the kept answer needs no GPU; without it, the photos are compared again
        ((*drawn, _, _),) = app.on_choice(*pair, choice, fmr, kept)
        (*again, _, _), _ = app.on_choice(*pair, choice, fmr, None)
        assert drawn == again
        assert (drawn[:2] == [card, among]) == (fmr == 0.0)
    assert app.compare(*pair)["verdict"] == "same"
    assert len(group(pair)["dissimilarities"]) == 2
    *_, (_, kept, _) = on_files(pair, 0.0, app.gr.Progress())
    assert len(kept.found) == 2
    assert find(pair, pair[0])["faces"] == 2
    *_, (best, *_) = on_find(pair, pair[0], None, app.gr.Progress())
    assert "Found" in best
    assert "missing" in message(app.compare, pair[0], None)
    assert "outside a GPU function" in message(app.model.embed, pair)


def networks_are_on_the_gpu_from_the_start() -> None:
    """With `spaces` itself, which emulates CUDA until a GPU is attached."""
    os.environ |= {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": "http://127.0.0.1:9"}
    import app

    networks = (
        app.model.network,
        app.retinaface.load_network(app.model.network.device, app.torch.float32),
    )
    devices = {str(weight.device) for network in networks for weight in network.state_dict().values()}
    assert devices == {"cuda:0"}, devices


def function(demo, name):
    """Return the function that the page calls under this name."""
    return next(entry.fn for entry in demo.fns.values() if name in (entry.api_name, entry.name))


def message(function, *arguments) -> str:
    """Return the message of the exception that a function raises."""
    try:
        function(*arguments)
    except Exception as error:
        return str(error)
    raise AssertionError("no exception")
