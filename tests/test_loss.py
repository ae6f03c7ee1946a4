"""The losses, compared with slow loops over pairs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from siamese import contrastive_loss, distance
from siamese.loss import all_pairs_loss


def slow_loss(distances, same, margin):
    """Hadsell et al., equation 4 without the factor ½, one pair at a time. Their Y is 1 for impostor pairs."""
    total = 0.0
    for d, s in zip(distances, same, strict=True):
        y = 0 if s else 1
        total += (1 - y) * d**2 + y * max(0.0, margin - d) ** 2
    return total / len(distances)


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), min_size=1), st.floats(0.1, 5))
def test_contrastive_loss_equals_a_loop_over_pairs(pairs, margin):
    distances, same = zip(*pairs, strict=True)
    fast = contrastive_loss(torch.tensor(distances, dtype=torch.float64), torch.tensor(same), margin)
    assert fast.item() == pytest.approx(slow_loss(distances, same, margin))


@pytest.mark.parametrize("same", [True, False])
def test_gradient_is_finite_at_distance_0(same):
    z = torch.zeros(1, 2, requires_grad=True)
    loss = contrastive_loss(distance(z, torch.zeros(1, 2)), torch.tensor([same]))
    loss.backward()
    assert loss.item() == (0 if same else 4)
    assert torch.isfinite(z.grad).all()


def test_gradient_pulls_genuine_and_pushes_impostor_pairs():
    for same, sign in ((True, 1), (False, -1)):
        z1 = torch.tensor([[1.0, 0.0]], requires_grad=True)
        contrastive_loss(distance(z1, torch.zeros(1, 2)), torch.tensor([same])).backward()
        assert z1.grad[0, 0].sign() == sign  # gradient descent moves in the opposite direction


def test_impostors_beyond_the_margin_have_zero_loss():
    assert contrastive_loss(torch.tensor([2.0, 9.0]), torch.tensor([False, False]), margin=2) == 0


@pytest.mark.parametrize(
    ("distances", "same", "margin"),
    [(torch.ones(2), torch.ones(3), 2), (torch.ones(0), torch.ones(0), 2), (torch.ones(2), torch.ones(2), -1)],
)
def test_invalid_arguments_raise(distances, same, margin):
    with pytest.raises(ValueError, match=r"margin|label"):
        contrastive_loss(distances, same, margin)


def slow_all_pairs_loss(distances, identity, margin, hardness):
    """One image at a time, and one pair of it at a time."""
    total = 0.0
    for i in range(len(identity)):
        for same, sign in ((True, 1), (False, -1)):
            others = [j for j in range(len(identity)) if j != i and (identity[i] == identity[j]) == same]
            weights = [math.exp(sign * hardness * distances[i][j]) for j in others]
            losses = [distances[i][j] ** 2 if same else max(0.0, margin - distances[i][j]) ** 2 for j in others]
            total += sum(w * loss for w, loss in zip(weights, losses, strict=True)) / (sum(weights) or 1)
    return total / len(identity)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.floats(0.1, 2), st.floats(0, 20), st.integers(0, 99))
def test_all_pairs_loss_equals_a_loop_over_images(identity, margin, hardness, seed):
    z = torch.rand(len(identity), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    d = distance(z[:, None], z)
    fast = all_pairs_loss(d, torch.tensor(identity), margin, hardness)
    assert fast.item() == pytest.approx(slow_all_pairs_loss(d.tolist(), identity, margin, hardness))


def test_all_pairs_loss_without_hardness_is_the_contrastive_loss():
    """Genuine and impostor pairs are averaged apart, so the sum of two contrastive losses is expected."""
    identity = torch.tensor([0, 0, 1, 1])
    d = distance(*(torch.rand(2, 4, 4, 3)))
    d = (d + d.T) / 2
    same = identity[:, None] == identity
    off_diagonal = ~torch.eye(4, dtype=torch.bool)
    genuine = contrastive_loss(d[same & off_diagonal], same[same & off_diagonal], 1.0)
    impostor = contrastive_loss(d[~same], same[~same], 1.0)
    torch.testing.assert_close(all_pairs_loss(d, identity, 1.0, 0.0), genuine + impostor)


def test_all_pairs_loss_has_a_finite_gradient_at_distance_0():
    z = torch.zeros(4, 2, requires_grad=True)
    all_pairs_loss(distance(z[:, None], z), torch.tensor([0, 0, 1, 2]), 1.0, 10.0).backward()
    assert torch.isfinite(z.grad).all()
