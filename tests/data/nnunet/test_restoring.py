"""The way back: what goes there and back is where it was, however logits are handed over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samaritan.data.nnunet.preprocessing import preprocess
from samaritan.data.nnunet.restoring import WayBack, decide, probabilities, slabs_of
from samaritan.errors import ConfigError


@pytest.fixture
def there(planned):
    """The toy's first case, preprocessed, with the way back."""
    raw = planned.raw.read(planned.raw.cases.cases[0])
    own = planned.plans.configuration("3d_fullres")
    made = preprocess(raw, planned.plans, own, planned.labels)
    return (
        raw,
        made,
        WayBack(planned.plans, own, planned.labels, made.properties, made.image.shape[1:]),
    )


def one_hot(labels) -> torch.Tensor:
    return (
        torch.stack([torch.from_numpy(np.maximum(labels, 0) == v) for v in (0, 1, 2)]).float() * 9
    )


def dice(one, two) -> float:
    return 2 * np.sum(one & two) / (one.sum() + two.sum())


def test_labels_come_back_where_they_were(there) -> None:
    raw, made, way = there
    assert made.image.shape[1:] != raw.image.shape[1:]
    found = way.label_map(slabs_of(one_hot(made.labels)), raw.grid)
    assert found.grid == raw.grid
    assert found.names == {1: "near", 2: "far"}
    for value in (1, 2):
        assert dice(value == found.array.T, raw.labels == value) > 0.85
        assert dice(way.restored(made.labels) == value, raw.labels == value) > 0.85


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_slabs_of_any_size_give_the_same(size, there) -> None:
    _, made, way = there
    logits = torch.randn((3, *made.image.shape[1:]), generator=torch.Generator().manual_seed(0))
    whole = way.probabilities_from(slabs_of(logits, 1000))
    assert np.array_equal(way.probabilities_from(slabs_of(logits, size)), whole)
    assert np.array_equal(way.labels_from(slabs_of(logits, size)), whole.argmax(axis=0))
    assert whole.sum(axis=0) == pytest.approx(1, abs=1e-6)


def test_what_was_cropped_away_is_background(there) -> None:
    raw, made, way = there
    logits = torch.zeros((3, *made.image.shape[1:]))
    logits[2] = 5
    labels = way.labels_from(slabs_of(logits))
    outside = np.ones(labels.shape, bool)
    outside[tuple(slice(a, b) for a, b in made.properties.box)] = False
    assert outside.any()
    assert np.array_equal(labels == 0, outside)
    assert raw.image[0][outside].max() == 0


def test_only_slices_that_are_needed_are_held(there) -> None:
    _, made, way = there
    held = []

    def slabs():
        for z in range(made.image.shape[1]):
            yield z, torch.zeros((3, 1, *made.image.shape[2:]))
            held.append(z)

    made_after = [(first, len(held)) for first, _ in way.resampled(slabs())]
    total = made.properties.shape_after_cropping[0]
    assert [first for first, _ in made_after] == list(range(total))
    assert all(
        seen <= (first + 1.5) * made.image.shape[1] / total + 1 for first, seen in made_after
    )


def test_slices_that_are_missing_are_told(there) -> None:
    _, made, way = there
    logits = torch.zeros((3, *made.image.shape[1:]))
    with pytest.raises(ConfigError, match="of 1 slices were given; expected"):
        way.labels_from(iter([(0, logits[:, :1])]))
    with pytest.raises(
        ConfigError, match="from slice 2 on were given; expected 3 heads from slice 0 on"
    ):
        way.labels_from(iter([(2, logits[:, 2:])]))
    with pytest.raises(ConfigError, match="logits of 2 heads"):
        way.labels_from(slabs_of(logits[:2]))


def test_regions_are_painted_one_over_the_other() -> None:
    from samaritan.data.nnunet.labels import LabelSet

    labels = LabelSet({"whole": (1, 2), "core": (2,)}, region_order=(1, 2))
    logits = torch.tensor([[-1.0, 2, 2, 0], [-1.0, -1, 3, 0]])[:, :, None, None]
    assert decide(logits, labels).flatten().tolist() == [0, 1, 2, 0]
    assert probabilities(logits, labels).sum(dim=0)[2] > 1
