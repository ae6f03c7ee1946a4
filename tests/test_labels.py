"""Finding images in the folder of the wrong person."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from siamese.data.dataset import IdentityDataset
from siamese.evaluation.labels import find_label_errors

PEOPLE, IMAGES = 12, 6


def people(noise: float, owner: dict[int, int] | None = None) -> tuple[torch.Tensor, IdentityDataset]:
    """Unit embeddings around one center per person. `owner` says which person some of the images really show."""
    random = torch.Generator().manual_seed(0)
    identity = np.repeat(np.arange(PEOPLE), IMAGES)
    shown = identity.copy()
    for image, person in (owner or {}).items():
        shown[image] = person
    centers = normalize(torch.randn(PEOPLE, 64, generator=random))
    z = normalize(centers[shown] + noise * torch.randn(len(shown), 64, generator=random))
    names = tuple(f"person {number}" for number in range(PEOPLE))
    pixels = torch.zeros(len(shown), 1, 8, 8, dtype=torch.uint8)
    return z, IdentityDataset(pixels, identity, names, files=[f"{number}.jpg" for number in range(len(shown))])


def test_right_labels_are_not_named():
    assert find_label_errors(*people(0.05)) == []


def test_two_folders_of_one_person_are_named():
    (error,) = find_label_errors(*people(0.05, {image: 0 for image in range(3 * IMAGES, 4 * IMAGES)}))
    assert error.startswith("person 0 and person 3 ")
    assert f" of {IMAGES**2} " in error


def test_an_image_in_the_wrong_folder_is_named_with_the_right_one():
    """Also a second one in the same folder, which shows another person."""
    errors = find_label_errors(*people(0.05, {9: 4, 8: 9}))
    assert [(error.split()[:2], error.split()[-2:]) for error in errors] == [
        (["person", "1/8.jpg"], ["person", "9"]),
        (["person", "1/9.jpg"], ["person", "4"]),
    ]


@pytest.mark.parametrize("noise", [0.3, 0.5, 10])
def test_a_network_that_confuses_people_does_not_judge_labels(noise):
    assert find_label_errors(*people(noise, {7: 4})) == []


def test_collapsed_embeddings_do_not_judge_labels():
    z, dataset = people(0.05)
    assert find_label_errors(torch.ones_like(z), dataset) == []
