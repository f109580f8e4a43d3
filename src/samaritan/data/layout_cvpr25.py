"""Volumes as the CVPR 2025 challenge hands them out: .npz with imgs from 0 to 255, gts, spacing, boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from samaritan.data.layouts import Converted, Mask, NnUNet
from samaritan.data.manifest import Case
from samaritan.data.slicing import ends, scaled
from samaritan.data.windows import window_for
from samaritan.io.npz import ORIENTATION
from samaritan.io.npz_prompts import SliceBox
from samaritan.io.npz_write import write_case
from samaritan.volume import LabelMap, Volume

CT_WINDOW = "soft_tissue"
"""The challenge's window of CT: level 40, width 400."""

MOST_SHIFT = 5
"""Boxes are wider by up to so many pixels of a slice of 256."""


class Cvpr25(NnUNet):
    """CASE.npz; a folder for each data set, and for each part where parts are decided.

    Axes run (z, y, x). The affine comes along under a name of its own, which others overlook.
    """

    def write(
        self,
        case: Case,
        name: str,
        image: Volume,
        masks: Sequence[Mask],
        drawn: Sequence[LabelMap],
        merge: bool,
    ) -> Converted:
        """Write one file with image, labels and a box for each label.

        Voxels that nobody decided become background. Images of 8 bits stay as they are.
        """
        group = self.manifest.group_of(case)
        shown = image.reorient(ORIENTATION)
        if shown.dtype != np.uint8:
            window = window_for(case.modality, CT_WINDOW if case.modality == "CT" else None)
            low, high = ends(shown, window)
            shown = shown.with_array(scaled(shown.array, low, high, 8))
        labels = boxes = None
        if drawn:
            labels = self._map(case, masks, drawn, merge).reorient(ORIENTATION)
            array = np.where(labels.array == group.ignore, 0, labels.array)
            known = {value: label for label, value in self.labels[case.group].items()}
            present = [v for v in np.unique(array).tolist() if v]
            labels = labels.with_array(array, names={v: known[v] for v in present if v in known})
            boxes = [
                SliceBox.around(array == value, box_shift(case.id, value)) for value in present
            ]
        split = f"{case.split}/" if case.split in ("train", "val", "test") else ""
        file = f"{self.folder[case.group]}{split}{name}.npz"
        write_case(self.out / file, shown, labels, boxes)
        rows = [] if labels is None else [(labels.labels(), file, None, file)]
        return Converted((file,), tuple(rows), shown.grid.spacing_mm)

    def finish(self, rows: Iterable[tuple[Case, Converted]]) -> None:
        """Nothing stands beside the files."""


def box_shift(case: str, label: int) -> int:
    """Draw by how much a box is wider, from 0 to `MOST_SHIFT`: the same for the same case and label always.

    The published draws depend on the order of many processes and cannot be met.
    """
    text = f"{case}/{label}/box".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") % (MOST_SHIFT + 1)
