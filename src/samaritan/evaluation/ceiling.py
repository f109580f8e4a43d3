"""What a perfect answer would score: so one sees what window, spacing and the coarseness of masks cost.

A model sees an image on a lattice of its own, in windows, and gives masks that are coarser still. Even one
that knows everything loses something on the way back to the image's grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.data.volumes import around, inside
from samaritan.evaluation.targets import Mask
from samaritan.evaluation.trial import CEILING, CEILING_SPACING, CEILING_WINDOW
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.infer.engine import Embedded, OpenImage
from samaritan.infer.objects import patch_on
from samaritan.metrics import dice
from samaritan.transforms import PRIOR_LOGIT, WindowPreprocess
from samaritan.volume import LabelMap, Volume

STEPS, RATE = 60, 1.0
"""How long, and how fast, the low-resolution logits nearest to an object are sought."""

CORRECTIONS = 2
"""How often values on the lattice are corrected by what is still wrong after the way back."""

Triple = tuple[int, int, int]

MARGIN = 2
"""So many voxels (cells) around an object are looked at."""


def ceilings(predictor: Predictor, reference: Volume) -> dict[str, Mask]:
    """What a perfect answer would be on the image's grid.

    - "ceiling of spacing", of 3D models: the values on the model's lattice that come nearest to the object
      once they are back on the image's grid; brought back, and cut at one half.
    - "ceiling of one window", of 3D models: of these, what lies in one window around the object's middle.
    - "ceiling": whoever stands in for the model gives, in every window, the low-resolution logits that come
      nearest to these values once enlarged. Windows, blending and the way back are the session's own, asked
      with a box around the whole object.

    Args:
        predictor: the model, of which nothing but its sizes is used.
        reference: the object, 0 and 1, on the image's grid.

    Raises:
        PromptError: if the model takes no prompts.
    """
    drawn = reference.with_array(np.asarray(reference.array != 0, np.float32))
    where = np.argwhere(drawn.array)
    if not len(where):
        return {}
    found: dict[str, Mask] = {}
    chain, known = predictor.preprocess, drawn
    low, high = where.min(axis=0), where.max(axis=0) + 1
    if isinstance(chain, WindowPreprocess):
        lattice = chain.lattice(drawn.grid)
        start, stop = box_on(lattice, drawn.grid, low, high)
        known = _nearest_values(drawn, lattice, start, stop)
        first = inside(around(start, stop, chain.size), chain.size, lattice.shape)
        window = known.to_grid(lattice.window(first, chain.size))
        found[CEILING_SPACING] = _back(known, drawn.grid) > 0.5
        found[CEILING_WINDOW] = _back(window, drawn.grid) > 0.5
    session = Perfect(predictor, known).session(drawn).box(low.tolist(), high.tolist())
    return {**found, CEILING: np.asarray(session.mask.array) != 0}


def ceiling_dice(predictor: Predictor, labels: LabelMap) -> dict[int, dict[str, float]]:
    """The Dice of `ceilings`, for each label of a label map.

    Example::

        ceiling_dice(Predictor(create_model("sammed3d_vit_b_ori")), read_labels("amos_0013.nii.gz"))
    """
    return {
        label: {
            name: dice(mask, labels.array == label)
            for name, mask in ceilings(predictor, labels.mask(label)).items()
        }
        for label in labels.labels()
    }


class Perfect(Predictor):
    """Stands in for a model and knows the answer: how much of each place belongs to the object, 0 to 1."""

    def __init__(self, predictor: Predictor, known: Volume) -> None:
        super().__init__(predictor.model, predictor.preprocess, device=predictor.device)
        self.known = known

    @property
    def takes_boxes(self) -> bool:
        """Whoever knows everything understands boxes."""
        return True

    def embed(
        self, image: OpenImage, key: tuple[int, ...], statistics: Mapping[str, float]
    ) -> Embedded:
        """Look up the object in a frame, and think about what to say."""
        grid, n_axes = image.frame_grid(key), self.preprocess.n_axes
        seen = self.known.to_grid(grid).array.astype(np.float32, copy=False)
        values = torch.from_numpy(np.ascontiguousarray(seen)).reshape(grid.shape[:n_axes])
        logits = nearest_logits(values.clamp(0, 1), self.low_res_size)
        return Embedded(logits[None, None], grid, n_axes, statistics)

    def decode(
        self, embedded: Embedded, *, multimask: bool = False, **prompts: Any
    ) -> tuple[Tensor, Tensor]:
        """Say it, whatever the prompts are."""
        del prompts
        count = 3 if multimask else 1
        logits = embedded.features.expand(-1, count, *embedded.features.shape[2:])
        return logits, torch.ones(1, count)


def nearest_logits(values: Tensor, low: tuple[int, ...]) -> Tensor:
    """The low-resolution logits that come nearest to an object once they are enlarged.

    The problem is convex (logistic regression), so a few steps of descent find its solution closely.

    Args:
        values: how much of each voxel of the input belongs to the object, 0 to 1.
        low: size of the logits.
    """
    least = 1 / (1 + float(np.exp(PRIOR_LOGIT)))
    cells = _pooled(values, low)
    start = torch.logit(cells.clamp(least, 1 - least))
    mixed = (cells > 0) & (cells < 1)
    if tuple(values.shape) == low or not bool(mixed.any()):
        return start
    part = _part(mixed, values.shape)
    inner = tuple(
        slice(s.start * n // m, s.stop * n // m)
        for s, n, m in zip(part, values.shape, low, strict=True)
    )
    target = values[inner][None, None]
    mode = "bilinear" if values.ndim == 2 else "trilinear"
    with torch.inference_mode(False), torch.enable_grad():
        logits = start[part].clone()[None, None].requires_grad_()
        descent = torch.optim.Adam([logits], lr=RATE)
        for _ in range(STEPS):
            enlarged = F.interpolate(logits, target.shape[2:], mode=mode, align_corners=False)
            loss = F.binary_cross_entropy_with_logits(enlarged, target, reduction="sum")
            descent.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            descent.step()
    found = start.clone()
    found[part] = logits.detach()[0, 0]
    return found


def _pooled(values: Tensor, low: tuple[int, ...]) -> Tensor:
    pool: Any = F.adaptive_avg_pool2d if values.ndim == 2 else F.adaptive_avg_pool3d
    found: Tensor = pool(values[None, None], low)[0, 0]
    return found


def _part(mixed: Tensor, size: torch.Size) -> tuple[slice, ...]:
    """The cells about an object's surface; all of them along axes that cells do not divide evenly."""
    where = torch.nonzero(mixed)
    low, high = where.amin(dim=0) - MARGIN, where.amax(dim=0) + 1 + MARGIN
    return tuple(
        slice(max(int(a), 0), min(int(b), n)) if total % n == 0 else slice(0, n)
        for a, b, n, total in zip(low, high, mixed.shape, size, strict=True)
    )


def box_on(lattice: Grid, grid: Grid, low: Any, high: Any) -> tuple[Triple, Triple]:
    """The box on a lattice that holds a box of a grid; both are half-open."""
    ends = np.array([low, high]) - 0.5
    corners = [[ends[a, 0], ends[b, 1], ends[c, 2]] for a, b, c in np.ndindex(2, 2, 2)]
    moved = lattice.mm_to_index(grid.index_to_mm(np.array(corners)))
    start = np.floor(moved.min(axis=0) + 0.5 + 1e-3).astype(int)
    stop = np.maximum(np.ceil(moved.max(axis=0) + 0.5 - 1e-3).astype(int), start + 1)
    i, j, k = start.tolist()
    to_i, to_j, to_k = stop.tolist()
    return (i, j, k), (to_i, to_j, to_k)


def _nearest_values(drawn: Volume, lattice: Grid, start: Triple, stop: Triple) -> Volume:
    """Values on a part of a lattice that come nearest to an object once they are back on its grid."""
    first = [a - MARGIN for a in start]
    grid = lattice.window(first, [b - a + 2 * MARGIN for a, b in zip(start, stop, strict=True)])
    known = drawn.to_grid(grid)
    values = known.array.astype(np.float32, copy=False)
    for _ in range(CORRECTIONS):
        wrong = drawn.array - _back(known.with_array(values), drawn.grid)
        values = np.clip(values + 1.5 * drawn.with_array(wrong).to_grid(grid).array, 0, 1)
    return known.with_array(values)


def _back(values: Volume, grid: Grid) -> npt.NDArray[np.float32]:
    """Bring values from a lattice to a grid, as answers are."""
    found: npt.NDArray[np.float32] = np.zeros(grid.shape, np.float32)
    patch = patch_on(grid, values)
    if patch is not None:
        found[patch.where] = patch.probability
    return found
