"""The `.pkl` beside a preprocessed case of nnU-Net, read without unpickling it.

A pickle is a program, and whoever wrote it decides what it does. So its opcodes are followed on a stack of
plain values: numbers, text, lists, dictionaries, and arrays whose bytes and types are looked at by us. It can
name the few functions that numpy's arrays are made of, which are never called; all else is refused.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from samaritan.errors import CorruptFile, UnsafeFile
from samaritan.io.files import file_size

MOST_BYTES = 512 << 20
"""Longest file that is read."""

_MARK = object()
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_KNOWN = {
    **{f"{module}.{name}": name for module in _MODULES for name in ("_reconstruct", "scalar")},
    "numpy._core.numeric._frombuffer": "_frombuffer",
    "numpy.core.numeric._frombuffer": "_frombuffer",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "builtins.bytearray": "bytearray",
    "collections.OrderedDict": "OrderedDict",
}
_KINDS = "biuf"
_DAMAGE = (ValueError, IndexError, KeyError, EOFError, OverflowError, TypeError, AttributeError)


@dataclass
class _Name:
    """Something that the pickle would call."""

    name: str


@dataclass
class _Type:
    """A numpy type in the making: its code and, once it is known, the order of its bytes."""

    code: str
    order: str = "="

    def built(self) -> np.dtype[Any]:
        found = np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]
        if found.kind not in _KINDS:
            raise UnsafeFile(f"arrays of {self.code!r} are refused: only plain numbers are read")
        return found


class _Array:
    """An array whose state is not known yet."""


def read_notes(path: Path) -> Any:
    """Read what nnU-Net pickled of a case: spacing, shapes, box and voxels of each class.

    Raises:
        UnsafeFile: if it names anything that such a file has no need of.
        CorruptFile: if it is damaged, or no pickle.
    """
    if file_size(path) > MOST_BYTES:
        raise CorruptFile(f"{path} is too large: {file_size(path)} bytes")
    try:
        return _Reader().follow(path.read_bytes())
    except UnsafeFile as error:
        raise UnsafeFile(f"{path}: {error}") from error
    except _DAMAGE as error:
        raise CorruptFile(f"{path} is damaged, or no pickle of nnU-Net: {error!r}") from error


class _Reader:
    """A pickle machine that builds plain values alone."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, data: bytes) -> Any:
        for op, arg, _ in pickletools.genops(data):
            if op.name == "STOP":
                return self.stack[-1]
            self.step(op.name, arg)
        raise ValueError("it ends early")

    def step(self, name: str, arg: Any) -> None:
        if name in ("PROTO", "FRAME"):
            return
        if name == "MARK":
            self.stack.append(_MARK)
        elif name == "MEMOIZE" or name.endswith("PUT"):
            self.memo[len(self.memo) if name == "MEMOIZE" else int(arg)] = self.stack[-1]
        elif name.endswith("GET"):
            self.stack.append(self.memo[int(arg)])
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        elif name == "GLOBAL":
            self.stack.append(_named(*str(arg).split(" ", 1)))
        elif arg is not None and isinstance(arg, int | float | str | bytes | bytearray):
            self.stack.append(arg)
        else:
            raise UnsafeFile(f"its opcode {name} is refused: no file of nnU-Net has it")

    def marked(self) -> list[Any]:
        """Take what lies above the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def take(self, count: int) -> list[Any]:
        """Take so many from the top."""
        if count > len(self.stack):
            raise ValueError("it takes more from its stack than it put there")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def append(self, items: list[Any]) -> None:
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        into = self.stack[-1]
        if not isinstance(into, dict):
            raise ValueError("it fills something that is no dictionary")
        into.update(zip(items[::2], items[1::2], strict=True))

    def tuple(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def call(self) -> None:
        """Make what a known call would make."""
        what, args = self.take(2)
        if not isinstance(what, _Name) or not isinstance(args, tuple):
            raise UnsafeFile("it calls something that is no function of numpy's arrays")
        self.stack.append(_made(what.name, args))

    def build(self) -> None:
        """Give an array or type its state."""
        (state,) = self.take(1)
        target = self.stack[-1]
        if isinstance(target, _Type):
            target.order = str(state[1])
        elif isinstance(target, _Array):
            _, shape, kind, fortran, data = state
            made = _array(data, kind, tuple(shape), "F" if fortran else "C")
            self.stack[-1] = made
            self.memo = {k: made if v is target else v for k, v in self.memo.items()}
        else:
            raise UnsafeFile("it sets the state of something that is no array")

    def name(self) -> None:
        module, attribute = self.take(2)
        self.stack.append(_named(module, attribute))


def _named(module: Any, attribute: Any) -> _Name:
    dotted = f"{module}.{attribute}"
    if dotted not in _KNOWN:
        raise UnsafeFile(
            f"it would call {dotted}, which no file of nnU-Net needs; it was not read. "
            "Preprocess the case again"
        )
    return _Name(_KNOWN[dotted])


def _made(name: str, args: tuple[Any, ...]) -> Any:
    if name == "_reconstruct":
        return _Array()
    if name == "dtype":
        return _Type(str(args[0]))
    if name == "scalar":
        return _array(args[1], args[0], (), "C").item()
    if name == "_frombuffer":
        data, kind, shape, order = args
        return _array(data, kind, tuple(shape), str(order))
    if name == "encode" and isinstance(args[0], str):
        return args[0].encode("latin1")
    if name == "bytearray":
        return args[0] if args else b""
    if name == "OrderedDict":
        return dict(args[0]) if args else {}
    raise UnsafeFile(f"it calls {name}, which makes no array")


def _array(data: Any, kind: Any, shape: tuple[Any, ...], order: str) -> Any:
    """Look at bytes as numbers; there must be exactly as many as the shape says."""
    if not isinstance(data, bytes | bytearray) or not isinstance(kind, _Type):
        raise UnsafeFile("arrays of objects are refused: only plain numbers are read")
    found = kind.built()
    if any(not isinstance(n, int) or n < 0 for n in shape) or prod(shape) * found.itemsize != len(
        data
    ):
        raise ValueError(f"{len(data)} bytes are no array of shape {shape}")
    flat = np.frombuffer(data, found)
    return flat.reshape(shape, order="F" if order == "F" else "C")


_CONSTANTS: dict[str, Any] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_ACTIONS: dict[str, Any] = {
    "APPEND": lambda m: m.append(m.take(1)),
    "APPENDS": lambda m: m.append(m.marked()),
    "SETITEM": lambda m: m.set_items(m.take(2)),
    "SETITEMS": lambda m: m.set_items(m.marked()),
    "TUPLE": lambda m: m.tuple(m.marked()),
    "TUPLE1": lambda m: m.tuple(m.take(1)),
    "TUPLE2": lambda m: m.tuple(m.take(2)),
    "TUPLE3": lambda m: m.tuple(m.take(3)),
    "LIST": lambda m: m.stack.append(m.marked()),
    "REDUCE": lambda m: m.call(),
    "BUILD": lambda m: m.build(),
    "STACK_GLOBAL": lambda m: m.name(),
}
