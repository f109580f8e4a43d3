"""Samplers: a pure function of seed and epoch; data sets by weight, patients in turns."""

from __future__ import annotations

from collections import Counter

import pytest

from samaritan.data import Case
from samaritan.data.sampling import Draw, DrawSampler
from samaritan.errors import ConfigError

CASES = [
    Case(f"{g}{p}_{s}", ("x",), group=g, patient=f"p{p}")
    for g, patients in (("large", 8), ("small", 2))
    for p in range(patients)
    for s in range(1 if p else 10)
]


def test_every_case_comes_once() -> None:
    sampler = DrawSampler(CASES)
    draws = list(sampler)
    assert sorted(d.item for d in draws) == list(range(len(CASES)))
    assert [d.turn for d in draws] == list(range(len(CASES)))
    assert [d.item for d in draws] != sorted(d.item for d in draws)
    assert [d.item for d in DrawSampler(CASES, shuffle=False)] == list(range(len(CASES)))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    for weights in (None, {"large": 1.0, "small": 1.0}):
        one, two = (
            DrawSampler(CASES, seed=1, weights=weights),
            DrawSampler(CASES, seed=1, weights=weights),
        )
        list(one)
        assert list(one) == list(two)
        two.set_epoch(1)
        assert [d.item for d in one] != [d.item for d in two]
        assert {d.epoch for d in two} == {1}
        assert list(one) != list(DrawSampler(CASES, seed=2, weights=weights))


def test_weights_balance_data_sets_and_patients() -> None:
    sampler = DrawSampler(CASES, weights={"large": 0.25, "small": 0.75}, length=160)
    drawn = [CASES[d.item] for d in sampler]
    assert Counter(c.group for c in drawn) == {"large": 40, "small": 120}
    small = Counter(c.patient for c in drawn if c.group == "small")
    assert small == {"p0": 60, "p1": 60}  # ten pictures or one: patients take turns
    large = Counter(c.patient for c in drawn if c.group == "large")
    assert set(large.values()) == {5}
    pictures = Counter(c.id for c in drawn if c.group == "small" and c.patient == "p0")
    assert set(pictures.values()) == {6}


def test_what_has_no_weight_is_not_drawn() -> None:
    drawn = [CASES[d.item].group for d in DrawSampler(CASES, weights={"small": 1.0}, length=9)]
    assert drawn == ["small"] * 9


def test_an_epoch_may_be_longer_than_the_data() -> None:
    counts = Counter(d.item for d in DrawSampler(CASES, length=2 * len(CASES)))
    assert set(counts.values()) == {2}


def test_a_state_goes_on_where_it_was_taken() -> None:
    sampler = DrawSampler(CASES, seed=3)
    sampler.set_epoch(5)
    whole = list(sampler)
    other = DrawSampler(CASES, seed=3)
    other.load_state_dict(sampler.state_dict(consumed=7))
    assert list(other) == whole[7:]
    assert len(other) == len(whole) - 7
    with pytest.raises(ConfigError, match="of seed 3"):
        DrawSampler(CASES, seed=4).load_state_dict(sampler.state_dict())
    with pytest.raises(ConfigError, match="cannot start at 999"):
        sampler.set_epoch(0, 999)


@pytest.mark.parametrize("weights", [{"other": 1.0}, {"large": -1.0}])
def test_wrong_weights_are_refused(weights) -> None:
    with pytest.raises(ConfigError, match=r"positive numbers for \['large', 'small'\]"):
        DrawSampler(CASES, weights=weights)


def test_no_two_turns_share_their_randomness() -> None:
    draws = [Draw(i, e, t) for i in range(3) for e in range(3) for t in range(3)]
    numbers = {d.generator(0).random() for d in draws}
    assert len(numbers) == 27
    assert draws[4].generator(1).random() != draws[4].generator(0).random()
