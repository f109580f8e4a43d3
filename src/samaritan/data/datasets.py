"""Datasets to train 2D models on: whole label maps, or objects to point at.

An item is a pure function of (seed, epoch, turn, case): the same with any number of workers, and after
a run was stopped. The same `SlicePreprocess` makes the input here and in prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from samaritan.data.manifest import Case, Manifest
from samaritan.data.objects import Drawn, Objects
from samaritan.data.packing import Example, pack, resize_pixels
from samaritan.data.sampling import Draw
from samaritan.data.zooming import cubic, nearest
from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.transforms import SlicePreprocess

Array = npt.NDArray[Any]
Item = dict[str, Tensor]
Progress = Callable[[int, int], None]

NOT_DECIDED = -100
"""Stands in labels where the data set says that nobody decided; the value that torch's losses skip."""


_ANY_SIZE = (1 << 20, 1 << 20)
"""No picture is larger, so that none is resized."""


class Augmentation(Protocol):
    """Changes a picture and its planes together; see `samaritan.data.augment`."""

    def __call__(
        self, pixels: Array, planes: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Take and give pixels (rows, columns, c) of 8 bits and planes (m, rows, columns)."""
        ...


class _Pictures(Dataset[Item]):
    """What both datasets share: packed pictures, augmentation, and the way to the model's input."""

    _objects: Objects = "labels"

    def __init__(
        self,
        manifest: Manifest,
        chain: SlicePreprocess,
        *,
        augment: Augmentation | None = None,
        seed: int = 0,
        cache: Path | None = None,
        workers: int = 2,
        progress: Progress = lambda done, total: None,
    ) -> None:
        if not len(manifest):
            raise ConfigError("the manifest has no case: is the part that was chosen empty?")
        self.manifest, self.chain, self.augment, self.seed = manifest, chain, augment, seed
        self.examples = pack(
            manifest,
            self._packed_by(chain),
            objects=self._objects,
            cache=cache,
            workers=workers,
            progress=progress,
        )
        self.epoch = 0
        self._kept = list(range(len(manifest)))

    def _packed_by(self, chain: SlicePreprocess) -> SlicePreprocess:
        """Say by which chain pictures are resized once and for all."""
        return chain

    def set_epoch(self, epoch: int) -> None:
        """Say how often the data were gone through; for plain indices, `Draw`s bring their own."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases that items are made of, in the order of their indices."""
        return tuple(self.manifest.cases[i] for i in self._kept)

    def _example(self, key: int | Draw) -> tuple[Draw, Example]:
        draw = key if isinstance(key, Draw) else Draw(int(key), self.epoch, int(key))
        if not 0 <= draw.item < len(self):
            raise IndexError(draw.item)
        return draw, self.examples[self._kept[draw.item]]

    def _augmented(self, example: Example, rng: np.random.Generator) -> tuple[Array, Array]:
        if self.augment is None:
            return example.pixels, example.planes
        return self.augment(example.pixels, example.planes, rng)

    def _input(self, pixels: Array, planes: Array) -> tuple[Tensor, Array]:
        """Give the model's input, and the planes on the same pixels."""
        rows, columns = pixels.shape[:2]
        if (rows, columns) != self._fitting(
            rows, columns
        ):  # turned, it may fill the input otherwise
            rows, columns = self._fitting(rows, columns)
            pixels = resize_pixels(pixels, (rows, columns), self.chain)
            planes = _nearest(planes, (rows, columns))
        padded = np.zeros((len(planes), *self.chain.size), planes.dtype)
        top, left = self.chain.offset(rows, columns)
        padded[:, top : top + rows, left : left + columns] = planes
        return self.chain.tensor(pixels)[0], padded

    def _fitting(self, rows: int, columns: int) -> tuple[int, int]:
        """Say how large a packed picture must be to fill the input."""
        size = self.chain.size
        if (rows == size[0] and columns <= size[1]) or (columns == size[1] and rows <= size[0]):
            if self.chain.resize == "longest":
                return rows, columns
            return size
        return self.chain.content_size(Grid.pixels((rows, columns)))


class SliceDataset(_Pictures):
    """Pictures with whole label maps, for prompt-free models of several classes (SAMed).

    Items: "image" (c, *size) float32; "label" (*size) int64; "low_res_label" (*size / 4) int64, on the
    pixels of the decoder's own logits; "index" of the case.

    Args:
        manifest: of pictures with one label map each.
        chain: the model's preprocessing.
        num_classes: classes without background; None: the largest label that the data name or hold.
        corner_aligned: sample low-resolution labels as SAMed does, from corner to corner, up to 1.5 pixels
            beside the logits; otherwise the commonest label of each block of pixels counts.
        cubic_zoom: bring pictures to the input as SAMed does, by cubic splines after augmentation.
        augment, seed, cache, workers, progress: see `samaritan.data.packing.pack`.

    Raises:
        ConfigError: if a label is larger than the number of classes, or has no name while others have,
            naming the case.
    """

    def __init__(
        self,
        manifest: Manifest,
        chain: SlicePreprocess,
        *,
        num_classes: int | None = None,
        corner_aligned: bool = False,
        cubic_zoom: bool = False,
        **more: Any,
    ) -> None:
        other = next((c for c in manifest if c.label_kind != "map"), None)
        if other is not None:
            raise ConfigError(
                f"case {other.id!r} holds {other.label_kind}, but classes need a label map"
            )
        self.corner_aligned, self.cubic_zoom = corner_aligned, cubic_zoom
        super().__init__(manifest, chain, **more)
        if num_classes is None:
            self._check_names()
        named = max((v for g in manifest.groups.values() for v in g.labels), default=0)
        held = [max((o.value for o in self.examples[i].objects), default=0) for i in self._kept]
        self.num_classes = max(named, *held, 1) if num_classes is None else num_classes
        if max(held) > self.num_classes:
            case = manifest.cases[int(np.argmax(held))]
            count = f"{self.num_classes} class{'es' * (self.num_classes > 1)}"
            raise ConfigError(
                f"case {case.id!r} holds label {max(held)}, but the model is to have {count}: set the number "
                "of classes (model.num_classes), or renumber the labels"
            )

    def __getitem__(self, key: int | Draw) -> Item:
        draw, example = self._example(key)
        pixels, planes = self._augmented(example, draw.generator(self.seed))
        image, padded = self._input(pixels, planes)
        label = torch.from_numpy(padded[0].astype(np.int64))
        ignore = self.manifest.group_of(self.cases_at(draw.item)).ignore
        if ignore is not None:
            label[label == ignore] = NOT_DECIDED
        low = low_res_labels(label, corner_aligned=self.corner_aligned)
        return {
            "image": image,
            "label": label,
            "low_res_label": low,
            "index": torch.tensor(draw.item),
        }

    def _check_names(self) -> None:
        """See that every label has a name, where the data set names any."""
        for index, case in enumerate(self.manifest):
            known = self.manifest.group_of(case).labels
            odd = sorted({o.value for o in self.examples[index].objects} - set(known))
            if known and odd:
                raise ConfigError(
                    f"case {case.id!r} holds labels {odd} that have no name; named are {dict(known)}. Mend "
                    "them (`samaritan prepare check` tells all), or set the number of classes"
                )

    def _packed_by(self, chain: SlicePreprocess) -> SlicePreprocess:
        """With `cubic_zoom`, pictures keep their size: they are augmented first."""
        return replace(chain, resize="pad", size=_ANY_SIZE) if self.cubic_zoom else chain

    def _input(self, pixels: Array, planes: Array) -> tuple[Tensor, Array]:
        """Give the model's input, and the planes on the same pixels."""
        if not self.cubic_zoom:
            return super()._input(pixels, planes)
        size = self.chain.size
        return self.chain.tensor(cubic(pixels, size))[0], nearest(planes, size)

    def cases_at(self, index: int) -> Case:
        """Give the case of an item."""
        return self.manifest.cases[self._kept[index]]


class ObjectDataset(_Pictures):
    """Pictures with objects to point at, for promptable models (SAM-Med2D).

    Items: "image" (c, *size) float32; "masks" (k, *size) bool; "labels" (k) int64, the label value of
    each; "valid" (k) bool, false where an object is repeated only to fill up; "index" of the case.

    Args:
        manifest: of pictures with labels of any kind.
        chain: the model's preprocessing.
        count: objects of each picture.
        replacement: draw objects with replacement, as published; otherwise each once.
        objects: what counts as an object of a label map.
        min_size: pixels of the model's input that an object needs.
        augment, seed, cache, workers, progress: see `samaritan.data.packing.pack`.

    Attributes:
        skipped: cases that hold no object of this size; they are left out.

    Raises:
        ConfigError: if no case is left.
    """

    def __init__(
        self,
        manifest: Manifest,
        chain: SlicePreprocess,
        *,
        count: int = 5,
        replacement: bool = True,
        objects: Objects = "labels",
        min_size: int = 1,
        **more: Any,
    ) -> None:
        if count < 1 or min_size < 1:
            raise ConfigError(f"count and min_size must be at least 1, got {count} and {min_size}")
        self._objects = objects
        labelled = manifest.select(where=lambda c: bool(c.labels))
        super().__init__(labelled, chain, **more)
        self.count, self.replacement, self.min_size = count, replacement, min_size
        enough = [bool(self._large(self.examples[i])) for i in self._kept]
        self._kept = [i for i, keep in enumerate(enough) if keep]
        self.skipped = len(manifest) - len(self._kept)
        if not self._kept:
            raise ConfigError(f"no case holds an object of {min_size} pixels")

    def __getitem__(self, key: int | Draw) -> Item:
        draw, example = self._example(key)
        rng = draw.generator(self.seed)
        pixels, planes, large = self._with_objects(example, rng)
        image, padded = self._input(pixels, planes)
        chosen, valid = self._chosen(large, rng)
        masks = np.stack([padded[o.plane] == o.value for o in chosen])
        return {
            "image": image,
            "masks": torch.from_numpy(masks),
            "labels": torch.tensor([o.label for o in chosen]),
            "valid": torch.from_numpy(valid),
            "index": torch.tensor(draw.item),
        }

    def _with_objects(
        self, example: Example, rng: np.random.Generator
    ) -> tuple[Array, Array, list[Drawn]]:
        """Augment; if that moved every object out of the picture, try again, then leave it as it is."""
        for _ in range(3 if self.augment is not None else 0):
            pixels, planes = self._augmented(example, rng)
            large = self._large(Example(pixels, planes, example.objects))
            if large:
                return pixels, planes, large
        return example.pixels, example.planes, self._large(example)

    def _large(self, example: Example) -> list[Drawn]:
        sizes = [np.bincount(p.ravel()) for p in example.planes]
        return [
            o
            for o in example.objects
            if o.value < len(sizes[o.plane]) and sizes[o.plane][o.value] >= self.min_size
        ]

    def _chosen(
        self, large: list[Drawn], rng: np.random.Generator
    ) -> tuple[list[Drawn], npt.NDArray[np.bool_]]:
        if self.replacement:
            return [large[i] for i in rng.integers(len(large), size=self.count)], np.ones(
                self.count, bool
            )
        order = rng.permutation(len(large))
        turns = np.arange(self.count)
        return [large[order[i % len(large)]] for i in turns], turns < len(large)


def flatten_objects(batch: Item) -> Item:
    """Put the objects of a batch in one row, image by image: (b, k, ...) becomes (b k, ...).

    "image" stays (b, c, *size): an image is encoded once for all its objects.
    """
    flat = {k: v.flatten(0, 1) for k, v in batch.items() if k in ("masks", "labels", "valid")}
    return {**batch, **flat}


def low_res_labels(
    label: Int[Tensor, "*size"], *, factor: int = 4, corner_aligned: bool = False
) -> Int[Tensor, "*small"]:
    """Make labels of the decoder's own resolution.

    Args:
        label: (rows, columns), both multiples of `factor`.
        factor: of the resolution.
        corner_aligned: take pixel round(i (n - 1) / (m - 1)), as SAMed's `zoom` of order 0 does.
            Otherwise each block's commonest label, the smaller one where two are equally common, on the
            pixels that bilinear enlarging of the logits expects.
    """
    rows, columns = label.shape
    if rows % factor or columns % factor:
        raise ConfigError(f"{rows} x {columns} pixels are not multiples of {factor}")
    small = rows // factor, columns // factor
    if corner_aligned:
        i, j = (
            torch.from_numpy(np.floor(np.arange(m) * ((n - 1) / max(m - 1, 1)) + 0.5).astype(int))
            for n, m in zip((rows, columns), small, strict=True)
        )
        return label[i][:, j]
    blocks = label.reshape(small[0], factor, small[1], factor).permute(0, 2, 1, 3).flatten(2)
    return blocks.mode(dim=2).values


def _nearest(planes: Array, shape: Sequence[int]) -> Array:
    i = ((np.arange(shape[0]) + 0.5) * planes.shape[1] / shape[0]).astype(int)
    j = ((np.arange(shape[1]) + 0.5) * planes.shape[2] / shape[1]).astype(int)
    return np.ascontiguousarray(planes[:, i][:, :, j])
