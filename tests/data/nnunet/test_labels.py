"""What dataset.json says of labels, both ways round, and what cannot be meant."""

from __future__ import annotations

import pytest

from samaritan.data.nnunet.labels import LabelSet
from samaritan.errors import ConfigError


def labels(given, **more) -> LabelSet:
    return LabelSet.from_json({"labels": given, **more}, "dataset.json")


def test_labels_of_both_versions_are_the_same() -> None:
    one = labels({"background": 0, "liver": 1, "tumour": 2})
    two = labels({"0": "Background", "1": "liver", "2": "tumour"})
    assert one == two
    assert one.foreground == (1, 2)
    assert one.heads == 3
    assert one.titles() == {1: "liver", 2: "tumour"}


def test_regions_have_a_head_each_and_an_order() -> None:
    found = labels(
        {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "bright": 3, "ignore": 4},
        regions_class_order=[1, 2, 3],
    )
    assert found.foreground == ((1, 2, 3), (2, 3), 3)
    assert found.heads == 3
    assert found.values == (0, 1, 2, 3)
    assert found.ignore == 4
    assert found.annotated == (-1, 0, 1, 2, 3)
    assert found.titles() == {1: "whole", 2: "core", 3: "bright"}


def test_lists_of_one_label_are_no_regions() -> None:
    assert labels({"background": 0, "a": [1], "b": [2]}) == labels(
        {"background": 0, "a": 1, "b": 2}
    )


@pytest.mark.parametrize(
    ("given", "more", "told"),
    [
        ({"background": 0, "a": 1, "b": 3}, {}, r"without gaps, but nothing is called \[2\]"),
        ({"background": 1, "a": 2}, {}, '"background" must be label 0, got 1'),
        ({"background": 0, "a": "x"}, {}, "must be"),
        ({"background": 0, "a": [1, 2]}, {}, "regions_class_order"),
        ({"background": 0, "a": 1, "ignore": 5}, {}, "the label after the highest, 2, got 5"),
        ([], {}, "must be like"),
        ({"background": 0, "a": 10**9}, {}, "is above 32767"),
    ],
)
def test_labels_that_cannot_be_meant_are_told(given, more, told) -> None:
    with pytest.raises(ConfigError, match=told):
        labels(given, **more)
