"""A pickle's opcodes, followed on a stack of values that we make: nothing is imported or called.

What an opcode leaves on the stack is decided by subclasses. Checkpoints ask only what a pickle would do
(`samaritan.checkpoints.pickles`); arrays of objects are built of plain values (`samaritan.io.npz_objects`).
"""

from __future__ import annotations

import _compat_pickle
import io
import pickletools
from typing import Any

DAMAGE = (ValueError, IndexError, KeyError, EOFError, OverflowError, TypeError, DeprecationWarning)
"""What following a damaged pickle raises; the warning comes of escapes in a damaged name."""

_MARK = object()
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")


class PickleMachine:
    """The stack, the mark and the memo of a pickle; `value_of` says what comes of every other opcode."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0
        self.result: Any = None

    def follow(self, stream: io.BytesIO) -> None:
        """Follow one pickle from the stream's position to its end.

        The stream lies in memory, because a file would set aside whatever length a pickle claims.

        Raises:
            Exception: of `DAMAGE`, if it is cut off or no pickle.
        """
        for op, arg, _ in pickletools.genops(stream):
            self._step(op, arg)

    def value_of(self, op: pickletools.OpcodeInfo, arg: Any, popped: list[Any]) -> Any:
        """Say what an opcode leaves on the stack.

        Args:
            op: the opcode.
            arg: its argument in the file.
            popped: what it took from the stack, the deepest first, without the mark.
        """
        raise NotImplementedError

    def recalled(self, value: Any) -> Any:
        """Say what the memo gives back of a value that was put there."""
        return value

    def _step(self, op: pickletools.OpcodeInfo, arg: Any) -> None:
        name = op.name
        if name in _PUTS or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else int(arg)] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.recalled(self.memo[int(arg)]))
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "PROTO":
            self.protocol = int(arg)
        else:
            self._push(op, arg, self._pop(op))

    def _push(self, op: pickletools.OpcodeInfo, arg: Any, popped: list[Any]) -> None:
        if op.name == "STOP":
            self.result = popped[0]
        elif op.name == "DUP":
            self.stack += [popped[0], popped[0]]
        else:
            value = self.value_of(op, arg, popped)
            if op.stack_after:
                self.stack.append(value)

    def _pop(self, op: pickletools.OpcodeInfo) -> list[Any]:
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
            return self._take(below) + items
        return self._take(len(op.stack_before))

    def _take(self, n: int) -> list[Any]:
        if n > len(self.stack):
            raise ValueError("it takes more from its stack than it put there")
        items = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return items


def dotted_name(op: pickletools.OpcodeInfo, arg: Any, popped: list[Any]) -> str | None:
    """The global that an opcode asks for, by its Python 3 name; None if it asks for none."""
    if op.name in ("GLOBAL", "INST"):
        module, _, attribute = str(arg).partition(" ")
    elif op.name == "STACK_GLOBAL":
        module, attribute = (v if isinstance(v, str) else "?" for v in popped)
    elif op.name.startswith("EXT"):
        module, attribute = "copyreg", f"extension_{arg}"
    else:
        return None
    if (module, attribute) in _compat_pickle.NAME_MAPPING:
        module, attribute = _compat_pickle.NAME_MAPPING[module, attribute]
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{attribute}"
