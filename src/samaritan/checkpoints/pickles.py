"""What a pickle would do when it is read, found out without reading it.

The opcodes are followed on a stack of plain values; nothing is imported, built or called. That gives
every global that the pickle names, and for every torch storage the size that it claims.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass, field
from typing import Any

from samaritan.io.pickle_machine import DAMAGE, PickleMachine, dotted_name

MAX_PICKLE_BYTES = 64 * 2**20
"""Longest pickle that is looked at; the tensors of a checkpoint are stored beside it, not in it."""

_MAX_DEPTH = 50
_UNKNOWN = object()


@dataclass(frozen=True)
class Name:
    """A global that a pickle asks for, by its Python 3 name."""

    dotted: str


@dataclass(frozen=True)
class _Nested:
    """A tuple with tuples in it."""

    levels: int


@dataclass(frozen=True)
class StorageClaim:
    """A block of numbers that lies beside the pickle: its key, the class named for it, and its length."""

    key: str
    kind: str
    numel: int


@dataclass
class PickleFacts:
    """Everything that matters about one pickle."""

    globals: list[str] = field(default_factory=list)
    """Globals in the order of their first appearance, as "module.name"."""
    storages: list[StorageClaim] = field(default_factory=list)
    """One claim for each reference to a storage."""
    protocol: int = 0
    """As declared."""
    value: Any = None
    """The unpickled value where it is a plain number or text."""
    damage: str | None = None
    """Why it could not be followed to its end; what was found before that is kept."""


def scan(stream: io.BytesIO) -> PickleFacts:
    """Follow one pickle from the stream's position to its end, without executing it.

    The stream lies in memory, because a file would set aside whatever length a pickle claims.
    One that is cut off, is no pickle, or refers to data in a way that torch never does, is damaged.
    """
    facts = PickleFacts()
    try:
        _Tracer(facts).trace(stream)
    except DAMAGE as error:
        facts.damage = f"its pickle is damaged or cut off: {error}"
    return facts


class _Tracer(PickleMachine):
    """Knows constants, tuples and names, and nothing else."""

    def __init__(self, facts: PickleFacts) -> None:
        super().__init__()
        self.facts = facts

    def trace(self, stream: io.BytesIO) -> None:
        try:
            self.follow(stream)
        finally:
            self.facts.protocol = self.protocol
        self.facts.value = self.result if isinstance(self.result, int | str) else None

    def value_of(self, op: pickletools.OpcodeInfo, arg: Any, popped: list[Any]) -> Any:
        asked = dotted_name(op, arg, popped)
        if asked is not None:
            return self.named(asked)
        if op.name in ("PERSID", "BINPERSID"):
            return self.claim(popped[0] if popped else None)
        if op.name.startswith("TUPLE"):
            return self.tuple_of(popped)
        if op.name == "EMPTY_TUPLE":
            return ()
        if arg is not None and not op.stack_before:
            return arg
        return None if op.name == "NONE" else _UNKNOWN

    def tuple_of(self, items: list[Any]) -> object:
        """A flat tuple as it is, a nested one by its depth: hashing a very deep one ends the process."""
        depth = 1 + max(
            (v.levels if isinstance(v, _Nested) else isinstance(v, tuple) for v in items), default=0
        )
        if depth > _MAX_DEPTH:
            raise ValueError(f"it nests tuples more than {_MAX_DEPTH} deep")
        return tuple(items) if depth == 1 else _Nested(depth)

    def named(self, dotted: str) -> Name:
        """Record a global."""
        if dotted not in self.facts.globals:
            self.facts.globals.append(dotted)
        return Name(dotted)

    def claim(self, reference: Any) -> object:
        """Record a reference to a storage."""
        if not (
            isinstance(reference, tuple)
            and len(reference) in (5, 6)
            and reference[0] == "storage"
            and isinstance(reference[1], Name)
            and isinstance(reference[2], str)
            and isinstance(reference[4], int)
            and reference[4] >= 0
        ):
            raise ValueError("a reference to data has a form that torch.save never writes")
        self.facts.storages.append(StorageClaim(reference[2], reference[1].dotted, reference[4]))
        return _UNKNOWN
