"""Damage files in thousands of ways and read them; run in its own process by test_hostile_files.py.

Prints one JSON object: how many files were read, refused, and went wrong, and the peak memory.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType

sys.path.append(str(Path(__file__).parents[1]))  # this runs as a script

from peak import peak_gib

from samaritan.errors import SamaritanError
from samaritan.io import read, read_labels

MAX_BYTES = 32 << 20
SECONDS = 10
EXTREMES = [
    b"\xff\xff", b"\x00\x00", b"\xff\x7f", b"\x00\x80", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00",
    b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00\xc0\x7f", b"\x7f\xc0\x00\x00", b"\x00\x00\x80\x7f",
    b"\xff" * 8, b"\x00" * 8, b"\x7f\xff\xff\xff\xff\xff\xff\xff",
]  # fmt: skip
WORDS = [
    b"-1",
    b"0",
    b"99999999999",
    b"65536",
    b"nan",
    b"1e400",
    b"-0.0",
    b"",
    b"2147483648",
    b"../../x",
]


class TookTooLong(BaseException):
    """Not an Exception, so that no handler in a library can swallow it."""


def too_long(number: int, frame: FrameType | None) -> None:
    raise TookTooLong


def damaged(data: bytes, rng: random.Random) -> bytes:
    packed = data[:2] == b"\x1f\x8b" and rng.random() < 0.7
    raw = bytearray(gzip.decompress(data) if packed else data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        # headers are at the front: most of the damage goes there
        end = len(raw) if rng.random() < 0.3 else min(len(raw), rng.choice([64, 200, 600, 2000]))
        at = rng.randrange(max(end, 1))
        kind = rng.random()
        if kind < 0.25:
            raw[at : at + 1] = bytes([rng.randrange(256)])
        elif kind < 0.5:
            value = rng.choice(EXTREMES)
            raw[at : at + len(value)] = value
        elif kind < 0.7:
            numbers = list(re.finditer(rb"-?\d[\d.]*", bytes(raw[:4000])))
            if numbers:
                place = rng.choice(numbers)
                raw[place.start() : place.end()] = rng.choice(WORDS)
        elif kind < 0.8:
            del raw[at:]
        elif kind < 0.9:
            del raw[at : at + rng.randrange(1, 20)]
        else:
            raw[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
    return gzip.compress(bytes(raw), 1) if packed else bytes(raw)


def attempt(path: Path, labels: bool, frame: int | None) -> str:
    """Read; say what happened. Anything but a volume or a SamaritanError goes wrong."""
    signal.alarm(SECONDS)
    try:
        volume = (read_labels if labels else read)(path, frame=frame, max_bytes=MAX_BYTES)
        # a wrong file may be widened once after reading, from 1 or 2 to 4 or 8 bytes a voxel
        return "read" if volume.array.nbytes <= 8 * MAX_BYTES else f"took {volume.array.nbytes}"
    except SamaritanError as error:
        return (
            "refused"
            if path.name.split(".")[0] in str(error)
            else f"does not name the file: {error}"
        )
    except (Exception, TookTooLong) as error:  # noqa: BLE001  whatever comes is reported
        return "".join(traceback.format_exception(error)[-3:])
    finally:
        signal.alarm(0)


def main(seeds: Path, work: Path, each: int) -> None:
    signal.signal(signal.SIGALRM, too_long)
    warnings.simplefilter("ignore")
    before = peak_gib()
    counts = {"read": 0, "refused": 0}
    wrong: list[str] = []
    slowest = (0.0, "")
    for seed in sorted(p for p in seeds.iterdir() if not p.name.startswith("_")):
        data = seed.read_bytes()
        for n in range(each):
            rng = random.Random(f"{seed.name} {n}")
            path = work / seed.name
            for companion in seeds.glob(f"_{seed.name.split('.')[0]}.*"):
                (work / companion.name[1:]).write_bytes(companion.read_bytes())
            path.write_bytes(damaged(data, rng))
            start = time.monotonic()
            result = attempt(path, labels=n % 3 == 0, frame=0 if n % 2 else None)
            slowest = max(slowest, (time.monotonic() - start, f"{seed.name} {n}"))
            if result in counts:
                counts[result] += 1
            else:
                wrong.append(f"{seed.name}, mutation {n}: {result}")
        for left in work.iterdir():
            left.unlink()
    peak = round((peak_gib() - before) * 2**20)
    print(json.dumps({**counts, "wrong": wrong, "peak_kib": peak, "slowest": slowest}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
