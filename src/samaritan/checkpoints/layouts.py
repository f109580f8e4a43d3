"""Find the weights in what a file holds: unwrap, take off prefixes, rename to the official names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samaritan.checkpoints import huggingface
from samaritan.checkpoints.reading import check_tensor
from samaritan.errors import CheckpointError

WRAPPERS = ("model_state_dict", "state_dict", "model", "network_weights", "teacher", "weights")
"""Entries of training files that hold the weights, in the order in which they are looked for.

SAM-Med3D and M-SAM; Lightning; SAM-Med2D and MedSAM; nnU-Net (MaskSAM); 3DINO; others.
"""

OFFICIAL_PARTS = ("image_encoder", "prompt_encoder", "mask_decoder")
"""First words of all official names."""

_INSIDE = ("_orig_mod", "module")
"""Words that torch.compile and DistributedDataParallel put anywhere into a name."""

_OUTSIDE = ("model", "sam_model", "medsam_model", "sam", "net", "network")
"""Names under which training programs keep the whole model."""

_PREFIX = re.compile(
    rf"^((?:(?:{'|'.join(_OUTSIDE)})\.)*)(?:{'|'.join({*OFFICIAL_PARTS, *huggingface.PARTS})})\."
)


@dataclass(frozen=True)
class Layout:
    """Weights under official names, and how they were found."""

    state: dict[str, Tensor]
    """Official name -> tensor, where the name could be recognised."""
    words: tuple[str, ...]
    """What was taken off, such as ("model_state_dict", "module."); empty for a bare state dict."""
    ignored: tuple[str, ...]
    """Other entries of the file, which hold no weights."""

    def __str__(self) -> str:
        return " + ".join(self.words) if self.words else "bare state dict"


def find_weights(content: Any) -> Layout:
    """Unwrap what a file holds to weights under official names.

    Raises:
        CheckpointError: if there are none.
        CorruptFile: if a tensor is not what it claims to be.
    """
    found, words, ignored = _unwrap(content)
    state = {key: _tensor(key, value) for key, value in found.items()}
    for word in _INSIDE:
        if any(word in key.split(".")[:-1] for key in state):
            state = {_without(key, word): value for key, value in state.items()}
            words.append(f"{word}.")
    prefix = _common_prefix(state)
    if prefix:
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        words.append(prefix)
    if any(key.startswith(huggingface.MARK) for key in state):
        state = huggingface.convert(state)
        words.append("Hugging Face SAM")
    return Layout(state, tuple(words), tuple(ignored))


def _unwrap(content: Any) -> tuple[dict[str, Any], list[str], list[str]]:
    """The entries that are tensors, the wrappers around them, and the entries that are neither."""
    words: list[str] = []
    ignored: list[str] = []
    while True:
        if not isinstance(content, Mapping):
            raise CheckpointError(
                f"there are no weights in it: it holds {_article(content)}, where a table of names and "
                f"tensors is expected. Save the weights with torch.save(model.state_dict(), file)"
            )
        wrapper = next((w for w in WRAPPERS if _holds_tensors(content.get(w))), None)
        if wrapper is None or len(words) == 2:
            break
        words.append(wrapper)
        ignored += [_name(key) for key in content if key != wrapper]
        content = content[wrapper]
    tensors = {str(key): value for key, value in content.items() if _is_array(value)}
    ignored += [_name(key) for key, value in content.items() if not _is_array(value)]
    if not tensors:
        keys = ", ".join(repr(_name(key)) for key in list(content)[:8])
        raise CheckpointError(
            f"there are no weights in it: no tensors among its {len(content)} entries ({keys}), and none "
            f"of {', '.join(WRAPPERS)} holds any"
        )
    return tensors, words, ignored


def _holds_tensors(value: Any, depth: int = 2) -> bool:
    """Whether a mapping, or one wrapped in it, holds tensors."""
    if not isinstance(value, Mapping):
        return False
    if any(_is_array(v) for v in value.values()):
        return True
    return depth > 1 and any(_holds_tensors(value.get(w), depth - 1) for w in WRAPPERS)


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _tensor(name: str, value: Tensor | npt.NDArray[Any]) -> Tensor:
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(np.ascontiguousarray(value)).reshape(value.shape)
        except TypeError as error:
            raise CheckpointError(
                f"{name!r} is an array of {value.dtype}, not of numbers"
            ) from error
    check_tensor(name, value)
    return value.detach()


def _without(key: str, word: str) -> str:
    *words, last = key.split(".")
    return ".".join([*(w for w in words if w != word), last])


def _common_prefix(state: Mapping[str, Tensor]) -> str:
    """The prefix of all names that belong to a SAM, if it is the same for all of them."""
    prefixes = {match[1] for key in state if (match := _PREFIX.match(key))}
    return prefixes.pop() if len(prefixes) == 1 else ""


def _name(key: Any) -> str:
    """A key as it may stand in a message."""
    return str(key)[:80]


def _article(content: Any) -> str:
    name = type(content).__name__
    return f"an object {name!r}" if content is not None else "nothing"
