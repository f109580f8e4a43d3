"""Work on every case of a data set, a few at a time; what cannot be used is told of all cases together."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from samaritan.data.manifest import Case, told
from samaritan.errors import FileError, SamaritanError

Result = TypeVar("Result")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def each(
    cases: Sequence[Case],
    work: Callable[[Case], Result],
    *,
    what: str,
    workers: int,
    progress: Callable[[int, int], None],
) -> list[Result]:
    """Do something with every case, in order; go on past those that fail, and tell all of these in the end.

    Args:
        cases: all of them.
        work: called with each.
        what: happened to cases that fail.
        workers: cases at a time.
        progress: called with (cases done, cases).

    Raises:
        FileError: naming the cases that failed; or at once, if there is no space left to write to.
    """
    results: list[Result] = []
    problems: list[str] = []

    def one(case: Case) -> tuple[Result | None, str, bool]:
        try:
            return work(case), "", False
        except SamaritanError as error:
            text = str(error)
            return None, text if case.id in text else f"case {case.id!r}: {text}", _full(error)

    for done, (result, problem, full) in enumerate(_pooled(cases, one, workers), 1):
        if full:
            raise FileError(
                f"{problem}. {len(results)} of {len(cases)} cases are done: free some space and run the same "
                "command again, which goes on"
            )
        if problem:
            problems.append(problem)
        elif result is not None:
            results.append(result)
        progress(done, len(cases))
    if problems:
        raise FileError(told(what, problems))
    return results


def _full(error: BaseException | None) -> bool:
    """Whether it was for want of space."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False


def _pooled(
    cases: Sequence[Case], work: Callable[[Case], Result], workers: int
) -> Iterator[Result]:
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for start in range(0, len(cases), 4 * workers):  # so that results never pile up
            yield from pool.map(work, cases[start : start + 4 * workers])
