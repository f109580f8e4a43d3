from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from samaritan.errors import CorruptFile
from samaritan.infer.run_lengths import RunLengths

# What pycocotools 2.0.11 writes for these runs.
COCO = [
    ((3, 4), (12,), "<"),
    ((3, 4), (0, 12), "0<"),
    ((2, 3), (2, 1, 1, 2), "2111"),
    ((20, 30), (5, 40, 100, 3, 2, 450), "5X1T3kNnLo="),
    ((70, 90), (1000, 1, 2000, 40, 15, 2000, 1244), "Xo01`n1W1oQNXm1]V1"),
    ((600, 800), (100000, 33, 470, 90000, 31, 200, 289266), "PeQ3Q1f>_kg2YBhYXMc^j8"),
]


def slow_counts(mask: np.ndarray) -> tuple[int, ...]:
    counts, inside, length = [], False, 0
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if bool(mask[row, column]) != inside:
                counts.append(length)
                inside, length = not inside, 0
            length += 1
    return (*counts, length)


@pytest.mark.parametrize(("shape", "counts", "text"), COCO)
def test_compressed_spelling_is_that_of_coco(shape, counts, text):
    runs = RunLengths(shape, counts)
    assert runs.to_coco() == text
    assert RunLengths.from_coco(shape, text) == runs


@given(hnp.arrays(bool, st.tuples(*[st.integers(1, 7)] * 2)))
def test_encode_then_decode_is_identity(mask):
    runs = RunLengths.from_mask(mask)
    assert np.array_equal(runs.mask(), mask)
    assert runs.counts == slow_counts(mask)
    assert runs.area == mask.sum()
    assert RunLengths.from_coco(runs.shape, runs.to_coco()) == runs


@given(hnp.arrays(bool, st.tuples(*[st.integers(1, 5)] * 2)), st.data())
def test_a_window_encodes_as_the_whole_mask(window, data):
    around = [data.draw(st.integers(0, 2)) for _ in range(4)]
    whole = np.pad(window, (around[:2], around[2:]))
    found = RunLengths.from_window(window, (around[0], around[2]), whole.shape)
    assert found == RunLengths.from_mask(whole)
    assert found.counts == slow_counts(whole)


def test_a_window_without_pixels_is_an_empty_mask():
    nothing = np.zeros((0, 0), bool)
    assert RunLengths.from_window(nothing, (1, 2), (3, 4)).counts == (12,)


def test_dictionaries_have_the_published_keys():
    runs = RunLengths((2, 3), (2, 1, 1, 2))
    assert runs.to_dict(compressed=False) == {"size": [2, 3], "counts": [2, 1, 1, 2]}
    assert runs.to_dict(compressed=True) == {"size": [2, 3], "counts": "2111"}


@pytest.mark.parametrize("text", ["", "2112", "Xo", "2\x7f", "2 1", "o" * 50 + "0", "5O"])
def test_damaged_runs_are_refused(text):
    with pytest.raises(CorruptFile):
        RunLengths.from_coco((2, 3), text)


def test_runs_that_do_not_fill_the_mask_are_refused():
    with pytest.raises(CorruptFile, match="add up to 5"):
        RunLengths((2, 3), (2, 3))
    with pytest.raises(CorruptFile, match="smallest -1"):
        RunLengths((2, 3), (7, -1))
