"""Probabilities of every class as files, written slice by slice as they are made: never all in memory."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from samaritan.data.nnunet.cropping import slices_of
from samaritan.data.nnunet.rawset import axes_of, to_file
from samaritan.data.nnunet.restoring import Slab, WayBack
from samaritan.errors import FileError
from samaritan.io import write
from samaritan.io.files import replacing
from samaritan.volume import Volume

Array = npt.NDArray[Any]
Kind = Literal["npz", "nii.gz"]

FOLDER = "probabilities"
"""Of volumes of probabilities, beside the label maps."""


class FullDisk(FileError):
    """What is in between cannot be written: going on would fail for every case."""


@dataclass
class ProbabilityFiles:
    """Where probabilities of a case go; its `tee` is for `VolumeLabeller.labels`.

    On their way they lie in a file of heads x volume float32 numbers beside the results; at the end
    they are written class by class, so that memory holds one volume at a time.

    Attributes:
        folder: of the results.
        case: name of the case.
        kind: "npz" is nnU-Net's, one file with (heads, k, j, i); "nii.gz" has a volume for each class, on the
            grid of the scan.
    """

    folder: Path
    case: str
    kind: Kind = "npz"

    def __post_init__(self) -> None:
        self._scratch = self.folder / f".tmp-{self.case}.probabilities.npy"
        self._turned: Volume | None = None
        self._way: WayBack | None = None

    def tee(self, stream: Iterable[Slab], way: WayBack, turned: Volume) -> Iterator[Slab]:
        """Write slices down as they pass.

        Raises:
            FullDisk: if they cannot be written.
        """
        self._turned, self._way = turned, way
        self.folder.mkdir(parents=True, exist_ok=True)
        first, last = way.properties.box[0]
        slices = way.properties.shape_before_cropping[0]
        with self._writing(), self._scratch.open("wb") as out:
            for z in (*range(first), *range(last, slices)):
                self._put(out, z, None)
        with self._scratch.open("r+b") as out:
            for start, found in stream:
                with self._writing():
                    for at in range(found.shape[1]):
                        self._put(out, first + start + at, found[:, at].numpy())
                yield start, found

    def _put(self, out: BinaryIO, z: int, inner: Array | None) -> None:
        """Write a slice of every class; what was cropped away is background."""
        assert self._way is not None
        properties, labels = self._way.properties, self._way.labels
        slices, *plane = properties.shape_before_cropping
        whole = np.zeros((labels.heads, *plane), np.float32)
        if not labels.has_regions:
            whole[0] = 1
        if inner is not None:
            whole[(slice(None), *slices_of(properties.box[1:]))] = inner
        size = whole[0].nbytes
        for head in range(labels.heads):
            out.seek((head * slices + z) * size)
            out.write(whole[head].tobytes())

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FullDisk(
                f"probabilities cannot be written to {self.folder}: {error.strerror or error}"
            ) from error

    def write(self, volume: Volume) -> list[Path]:
        """Write the files of a case, each wholly or not at all, and remove what was in between.

        Args:
            volume: the scan, whose grid the probabilities shall lie on.

        Raises:
            FileError: if they cannot be written.
        """
        try:
            if self.kind == "npz":
                return [self._npz(volume)]
            return list(self._volumes(volume))
        finally:
            self.forget()

    def forget(self) -> None:
        """Remove what is in between."""
        self._scratch.unlink(missing_ok=True)

    def _npz(self, volume: Volume) -> Path:
        """Write nnU-Net's file; the shape stands first, so classes can follow one by one."""
        order = axes_of(volume.grid)
        path, shape = self.folder / f"{self.case}.npz", tuple(volume.shape[a] for a in order)
        with (
            replacing(path) as (new,),
            zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("probabilities.npy", "w", force_zip64=True) as out,
        ):
            heads = self._heads()
            header = {"descr": "<f4", "fortran_order": False, "shape": (heads, *shape)}
            np.lib.format.write_array_header_2_0(out, header)
            for head in range(heads):
                one = self._on(volume, head).array.transpose(order)
                out.write(np.ascontiguousarray(one, "<f4").tobytes())
        return path

    def _volumes(self, volume: Volume) -> Iterator[Path]:
        assert self._way is not None
        labels = self._way.labels
        named = {0: "background", **labels.titles()}
        titles = list(labels.names) if labels.has_regions else [named[v] for v in labels.values]
        for head, title in enumerate(titles):
            name = title.replace("/", "_").replace("\\", "_")
            path = self.folder / FOLDER / self.case / f"{name}.nii.gz"
            write(self._on(volume, head), path)
            yield path

    def _heads(self) -> int:
        assert self._way is not None
        return self._way.labels.heads

    def _on(self, volume: Volume, head: int) -> Volume:
        """One class on the grid of the scan."""
        assert self._way is not None
        assert self._turned is not None
        shape = self._way.properties.shape_before_cropping
        count = math.prod(shape)
        kept = np.fromfile(self._scratch, np.float32, count, offset=4 * count * head)
        array = kept.reshape(shape).transpose(self._way.plans.transpose_backward)
        turned = Volume(to_file(array, self._turned.grid), self._turned.grid)
        return turned.to_grid(volume.grid)
