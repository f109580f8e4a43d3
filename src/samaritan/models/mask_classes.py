"""MaskSAM: the slices of a volume through a SAM for pictures, and a class for every mask; no prompts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError, PromptError
from samaritan.models.config import SamConfig
from samaritan.models.mask_classes_config import MaskClasses
from samaritan.models.positions import interpolate_slices
from samaritan.models.prompt_generator import PromptGenerator, Proposals, boxes_of
from samaritan.models.sam import Sam
from samaritan.models.slice_convs import MaskHead, Stem

ADAPTER_LAYOUT = "layout"
"""Attribute of adapters between slices: (slices, sets for each slice, token grid) of what passes."""


class MaskClassOutput(NamedTuple):
    """What the model predicts; fields by name or by word, as in ``output["semantic"]``.

    n counts the slices of all volumes, those of a volume one after the other.
    """

    pred_aux_masks: Float[Tensor, "n q h w"]
    """Probabilities of the masks that became prompts."""
    pred_aux_bboxes: Float[Tensor, "n q 4"]
    """The boxes that became prompts: (x, y) of the first and the last corner, as parts of the slice."""
    pred_logits: Float[Tensor, "n q k"]
    """Logits of the classes of each mask, background first, "no object" last."""
    pred_masks: Float[Tensor, "n q h w"]
    """Mask logits."""
    aux_logits: Float[Tensor, "n q h w"]
    """Logits of `pred_aux_masks`."""
    slices: int
    """Slices of a volume."""

    def __getitem__(self, key: Any) -> Any:
        """A field or property, by word or by place."""
        return getattr(self, key) if isinstance(key, str) else tuple(self)[key]

    @property
    def semantic(self) -> Float[Tensor, "b c t h w"]:
        """Scores of every class: masks weighted by their class and summed over queries, as published.

        They lie in [0, queries] and do not sum up to one; the largest is the class.
        """
        classes = self.pred_logits.float().softmax(dim=-1)[..., :-1]
        scores: Tensor = torch.einsum("nqc,nqhw->nchw", classes, self.pred_masks.float().sigmoid())
        return scores.reshape(-1, self.slices, *scores.shape[1:]).transpose(1, 2)

    @property
    def probabilities(self) -> Float[Tensor, "b c t h w"]:
        """The scores as parts of their sum, which are probabilities."""
        scores = self.semantic
        return scores / scores.sum(dim=1, keepdim=True).clamp(min=1e-6)

    @property
    def label_map(self) -> Tensor:
        """The class of every voxel, (b, t, h, w)."""
        return self.semantic.argmax(dim=1)


class MaskSam(Sam):
    """Label a volume: a generator proposes prompts for every query, SAM's decoder answers them.

    Slices are folded into the batch. What mixes them are the stem and the generator, which are
    convolutions in three dimensions, and adapters of the method "masksam" beside SAM's modules.
    Volumes of another number of slices than `MaskClasses.frames` are accepted: tables of slices are
    interpolated to theirs.

    Source: MaskSAM (Xie et al., ICCV 2025, arXiv:2403.14103), from a description of its program. What
    that does otherwise are quirks: see `MASKSAM_QUIRKS`.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__(config)
        own = self.own
        grid = [n // p for n, p in zip(own.picture_size, config.patch_size, strict=True)]
        width = config.embed_dim
        self.stem = Stem(config)
        self.slice_embedding = nn.Parameter(torch.zeros(1, own.frames, config.width))
        self.slice_code = nn.Parameter(torch.zeros(own.frames, width, *grid))
        self.generator = PromptGenerator(config)
        self.class_token = nn.Embedding(1, width)
        self.class_head = nn.Linear(width, own.num_classes + 1)
        self.mask_head = MaskHead(config) if own.conv_head else None

    @property
    def own(self) -> MaskClasses:
        """What the configuration adds to that of a SAM."""
        assert self.config.mask_classes is not None
        return self.config.mask_classes

    def forward(  # type: ignore[override]
        self,
        images: Float[Tensor, "b ch *size"],
        points: Any = None,
        boxes: Any = None,
        masks: Any = None,
        multimask_output: bool = True,
    ) -> MaskClassOutput:
        """Label volumes that are already normalised, slices on axis 2; the last argument changes nothing.

        Raises:
            PromptError: if there is a prompt.
            ConfigError: if axes, channels or size are not those of the model.
        """
        if not (points is None and boxes is None and masks is None):
            raise PromptError(
                f"{self.config.name!r} labels the whole volume and takes no prompts: call it with images "
                f"alone, or use a model such as 'sammed3d_vit_b_ori'"
            )
        self._check(images)
        slices, size = images.shape[2], (images.shape[3], images.shape[4])
        pictures = self.stem(images)
        extent = tuple(pictures.shape[3:])
        grid = tuple(n // p for n, p in zip(extent, self.config.patch_size, strict=True))
        _tell_adapters(self.image_encoder, (slices, 1, grid))
        _tell_adapters(self.mask_decoder, (slices, self.own.queries, grid))
        features = self._features(pictures)
        found = self.generator(features, pictures, slices=slices, size=size)
        boxes_seen = self._boxes(found)
        queries, image = self._decode(features[-1], found, boxes_seen, slices, extent)
        low_res = self.mask_decoder.masks_of(queries, image, range(1))[:, 0]
        masks = self._full_size(low_res.unflatten(0, (-1, self.own.queries)), slices, size)
        return MaskClassOutput(
            pred_aux_masks=found.logits.sigmoid(),
            pred_aux_bboxes=boxes_seen,
            pred_logits=self.class_head(queries[:, -1]).unflatten(0, (-1, self.own.queries)),
            pred_masks=masks + found.logits if self.own.residual else masks,
            aux_logits=found.logits,
            slices=slices,
        )

    def resized(self, image_size: Any) -> Sam:
        """Not needed: slices of any size that patches fill are accepted as they are."""
        raise ConfigError(
            f"{self.config.name!r} takes slices of any size that its patches fill as they are; for "
            f"another usual size create it with slice_size={image_size!r}"
        )

    def _check(self, volume: Tensor) -> None:
        own, patch = self.own, self.config.patch_size
        if volume.ndim != 5 or volume.shape[1] != own.channels:
            raise ConfigError(
                f"volumes have shape {tuple(volume.shape)}; this model expects (batch, {own.channels} "
                f"channels, slices, rows, columns). Repeat or drop channels, or create the model with "
                f"channels={volume.shape[1]}"
            )
        if any(n * own.enlarge % p for n, p in zip(volume.shape[3:], patch, strict=True)):
            step = tuple(-(-p // own.enlarge) for p in patch)
            raise ConfigError(
                f"slices of {tuple(volume.shape[3:])} cannot be cut into patches: rows and columns must "
                f"be multiples of {step}. Pad or crop the volume"
            )
        canvas = self.config.image_size
        size = tuple(n * own.enlarge for n in volume.shape[3:])
        if self.config.quirks.position_crop and any(
            n > m for n, m in zip(size, canvas, strict=True)
        ):
            raise ConfigError(
                f"pictures of {size} are larger than the canvas {canvas} that these weights cut their "
                f"positions from. Crop the volume"
            )

    def _features(self, pictures: Float[Tensor, "b c t h w"]) -> list[Tensor]:
        """Features of all global blocks and of the neck, slices folded into the batch."""
        b, slices = pictures.shape[0], pictures.shape[2]
        tokens = self.image_encoder.tokens(pictures.transpose(1, 2).flatten(0, 1))
        table = _stretched(self.slice_embedding[0].T, slices).T.repeat(b, 1)
        features: list[Tensor] = self.image_encoder.levels(tokens + table[:, None, None])
        return features

    def _boxes(self, found: Proposals) -> Float[Tensor, "n q 4"]:
        """The mean of each proposed box and that of the proposed mask, which an empty one does not have."""
        closed = self.config.quirks.mask_boxes
        around, filled = boxes_of(found.logits > 0, closed=closed)
        mean = (found.boxes + around.to(found.boxes.dtype)) / 2
        return mean if closed else torch.where(filled[..., None], mean, found.boxes)

    def _decode(
        self,
        embedding: Float[Tensor, "n e *grid"],
        found: Proposals,
        boxes: Float[Tensor, "n q 4"],
        slices: int,
        extent: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        """Tokens and image of every query in every slice after the decoder."""
        n, q = boxes.shape[:2]
        quirks, grid = self.config.quirks, tuple(embedding.shape[2:])
        frame = self.config.image_size if quirks.position_crop else extent
        sparse, _ = self.prompt_encoder(boxes=self._corners(boxes, found, extent), image_size=frame)
        _, dense = self.prompt_encoder(masks=self._prompt_masks(found, grid), image_size=extent)
        classes = self.class_token.weight + found.tokens.flatten(0, 1)
        sparse = torch.cat([sparse, classes[:, None]], dim=1)
        code = self.prompt_encoder.get_dense_pe(frame)[..., : grid[0], : grid[1]]
        code = (code + self._slice_code(slices, grid)).repeat(n // slices, 1, 1, 1)
        decoder = self.mask_decoder
        joined = decoder.join(embedding, sparse, dense)
        decoded: tuple[Tensor, Tensor] = decoder.attend(
            joined, code.repeat_interleave(q, dim=0), sparse
        )
        return decoded

    def _corners(
        self, boxes: Float[Tensor, "n q 4"], found: Proposals, extent: tuple[int, ...]
    ) -> Float[Tensor, "m 4"]:
        """Boxes in pixels of the encoder's picture."""
        rows, columns = found.logits.shape[2:]
        scale = boxes.new_tensor([columns, rows, columns, rows])
        pixels = boxes * scale
        enlarge = extent[0] / rows
        if self.config.quirks.hard_prompts:
            return (pixels.floor() * enlarge).flatten(0, 1)
        return (pixels * enlarge - 0.5).flatten(0, 1)  # edges of pixels; centres are at integers

    def _prompt_masks(self, found: Proposals, grid: tuple[int, ...]) -> Float[Tensor, "m 1 h w"]:
        """Masks as the prompt encoder takes them: logits, which SAM's was trained on."""
        size = tuple(4 * n for n in grid)
        if self.config.quirks.hard_prompts:
            hard = (found.logits > 0).to(found.logits.dtype)
            return F.interpolate(hard, size, mode="nearest").flatten(0, 1)[:, None]
        masks = found.logits
        if masks.shape[2] > size[0]:
            masks = F.interpolate(masks, size, mode="area")
        elif tuple(masks.shape[2:]) != size:
            masks = F.interpolate(masks, size, mode="bilinear", align_corners=False)
        return masks.flatten(0, 1)[:, None]

    def _slice_code(self, slices: int, grid: tuple[int, ...]) -> Float[Tensor, "t e *grid"]:
        """The learned part of the position code of every slice."""
        code = interpolate_slices(self.slice_code, grid)
        return _stretched(code.movedim(0, -1), slices).movedim(-1, 0)

    def _full_size(
        self, low_res: Float[Tensor, "n q h w"], slices: int, size: tuple[int, int]
    ) -> Float[Tensor, "n q *size"]:
        """Masks at the size of the slices."""
        if self.mask_head is not None:
            stack = low_res.reshape(-1, slices, *low_res.shape[1:]).transpose(1, 2)
            low_res = self.mask_head(stack).transpose(1, 2).flatten(0, 1)
        elif self.config.quirks.mask_blur:
            canvas = self.config.image_size
            low_res = F.interpolate(low_res, canvas, mode="bilinear", align_corners=False)
        if tuple(low_res.shape[2:]) == size:
            return low_res
        return F.interpolate(low_res, size, mode="bilinear", align_corners=False)


def _tell_adapters(part: nn.Module, layout: tuple[int, int, tuple[int, ...]]) -> None:
    """Say what is in a folded batch, which adapters between slices cannot know.

    It stays until the next call, since parts may be computed again on the way back.
    """
    for module in part.modules():
        if hasattr(module, ADAPTER_LAYOUT):
            module.layout = layout  # type: ignore[assignment]


def _stretched(table: Float[Tensor, "... t"], slices: int) -> Float[Tensor, "... s"]:
    """A table of slices for another number of them; the table itself where it fits."""
    if table.shape[-1] == slices:
        return table
    rows = table.reshape(1, -1, table.shape[-1]).float()
    resized = F.interpolate(rows, slices, mode="linear", align_corners=False)
    return resized.to(table.dtype).reshape(*table.shape[:-1], slices)
