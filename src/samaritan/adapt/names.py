"""Find modules and parameters by patterns over dotted names; a pattern that finds nothing is an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from samaritan.errors import ConfigError

_TOKEN = re.compile(r"\*\*|\*|\?|\[[^\]]+\]|\{[^{}]*\}|.", re.DOTALL)


def select(patterns: Iterable[str], names: Sequence[str], *, what: str) -> list[str]:
    """Those of `names` that some pattern fits, in their own order.

    In a pattern ``*`` stands for one word or a part of it, ``**`` for any number of words, ``?`` for one
    letter, ``[0-3]`` for one letter of a set and ``{a,b}`` for one of several words. A pattern fits
    the whole name.

    Raises:
        ConfigError: if a pattern fits none, with the names that are near.

    >>> select(["blocks.*.attn"], ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn"], what="module")
    ['blocks.0.attn', 'blocks.1.attn']
    """
    chosen: set[str] = set()
    for pattern in patterns:
        fits = expression(pattern).fullmatch
        found = {name for name in names if fits(name)}
        if not found:
            raise ConfigError(f"no {what} is called {pattern!r}. {_near(pattern, names)}")
        chosen |= found
    return [name for name in names if name in chosen]


def expression(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern."""
    return re.compile("".join(_translated(token) for token in _TOKEN.findall(pattern)))


def _translated(token: str) -> str:
    simple = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    if token in simple:
        return simple[token]
    if len(token) > 1 and token[0] == "[":
        inside = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
        return f"[{'^' + inside[1:] if inside[0] == '!' else inside}]"
    if len(token) > 1:
        return f"(?:{'|'.join(re.escape(word) for word in token[1:-1].split(','))})"
    return re.escape(token)


def _near(pattern: str, names: Sequence[str]) -> str:
    """Names that look like the pattern, numbers left open."""
    open_names = list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in names))
    near = difflib.get_close_matches(pattern, open_names, n=4, cutoff=0.4)
    if near:
        return f"Near it: {', '.join(near)}"
    return f"There are {len(names)} names, such as {', '.join(open_names[:3])}"
