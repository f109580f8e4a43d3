"""Patterns find what they say, and one that finds nothing says what is near."""

import pytest

from samaritan.adapt.names import select
from samaritan.errors import ConfigError

NAMES = [f"enc.blocks.{i}.{part}" for i in (0, 1, 10) for part in ("attn", "attn.qkv", "mlp")]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("enc.blocks.*.attn.qkv", 3),
        ("enc.blocks.?.attn.qkv", 2),
        ("enc.blocks.[1-9]*.mlp", 2),
        ("enc.blocks.[!0].mlp", 1),
        ("enc.blocks.{0,10}.mlp", 2),
        ("**.attn", 3),
        ("**", 9),
        ("enc.blocks.0.attn", 1),
    ],
)
def test_patterns_fit_whole_names(pattern, count):
    assert len(select([pattern], NAMES, what="module")) == count


def test_several_patterns_keep_the_order_of_the_names():
    assert select(["**.10.mlp", "**.0.attn"], NAMES, what="module") == [NAMES[0], NAMES[8]]


def test_a_pattern_that_finds_nothing_lists_near_names():
    with pytest.raises(
        ConfigError, match=r"no module is called 'enc\.block\.\*\.attn\.qkv'.*Near it: enc\.blocks"
    ):
        select(["enc.blocks.*.mlp", "enc.block.*.attn.qkv"], NAMES, what="module")
    with pytest.raises(ConfigError, match="There are 9 names"):
        select(["zzz"], NAMES, what="module")


def test_a_dot_in_a_pattern_is_a_dot():
    assert select(["a.b"], ["a.b", "axb"], what="module") == ["a.b"]
