import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from siamese import contrastive_loss, distance
from siamese.loss import all_pairs_loss


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


def slow_all_pairs_loss(distances, identity, margin, hardness):
    """An image at a time, and of it a pair at a time."""
    total = 0.0
    for i in range(len(identity)):
        for same, sign in ((True, 1), (False, -1)):
            others = [j for j in range(len(identity)) if j != i and (identity[i] == identity[j]) == same]
            weights = [math.exp(sign * hardness * distances[i][j]) for j in others]
            costs = [distances[i][j] ** 2 if same else max(0.0, margin - distances[i][j]) ** 2 for j in others]
            total += sum(w * c for w, c in zip(weights, costs, strict=True)) / (sum(weights) or 1)
    return total / len(identity)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.floats(0.1, 2), st.floats(0, 20), st.integers(0, 99))
def test_all_pairs_agree_with_a_loop_over_images(identity, margin, hardness, seed):
    z = torch.rand(len(identity), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    d = distance(z[:, None], z)
    fast = all_pairs_loss(d, torch.tensor(identity), margin, hardness)
    assert fast.item() == pytest.approx(slow_all_pairs_loss(d.tolist(), identity, margin, hardness))


def test_without_hardness_all_pairs_of_evenly_many_images_are_the_contrastive_loss():
    """With as many genuine as impostor pairs each: twice the mean over all pairs."""
    identity = torch.tensor([0, 0, 1, 1])
    d = distance(*(torch.rand(2, 4, 4, 3)))
    d = (d + d.T) / 2
    same = identity[:, None] == identity
    off = ~torch.eye(4, dtype=torch.bool)
    genuine = contrastive_loss(d[same & off], same[same & off], 1.0)
    impostor = contrastive_loss(d[~same], same[~same], 1.0)
    torch.testing.assert_close(all_pairs_loss(d, identity, 1.0, 0.0), genuine + impostor)


def test_all_pairs_have_a_finite_gradient_where_images_coincide():
    z = torch.zeros(4, 2, requires_grad=True)
    all_pairs_loss(distance(z[:, None], z), torch.tensor([0, 0, 1, 2]), 1.0, 10.0).backward()
    assert torch.isfinite(z.grad).all()
