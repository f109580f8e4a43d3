"""Weights of another number of mask tokens: what each class of a model begins with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from samaritan.errors import ConfigError

ClassInit = Literal["samed_compat", "fresh", "copy"]
POLICIES = ("samed_compat", "fresh", "copy")

TOKENS = "mask_decoder.mask_tokens.weight"
_PART = re.compile(
    r"mask_decoder\.(mask_tokens|output_hypernetworks_mlps\.(\d+)|iou_prediction_head\.layers\.(\d+))\.(.+)"
)


@dataclass(frozen=True)
class Refitted:
    """Weights whose class parts fit a model."""

    state: dict[str, Tensor]
    """All weights; of class parts only those that fit."""
    renewed: frozenset[str]
    """Class parts of the model that keep their own values."""
    note: str
    """What was done, for people."""


def refit_classes(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], policy: ClassInit
) -> Refitted:
    """Make mask tokens, their networks and the quality head fit another number of tokens.

    Args:
        state: weights.
        wanted: what the model has.
        policy: "samed_compat": what has the right shape is taken, all else keeps the model's values;
            so did SAMed, by a side effect of a strict load that failed halfway. "fresh": all of these
            parts keep the model's values, as SAMed's authors intended. "copy": token t begins as
            token t modulo their number.

    Raises:
        ConfigError: if the policy is not known.
    """
    if policy not in POLICIES:
        raise ConfigError(f"init_extra_classes is one of {POLICIES}, not {policy!r}")
    given, own = len(state[TOKENS]), len(wanted[TOKENS])
    parts = [key for key in wanted if _PART.fullmatch(key)]
    new = {key: value for key, value in state.items() if not _PART.fullmatch(key)}
    for key in parts:
        value = _copied(key, state, wanted, given, own) if policy == "copy" else state.get(key)
        if policy != "fresh" and value is not None and value.shape == wanted[key].shape:
            new[key] = value
    renewed = frozenset(key for key in parts if key not in new)
    kept = len(parts) - len(renewed)
    note = (
        f"weights of {given} mask tokens for a model of {own} ({policy}): {kept} of {len(parts)} tensors of "
        f"tokens and heads were taken, {len(renewed)} keep the model's values"
    )
    return Refitted(new, renewed, note)


def _copied(
    key: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], given: int, own: int
) -> Tensor | None:
    match = _PART.fullmatch(key)
    assert match is not None
    _, network, _, leaf = match.groups()
    if network is not None:
        return state.get(f"mask_decoder.output_hypernetworks_mlps.{int(network) % given}.{leaf}")
    value = state.get(key)
    if value is None or value.shape == wanted[key].shape or len(value) != given:
        return value
    return value[torch.arange(own) % given]
