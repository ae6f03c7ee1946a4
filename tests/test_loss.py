import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from siamese import contrastive_loss, distance


def slow_loss(distances, same, margin):
    """Hadsell et al., equation 4 without the ½, a pair at a time; their Y is 1 for impostors."""
    total = 0.0
    for d, s in zip(distances, same, strict=True):
        y = 0 if s else 1
        total += (1 - y) * d**2 + y * max(0.0, margin - d) ** 2
    return total / len(distances)


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), min_size=1), st.floats(0.1, 5))
def test_agrees_with_a_loop_over_pairs(pairs, margin):
    distances, same = zip(*pairs, strict=True)
    fast = contrastive_loss(torch.tensor(distances, dtype=torch.float64), torch.tensor(same), margin)
    assert fast.item() == pytest.approx(slow_loss(distances, same, margin))


@pytest.mark.parametrize("same", [True, False])
def test_gradient_is_finite_where_both_embeddings_coincide(same):
    z = torch.zeros(1, 2, requires_grad=True)
    loss = contrastive_loss(distance(z, torch.zeros(1, 2)), torch.tensor([same]))
    loss.backward()
    assert loss.item() == (0 if same else 4)
    assert torch.isfinite(z.grad).all()


def test_gradient_pulls_genuine_pairs_and_pushes_impostors():
    for same, sign in ((True, 1), (False, -1)):
        z1 = torch.tensor([[1.0, 0.0]], requires_grad=True)
        contrastive_loss(distance(z1, torch.zeros(1, 2)), torch.tensor([same])).backward()
        assert z1.grad[0, 0].sign() == sign  # descent moves against the gradient


def test_impostors_beyond_the_margin_cost_nothing():
    assert contrastive_loss(torch.tensor([2.0, 9.0]), torch.tensor([False, False]), margin=2) == 0


@pytest.mark.parametrize(
    ("distances", "same", "margin"),
    [(torch.ones(2), torch.ones(3), 2), (torch.ones(0), torch.ones(0), 2), (torch.ones(2), torch.ones(2), -1)],
)
def test_refuses_what_has_no_loss(distances, same, margin):
    with pytest.raises(ValueError, match=r"margin|label"):
        contrastive_loss(distances, same, margin)
