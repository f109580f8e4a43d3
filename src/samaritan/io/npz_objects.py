"""Arrays of objects in .npz files, which are pickles: read as plain values, executing nothing.

Lists, tuples, dictionaries, numbers, text, bytes and NumPy's own arrays and scalars are built here, opcode
by opcode; whatever else a pickle asks for is refused by its name.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, UnsafeFile
from samaritan.io.pickle_machine import DAMAGE, PickleMachine, dotted_name

MAX_OBJECT_BYTES = 2 * 2**20
"""Longest pickle that is read; images and label maps are stored as plain arrays, not so."""

_COPIED_BYTES = 16 * MAX_OBJECT_BYTES
_LONGEST_SIDE = 2**40
_MOST_AXES = 32

_KNOWN = {
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
    "builtins.bytes",
    "collections.OrderedDict",
    *(
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    ),
}
"""What pickles of NumPy arrays ask for; each has its own plain meaning here."""

_DTYPE = re.compile(r"[?biufcSUO]\d{0,6}|bool|object")
_KEYS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class _Name:
    dotted: str


@dataclass(eq=False)
class _Making:
    """A type or an array that is known in full only after BUILD."""

    kind: str
    value: Any = None
    ready: bool = False


def read_objects(data: bytes, where: str) -> Any:
    """Build the plain value of one pickle.

    Args:
        data: the pickle, and nothing else.
        where: what errors name: the file and the array.

    Returns:
        Lists, tuples, dictionaries, numbers, text, bytes, None, and arrays of these.

    Raises:
        UnsafeFile: if it asks for anything that could run code.
        CorruptFile: if it is damaged or cut off.

    >>> import pickle
    >>> read_objects(pickle.dumps([{"z_min": 3}, (1.5, None)]), "a.npz")
    [{'z_min': 3}, (1.5, None)]
    """
    builder = _Builder(where)
    try:
        builder.follow(io.BytesIO(data))
        return _settled(builder.result)
    except (*DAMAGE, AttributeError, RecursionError) as error:
        raise CorruptFile(f"{where} is a damaged or truncated array of objects: {error}") from error


class _Builder(PickleMachine):
    """Makes plain values."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.left = _COPIED_BYTES

    def recalled(self, value: Any) -> Any:
        return value.value if isinstance(value, _Making) and value.ready else value

    def value_of(self, op: pickletools.OpcodeInfo, arg: Any, popped: list[Any]) -> Any:
        asked = dotted_name(op, arg, popped)
        if asked is not None:
            return self.known(asked, op.name)
        make = getattr(self, f"do_{op.name.lower()}", None)
        if make is not None:
            return make(*popped)
        if op.name in ("POP", "POP_MARK", "FRAME"):
            return None
        if arg is not None and not op.stack_before and op.name != "PERSID":
            return arg  # a number, text or bytes
        raise self.refused(f"the opcode {op.name}")

    def known(self, asked: str, op: str) -> _Name:
        if asked not in _KNOWN or op == "INST":
            raise self.refused(repr(asked))
        return _Name(asked)

    def refused(self, what: str) -> UnsafeFile:
        return UnsafeFile(
            f"{self.where} asks for {what} when it is read, which could run code; nothing was executed. Only "
            "lists, dictionaries, numbers, text and arrays of these are read"
        )

    # -- plain values: a method for each opcode, called with what it takes from the stack ------------

    def do_none(self) -> None:
        return None

    def do_newtrue(self) -> bool:
        return True

    def do_newfalse(self) -> bool:
        return False

    def do_empty_tuple(self) -> tuple[Any, ...]:
        return ()

    def do_tuple(self, *items: Any) -> tuple[Any, ...]:
        return items

    do_tuple1 = do_tuple2 = do_tuple3 = do_tuple

    def do_list(self, *items: Any) -> list[Any]:
        return [_settled(item) for item in items]

    do_empty_list = do_list

    def do_append(self, target: Any, *items: Any) -> list[Any]:
        if not isinstance(target, list):
            raise ValueError("it appends to what is no list")
        target.extend(_settled(item) for item in items)
        return target

    do_appends = do_append

    def do_dict(self, *items: Any) -> dict[Any, Any]:
        return self.do_setitem({}, *items)

    do_empty_dict = do_dict

    def do_setitem(self, target: Any, *items: Any) -> dict[Any, Any]:
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEYS):
                raise ValueError(f"a dictionary has a key of type {type(key).__name__}")
            target[key] = _settled(value)
        return target

    do_setitems = do_setitem

    # -- what NumPy asks for -------------------------------------------------------------------------

    def do_reduce(self, called: Any, args: Any) -> Any:
        if not isinstance(called, _Name) or not isinstance(args, tuple):
            raise ValueError("it calls what is no name")
        name = called.dotted.rpartition(".")[2]
        if name == "dtype":
            return _Making("type", _dtype(args[0]))
        if name == "_reconstruct":
            return _Making("array")
        if name == "scalar":
            kind, data = args
            return self.array((), kind, False, data).item()
        if name == "_frombuffer":
            data, kind, shape, order = args
            return self.array(shape, kind, order == "F", data)
        if name == "encode" and isinstance(args[0], str):
            self.spend(len(args[0]))
            return args[0].encode("latin1")
        if name in ("OrderedDict", "bytes") and not args:
            return {} if name == "OrderedDict" else b""
        raise self.refused(repr(called.dotted))

    def do_build(self, target: Any, state: Any) -> Any:
        if not isinstance(target, _Making) or not isinstance(state, tuple) or target.ready:
            raise self.refused("the state of an object")
        if target.kind == "type":
            order, *structured = state[1:5]
            if any(part is not None for part in structured):
                raise ValueError("structured numbers are not read")
            if order in ("<", ">"):
                target.value = target.value.newbyteorder(order)
        else:
            shape, kind, fortran, data = state[-4:]
            target.value = self.array(shape, kind, bool(fortran), data)
        target.ready = True
        return target.value

    def array(self, shape: Any, kind: Any, fortran: bool, data: Any) -> npt.NDArray[Any]:
        """An array of values that are there: its size is what the data hold, whatever the shape says."""
        sides = _sides(shape)
        size = math.prod(sides)
        numbers = kind.value if isinstance(kind, _Making) else kind  # one byte has no order to tell
        if not isinstance(numbers, np.dtype):
            raise ValueError("an array has no type of numbers")
        if numbers.hasobject:
            if not isinstance(data, list) or len(data) != size:
                raise ValueError(f"an array of shape {sides} does not hold {size} objects")
            self.spend(8 * size)
            flat = np.empty(size, object)
            for at, item in enumerate(data):
                flat[at] = item
        else:
            if isinstance(data, str):  # written by Python 2
                data = data.encode("latin1")
            if not isinstance(data, bytes | bytearray) or len(data) != size * numbers.itemsize:
                raise ValueError(f"an array of shape {sides} has data of another size")
            self.spend(len(data))
            flat = np.frombuffer(data, numbers) if len(data) else np.empty(size, numbers)
        return flat.reshape(sides, order="F" if fortran else "C")

    def spend(self, count: int) -> None:
        """Bound what is copied: a short pickle can ask for one long piece again and again."""
        self.left -= count
        if self.left < 0:
            raise ValueError("it unfolds to far more than it holds")


def _settled(value: Any) -> Any:
    """The value itself, if it was finished: an array that holds itself never is."""
    if isinstance(value, _Name | _Making):
        raise ValueError("it holds a value that was never finished")
    return value


def _dtype(text: Any) -> np.dtype[Any]:
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise ValueError("it holds numbers of a type that is not read")
    return np.dtype(text)


def _sides(shape: Any) -> tuple[int, ...]:
    """A shape; texts of errors never show what is not checked yet, which may be endless."""
    sides = (shape,) if isinstance(shape, int) else shape
    if (
        not isinstance(sides, tuple)
        or len(sides) > _MOST_AXES
        or not all(isinstance(n, int) and 0 <= n < _LONGEST_SIDE for n in sides)
    ):
        raise ValueError("an array has a shape that cannot be")
    return sides
