"""What a pickle would do when it is read, found out without reading it.

The opcodes are followed on a stack of plain values; nothing is imported, built or called. That gives
every global that the pickle names, and for every torch storage the size that it claims.
"""

from __future__ import annotations

import _compat_pickle
import io
import pickletools
from dataclasses import dataclass, field
from typing import Any

MAX_PICKLE_BYTES = 64 * 2**20
"""Longest pickle that is looked at; the tensors of a checkpoint are stored beside it, not in it."""

_DAMAGE = (ValueError, IndexError, KeyError, EOFError, OverflowError, TypeError)
_MAX_DEPTH = 50
_MARK = object()
_UNKNOWN = object()
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")


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
        _Tracer(facts).follow(stream)
    except (*_DAMAGE, DeprecationWarning) as error:  # the warning: escapes in a damaged name
        facts.damage = f"its pickle is damaged or cut off: {error}"
    return facts


class _Tracer:
    """A pickle machine that knows constants, tuples and names, and nothing else."""

    def __init__(self, facts: PickleFacts) -> None:
        self.facts = facts
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, stream: io.BytesIO) -> None:
        for op, arg, _ in pickletools.genops(stream):
            self.step(op, arg)
        self.facts.value = self.facts.value if isinstance(self.facts.value, int | str) else None

    def step(self, op: pickletools.OpcodeInfo, arg: Any) -> None:
        name = op.name
        if name in _PUTS or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else int(arg)] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[int(arg)])
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "PROTO":
            self.facts.protocol = int(arg)
        else:
            popped = self.pop(op)
            if name == "STOP":
                self.facts.value = popped[0]
            self.push(op, arg, popped)

    def pop(self, op: pickletools.OpcodeInfo) -> list[Any]:
        """Take from the stack what the opcode takes; of a marked slice, all that lies above the mark."""
        if pickletools.markobject in op.stack_before or (
            op.name == "POP" and self.stack and self.stack[-1] is _MARK
        ):
            at = len(self.stack) - 1
            while self.stack[at] is not _MARK:
                at -= 1
            items = self.stack[at + 1 :]
            del self.stack[at:]
            below = op.stack_before.index(pickletools.markobject) if op.stack_before else 0
            return self.take(below) + items
        return self.take(len(op.stack_before))

    def take(self, n: int) -> list[Any]:
        if n > len(self.stack):
            raise ValueError("it takes more from its stack than it put there")
        items = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return items

    def push(self, op: pickletools.OpcodeInfo, arg: Any, popped: list[Any]) -> None:
        """Put on the stack what the opcode leaves there."""
        name = op.name
        if name in ("GLOBAL", "INST"):
            module, _, attribute = str(arg).partition(" ")
            value: Any = self.named(module, attribute)
        elif name == "STACK_GLOBAL":
            value = self.named(*(v if isinstance(v, str) else "?" for v in popped))
        elif name.startswith("EXT"):
            value = self.named("copyreg", f"extension_{arg}")
        elif name in ("PERSID", "BINPERSID"):
            value = self.claim(popped[0] if popped else None)
        elif name.startswith("TUPLE"):
            value = self.tuple_of(popped)
        elif name == "EMPTY_TUPLE":
            value = ()
        elif name == "DUP":
            self.stack += [popped[0], popped[0]]
            return
        elif arg is not None and not op.stack_before:
            value = arg
        else:
            value = None if name == "NONE" else _UNKNOWN
        if op.stack_after:
            self.stack.append(value)

    def tuple_of(self, items: list[Any]) -> object:
        """A flat tuple as it is, a nested one by its depth: hashing a very deep one ends the process."""
        depth = 1 + max(
            (v.levels if isinstance(v, _Nested) else isinstance(v, tuple) for v in items), default=0
        )
        if depth > _MAX_DEPTH:
            raise ValueError(f"it nests tuples more than {_MAX_DEPTH} deep")
        return tuple(items) if depth == 1 else _Nested(depth)

    def named(self, module: str, attribute: str) -> Name:
        """Record a global under its Python 3 name."""
        if (module, attribute) in _compat_pickle.NAME_MAPPING:
            module, attribute = _compat_pickle.NAME_MAPPING[module, attribute]
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        dotted = f"{module}.{attribute}"
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
