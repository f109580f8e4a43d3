"""The events of a session: what a person did, in order. Plain values that travel as JSON."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from samaritan.errors import PromptError

Index = tuple[float, float, float]


@dataclass(frozen=True)
class Click:
    """A point at `index` (array order) that belongs to the object, or does not."""

    kind: ClassVar[str] = "click"
    index: Index
    positive: bool = True
    object: str = "object"


@dataclass(frozen=True)
class Box:
    """A half-open box around the object, from voxel `start` up to before voxel `stop`."""

    kind: ClassVar[str] = "box"
    start: Index
    stop: Index
    object: str = "object"


@dataclass(frozen=True)
class StartFrom:
    """A mask that the object starts from; it stands as it is until the next click or box.

    Attributes:
        runs: lengths of runs of voxels outside and inside by turns, first outside, in C order.
        shape: shape of the image.
        label: its value in the label map that it comes from; None: it comes from a mask.
        names: (value, name) of all labels of that map.
    """

    kind: ClassVar[str] = "start_from"
    runs: tuple[int, ...]
    shape: tuple[int, int, int]
    object: str = "object"
    label: int | None = None
    names: tuple[tuple[int, str], ...] = ()

    @classmethod
    def from_mask(
        cls,
        mask: npt.NDArray[np.bool_],
        object: str,
        *,
        label: int | None = None,
        names: Mapping[int, str] | None = None,
    ) -> StartFrom:
        """Encode a boolean array."""
        flat = mask.reshape(-1)
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        ends = np.concatenate([[0], edges, [flat.size]])
        runs = np.diff(ends).tolist()
        shape = (mask.shape[0], mask.shape[1], mask.shape[2])
        known = tuple((names or {}).items())
        return cls(tuple([0, *runs] if flat[0] else runs), shape, object, label, known)

    def __hash__(self) -> int:
        """A few runs tell apart what matters; all of them take long at every look into a cache."""
        return hash((self.object, self.shape, len(self.runs), self.runs[:64]))

    def to_mask(self) -> npt.NDArray[np.bool_]:
        """Decode to a boolean array of `shape`."""
        values = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(values, self.runs).reshape(self.shape)


@dataclass(frozen=True)
class Refine:
    """Ask the model to redraw the object from its present mask alone."""

    kind: ClassVar[str] = "refine"
    object: str = "object"


@dataclass(frozen=True)
class Undo:
    """Take back the last event that was not taken back yet."""

    kind: ClassVar[str] = "undo"


@dataclass(frozen=True)
class Redo:
    """Bring back what was last taken back."""

    kind: ClassVar[str] = "redo"


@dataclass(frozen=True)
class Reset:
    """Begin anew; can be taken back."""

    kind: ClassVar[str] = "reset"


Prompt = Click | Box | StartFrom | Refine
Event = Prompt | Undo | Redo | Reset

_KINDS: dict[str, type[Event]] = {
    c.kind: c for c in (Click, Box, StartFrom, Refine, Undo, Redo, Reset)
}


def in_force(log: Iterable[Event]) -> tuple[Prompt, ...]:
    """Work out which prompts are in force after a log.

    Raises:
        PromptError: if the log takes back, or brings back, what is not there.
    """
    done: list[Prompt | Reset] = []
    undone: list[Prompt | Reset] = []
    for event in log:
        if isinstance(event, Undo):
            if not done:
                raise PromptError("there is nothing to undo")
            undone.append(done.pop())
        elif isinstance(event, Redo):
            if not undone:
                raise PromptError("there is nothing to redo: redo follows an undo")
            done.append(undone.pop())
        else:
            done.append(event)
            undone.clear()
    kept = itertools.takewhile(lambda event: not isinstance(event, Reset), reversed(done))
    return tuple(event for event in kept if not isinstance(event, Reset))[::-1]


def to_json(event: Event) -> dict[str, Any]:
    """Describe an event in JSON types."""
    return {"event": event.kind, **asdict(event)}


def from_json(values: Mapping[str, Any]) -> Event:
    """Make the event that `to_json` described.

    Raises:
        PromptError: if the event or one of its fields is not known, or of the wrong type.
    """
    kind = _KINDS.get(str(values.get("event")))
    if kind is None:
        raise PromptError(
            f"event {values.get('event')!r} is not known; expected one of {sorted(_KINDS)}"
        )
    known = {f.name for f in fields(kind)}
    rest = {k: v for k, v in values.items() if k != "event"}
    if set(rest) - known:
        raise PromptError(f"event {kind.kind!r} has unknown fields {sorted(set(rest) - known)}")
    try:
        return kind(**{name: _typed(name, value) for name, value in rest.items()})
    except (TypeError, ValueError) as error:
        raise PromptError(
            f"event {kind.kind!r} cannot be read from {dict(rest)}: {error}"
        ) from error


def _typed(name: str, value: Any) -> Any:
    """Check one field and bring it to its type."""
    if name in ("index", "start", "stop"):
        index = tuple(float(v) for v in value)
        if len(index) != 3 or not np.isfinite(index).all():
            raise ValueError(f"{name} needs three finite numbers")
        return index
    if name in ("runs", "shape"):
        numbers = tuple(int(v) for v in value)
        if min(numbers, default=0) < 0:
            raise ValueError(f"{name} must not be negative")
        return numbers
    if name == "label":
        return None if value is None else _label(value)
    if name == "names":
        return tuple((_label(number), str(text)) for number, text in value)
    if name == "positive" and not isinstance(value, bool):
        raise TypeError("positive must be true or false")
    if name == "object" and not (isinstance(value, str) and value):
        raise TypeError("object must be a name")
    return value


def _label(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**32:
        raise ValueError(f"a label must be a whole number from 1, got {value!r}")
    return value


def label_values(prompts: Iterable[Prompt]) -> tuple[dict[str, int], dict[int, str]]:
    """Number the objects of prompts: as in the label maps that they come from, the others in order.

    Returns:
        The value of each object, and every name of a value, those of a map that occur nowhere included.
    """
    known: dict[int, str] = {}
    given: dict[str, int] = {}
    prompts = list(prompts)
    for prompt in prompts:
        if isinstance(prompt, StartFrom):
            for value, name in prompt.names:
                known.setdefault(value, name)
            if (
                prompt.label is not None
                and known.setdefault(prompt.label, prompt.object) == prompt.object
            ):
                given.setdefault(prompt.object, prompt.label)
    by_name = {name: value for value, name in reversed(known.items())}
    for prompt in prompts:
        if prompt.object not in given:
            value = by_name.get(prompt.object) or max(known, default=0) + 1
            known.setdefault(value, prompt.object)
            given[prompt.object] = value
    order = {p.object: given[p.object] for p in prompts}
    return order, dict(sorted(known.items()))
