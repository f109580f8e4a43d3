"""Measure the peak memory of a program that a test starts."""

import inspect


def peak_gib() -> float:
    """Peak resident memory since this program began; getrusage would count the parent's as well."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if "VmHWM" in line) / 2**20
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


PEAK_GIB = inspect.getsource(peak_gib)
"""The function as text, for programs that are given as text."""
