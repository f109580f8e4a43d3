"""Pictures decoded and resized once, kept in memory or in one file, so that loading is a copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Manifest
from samaritan.data.objects import Drawn, Objects, object_planes, resize_planes
from samaritan.data.reading import case_image, case_labels
from samaritan.errors import ConfigError, SamaritanError
from samaritan.io.files import check_need, replacing
from samaritan.transforms import SlicePreprocess
from samaritan.transforms.preprocess import to_bytes
from samaritan.volume import Volume

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Example:
    """One picture, as large as it fills the model's input.

    Attributes:
        pixels: (rows, columns, 1 or 3) of 8 bits.
        planes: (planes, rows, columns) of label values or object numbers.
        objects: what is drawn on the planes.
    """

    pixels: Array
    planes: Array
    objects: tuple[Drawn, ...]


@dataclass
class Examples:
    """All pictures of a data set, in the order of its cases.

    Attributes:
        cases: of the pictures.
        saved: objects that would have vanished when they were made smaller.
    """

    cases: tuple[Case, ...]
    saved: int
    _examples: list[Example] | None
    _file: Path | None = None
    _records: tuple[dict[str, Any], ...] = ()
    _bytes: Array | None = None

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Example:
        if self._examples is not None:
            return self._examples[index]
        if self._bytes is None:  # opened in each process that reads
            self._bytes = np.memmap(self._file, np.uint8, "r")  # type: ignore[call-overload]
        record = self._records[index]
        arrays = []
        for start, shape, dtype in record["arrays"]:
            count = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays.append(self._bytes[start : start + count].view(dtype).reshape(shape))
        return Example(arrays[0], arrays[1], tuple(Drawn(*o) for o in record["objects"]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None}


def pack(
    manifest: Manifest,
    chain: SlicePreprocess,
    *,
    objects: Objects = "labels",
    cache: Path | None = None,
    workers: int = 2,
    progress: Progress = lambda done, total: None,
) -> Examples:
    """Decode and resize every picture of a manifest.

    Args:
        manifest: of pictures and slices.
        chain: the preprocessing that the model will see; it says how large a picture becomes.
        objects: what counts as an object of a label map.
        cache: a folder to keep the result in, and to find it again while nothing has changed; shared by
            all worker processes. None keeps it in memory.
        workers: threads that decode.
        progress: called with (pictures done, pictures in all).

    Raises:
        ConfigError: if a case is a volume, or has no labels.
        FileError: naming the case that cannot be read.
    """
    if cache is not None:
        found = _find(manifest, chain, objects, cache)
        if found is not None:
            return found
    made = _made(manifest, chain, objects, workers, progress)
    if cache is None:
        return _in_memory(manifest, made)
    return _in_file(manifest, made, _file_of(manifest, chain, objects, cache))


def _made(
    manifest: Manifest, chain: SlicePreprocess, objects: Objects, workers: int, progress: Progress
) -> Iterator[tuple[Example, int]]:
    def one(case: Case) -> tuple[Example, int]:
        try:
            return make_example(manifest, case, chain, objects)
        except SamaritanError as error:
            hint = "`samaritan prepare check` tells every problem of every case at once"
            raise type(error)(f"case {case.id!r}: {error} ({hint})") from error

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for start in range(0, len(manifest), 256):  # so that results never pile up
            some = manifest.cases[start : start + 256]
            for done, example in enumerate(pool.map(one, some), start + 1):
                progress(done, len(manifest))
                yield example


def make_example(
    manifest: Manifest, case: Case, chain: SlicePreprocess, objects: Objects
) -> tuple[Example, int]:
    """Decode and resize one picture; also tell how many small objects were saved."""
    image = case_image(manifest, case)
    if image.shape[2] != 1:
        raise ConfigError(
            f"{image.shape} voxels are a volume: make pictures of it with samaritan prepare slices"
        )
    group = manifest.group_of(case)
    planes, drawn = object_planes(case, case_labels(manifest, case), objects, group.ignore)
    if planes.shape[1:] != image.shape[:2]:
        raise ConfigError(
            f"the labels have {planes.shape[1:]} pixels and the image {image.shape[:2]}"
        )
    low, high = _ends(image, chain, group.window)
    pixels = _colors(to_bytes(image.array[:, :, 0], low, high))
    shape = chain.content_size(image.grid)
    planes, saved = resize_planes(planes, shape, drawn)
    return Example(resize_pixels(pixels, shape, chain), planes, drawn), saved


def _ends(
    image: Volume, chain: SlicePreprocess, window: tuple[float, float] | None
) -> tuple[float, float]:
    """Find what becomes 0 and 255: what the manifest says, 8 bits as they are, else by the chain."""
    if window is not None:
        return window
    if image.dtype == np.uint8:
        return 0.0, 255.0
    found = chain.statistics(image)
    return found["low"], found["high"]


def _colors(pixels: Array) -> Array:
    """Make (rows, columns, 1 or 3) of whatever channels there are; colours that are grey become one."""
    if pixels.ndim == 2:
        return pixels[:, :, None]
    if pixels.shape[2] not in (1, 2, 3, 4):
        raise ConfigError(f"{pixels.shape[2]} channels make no picture")
    kept = pixels[:, :, : 3 if pixels.shape[2] >= 3 else 1]  # without transparency
    grey = kept.shape[2] == 3 and bool((kept == kept[:, :, :1]).all())
    return np.ascontiguousarray(kept[:, :, :1] if grey else kept)


def resize_pixels(pixels: Array, shape: tuple[int, int], chain: SlicePreprocess) -> Array:
    """Resize (rows, columns, 1 or 3) of 8 bits as the chain does."""
    from PIL import Image

    if pixels.shape[:2] == shape:
        return pixels
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    resized = picture.resize((shape[1], shape[0]), Image.Resampling[chain.interpolation.upper()])
    return np.array(resized).reshape(*shape, pixels.shape[2])


# -- keeping -----------------------------------------------------------------------------------------


def _in_memory(manifest: Manifest, made: Iterator[tuple[Example, int]]) -> Examples:
    examples, saved, total = [], 0, 0
    for example, count in made:
        examples.append(example)
        saved += count
        total += example.pixels.nbytes + example.planes.nbytes
        if len(examples) in (100, 1000):
            check_need(manifest.root, total * len(manifest) // len(examples), None)
    return Examples(manifest.cases, saved, examples)


def _file_of(manifest: Manifest, chain: SlicePreprocess, objects: Objects, cache: Path) -> Path:
    ids = [c.id for c in manifest.cases]
    key = json.dumps([manifest.fingerprint(), ids, chain.to_dict(), objects], sort_keys=True)
    return cache / f"examples-{hashlib.sha256(key.encode()).hexdigest()[:24]}.bin"


def _in_file(manifest: Manifest, made: Iterator[tuple[Example, int]], file: Path) -> Examples:
    records: list[dict[str, Any]] = []
    saved = start = 0
    with replacing(file, file.with_suffix(".json")) as (data, index):
        with data.open("wb") as out:
            for example, count in made:
                saved += count
                arrays = []
                for array in (example.pixels, example.planes):
                    start += out.write(b"\0" * (-start % 16))
                    arrays.append((start, array.shape, array.dtype.str))
                    start += out.write(np.ascontiguousarray(array).tobytes())
                records.append({"arrays": arrays, "objects": example.objects})
        index.write_text(json.dumps({"saved": saved, "records": records}), "utf-8")
    return Examples(manifest.cases, saved, None, file, tuple(records))


def _find(
    manifest: Manifest, chain: SlicePreprocess, objects: Objects, cache: Path
) -> Examples | None:
    file = _file_of(manifest, chain, objects, cache)
    index = file.with_suffix(".json")
    if not (file.is_file() and index.is_file()):
        return None
    known = json.loads(index.read_text("utf-8"))
    records: Sequence[dict[str, Any]] = known["records"]
    if len(records) != len(manifest):
        return None
    return Examples(manifest.cases, int(known["saved"]), None, file, tuple(records))
