"""A model ready to run: device, precision, and embeddings kept within a memory bound.

This is the boundary: above it are volumes, grids and millimetres, below it tensors alone.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from samaritan.errors import ConfigError, PromptError
from samaritan.geometry import FloatArray, Grid
from samaritan.infer.cache import ByteCache
from samaritan.models import ClassSam, MaskSam, Sam
from samaritan.models.config import SamConfig
from samaritan.models.packed import (
    packs,
    suits_bfloat16,
    with_compiled_encoder,
    with_packed_encoder,
)
from samaritan.transforms import Preprocess, default_preprocess, neurosam3d_windows
from samaritan.volume import Volume

logger = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Progress = Callable[[str, int, int], None]

CACHE_BYTES = 512 * 2**20
"""Embeddings are kept up to this many bytes: 128 slices of SAM, or 600 windows of SAM-Med3D."""

_tokens = itertools.count()


@dataclass(frozen=True, eq=False)
class Embedded:
    """One encoded frame: the image embedding "1 c *grid", and what `Frame` says of it."""

    features: Float[Tensor, "1 c *g"]
    grid: Grid
    n_axes: int
    statistics: Mapping[str, float]

    def to_frame(self, index: FloatArray, grid: Grid) -> Tensor:
        """Take indices (n, 3) on `grid` to the model's coordinates: (x, y) in 2D, array order in 3D."""
        moved = torch.from_numpy(self.grid.mm_to_index(grid.index_to_mm(index))).float()
        return moved[:, [1, 0]] if self.n_axes == 2 else moved


@dataclass(frozen=True, eq=False)
class OpenImage:
    """An image that an engine works on; its embeddings are made on first use."""

    volume: Volume
    engine: Engine
    axis: int
    """Array axis that slices are taken across, for 2D models."""
    statistics: Mapping[str, float]
    token: int = field(default_factory=lambda: next(_tokens))

    def frame_grid(self, key: tuple[int, ...]) -> Grid:
        """Say where a frame lies, without encoding it."""
        return self.engine.preprocess.frame_grid(self.volume.grid, key)

    def embedded(
        self, key: tuple[int, ...], statistics: Mapping[str, float] | None = None
    ) -> Embedded:
        """Encode a frame, or take it from the cache. `key` as in the preprocessing chain."""
        return self.engine.embed(self, key, statistics or self.statistics)


class Engine:
    """Encodes frames and decodes prompts on them. `Predictor` says what the arguments mean."""

    def __init__(
        self,
        model: Sam,
        preprocess: Preprocess | None = None,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        compiled: bool = False,
        cache_bytes: int = CACHE_BYTES,
        progress: Progress | None = None,
    ) -> None:
        config = model.config
        self.device = resolve_device(device)
        self.model = model.to(self.device).eval()
        self.preprocess = preprocess or chain_of(config)
        if self.preprocess.n_axes != config.ndim:
            raise ConfigError(
                f"model {config.name!r} sees {config.ndim} axes, but the preprocessing "
                f"{self.preprocess.kind!r} makes frames of {self.preprocess.n_axes}"
            )
        self.dtype = resolve_precision(precision, self.device, config)
        if compiled and self.device.type != "cuda":
            raise ConfigError(
                f"compiled=True is for CUDA devices, not {self.device.type!r}, where it makes image "
                "encoders no faster. Leave it out, or choose device='cuda'"
            )
        self._packs, self._compiled = packs(config, self.device, self.dtype), compiled
        self.progress: Progress = progress or (lambda what, done, total: None)
        self.encoding_seconds = 0.0  # what making and encoding frames took so far
        self._packed: tuple[object, Sam] | None = None
        self._cache: ByteCache[Embedded] = ByteCache(
            cache_bytes, lambda e: e.features.numel() * e.features.element_size()
        )

    @property
    def working(self) -> Sam:
        """The model as inference runs it: where it is packed, half precision is for the image encoder alone.

        Made anew where weights were changed in the meantime.
        """
        if not self._packs and not self._compiled:
            return self.model
        parts = self.model.image_encoder.parameters()
        stamp = (self.model.config, *((id(p), p._version) for p in parts))
        if self._packed is None or self._packed[0] != stamp:
            made = with_packed_encoder(self.model, self.dtype) if self._packs else self.model
            self._packed = stamp, with_compiled_encoder(made) if self._compiled else made
        return self._packed[1]

    @cached_property
    def _positions(self) -> Tensor:
        """Position code of the image embedding, the same for every prompt."""
        with self.running():
            positions: Tensor = self.model.prompt_encoder.get_dense_pe()
        return positions

    def require_prompts(self) -> None:
        """Refuse models that label whole images.

        Raises:
            PromptError: if the model takes no prompts.
        """
        if isinstance(self.model, ClassSam | MaskSam):
            config = self.model.config
            own = config.mask_classes
            count = config.num_mask_tokens if own is None else own.num_classes
            raise PromptError(
                f"model {config.name!r} takes no clicks, boxes or masks: it labels the whole image with "
                f"{count - 1} classes at once. Call model(images), or use a model with "
                f"prompts such as 'sam_vit_b' or 'sammed2d_vit_b'"
            )

    @property
    def takes_boxes(self) -> bool:
        """Whether the model was built to take boxes."""
        return self.model.config.num_point_embeddings >= 4

    @property
    def low_res_size(self) -> tuple[int, ...]:
        """Size of the decoder's masks and of mask prompts."""
        return tuple(self.model.low_res_size)

    def embed(
        self, image: OpenImage, key: tuple[int, ...], statistics: Mapping[str, float]
    ) -> Embedded:
        """Encode a frame of an image, or take it from the cache."""
        measured = tuple(sorted(statistics.items()))

        def make() -> Embedded:
            start = time.perf_counter()
            frame = self.preprocess.frame(image.volume, key, statistics)
            logger.debug("encode frame %s on %s", key, self.device)
            with self.running():
                features = self.working.image_encoder(frame.tensor.to(self.device)).float()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.encoding_seconds += time.perf_counter() - start
            return Embedded(features, frame.grid, frame.n_axes, frame.statistics)

        return self._cache.get((image.token, key, measured), make)

    def decode(
        self,
        embedded: Embedded,
        *,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask: bool = False,
    ) -> tuple[Float[Tensor, "b t *low"], Float[Tensor, "b t"]]:
        """Decode prompts on one frame.

        Args:
            embedded: the frame.
            points: coordinates "b n axes" in the model's order, labels "b n" (1, 0, or -1 for padding).
            boxes: "b 2*axes", smallest corner first, in the model's order.
            masks: "b 1 *low" previous masks, in the values that the weights expect.
            multimask: three masks for each prompt rather than one.

        Returns:
            Low-resolution logits, and the model's own estimate of their quality, float32 on the CPU.

        Raises:
            PromptError: if the model takes no prompts.
        """
        sparse, dense = self._prompts(points, boxes, masks)
        with self.running():
            low_res, quality = self.model.mask_decoder(
                image_embeddings=embedded.features,
                image_pe=self._positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=multimask,
            )
        return low_res.float().cpu(), quality.float().cpu()

    def decode_above(
        self, embedded: Embedded, points: tuple[Tensor, Tensor], limit: float
    ) -> tuple[Float[Tensor, "m ..."], Float[Tensor, "b t"]]:
        """Decode several masks for each set of points; only those of a quality above `limit` are worked out.

        Args:
            embedded: the frame.
            points: as in `decode`.
            limit: what the model's own estimate must exceed.

        Returns:
            Logits of those masks, in the order of their quality's places, and the quality of all.
        """
        sparse, dense = self._prompts(points, None, None)
        with self.running():
            low_res, quality = self.model.mask_decoder.masks_above(
                limit,
                image_embeddings=embedded.features,
                image_pe=self._positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
            )
        return low_res.float().cpu(), quality.float().cpu()

    def decode_joined(
        self,
        embedded: Embedded,
        features: Float[Tensor, "1 c *g"] | None,
        *,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Float[Tensor, "1 1 *low"], Float[Tensor, "1 1"], Float[Tensor, "1 c *g"]]:
        """Decode as M-SAM's paper has it: what joined image and mask before takes the place of the image.

        Args:
            embedded: the frame.
            features: what the answer before gave as its third value; None at first.
            points: as in `decode`.
            boxes: as in `decode`.
            masks: as in `decode`.

        Returns:
            Logits and quality as of `decode`, and the image embedding joined with the mask.
        """
        image = embedded.features if features is None else features.to(self.device)
        sparse, dense = self._prompts(points, boxes, masks)
        with self.running():
            joined = self.model.mask_decoder.join(image, sparse, dense)
            low_res, quality = self.model.mask_decoder.decode_joined(
                joined, self._positions, sparse
            )
        return low_res.float().cpu(), quality.float().cpu(), joined.float().cpu()

    def _prompts(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Encode prompts on the model's device."""
        self.require_prompts()
        moved = None if points is None else (points[0].to(self.device), points[1].to(self.device))
        with self.running():
            sparse, dense = self.model.prompt_encoder(
                points=moved,
                boxes=None if boxes is None else boxes.to(self.device),
                masks=None if masks is None else masks.to(self.device),
            )
        return sparse, dense

    def forget(self, image: OpenImage) -> None:
        """Drop the embeddings of an image."""
        self._cache.drop(lambda key: isinstance(key, Sequence) and key[0] == image.token)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the model as inference does: no gradients, in the chosen precision (see `working`)."""
        mixed = self.dtype != torch.float32 and not self._packs
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed),
        ):
            yield


def chain_of(config: SamConfig) -> Preprocess:
    """The chain that a model's published weights were trained with, for weights that do not tell."""
    if config.ndim == 3 and config.name.startswith("neurosam3d_"):
        return replace(neurosam3d_windows(), size=config.image_size)  # type: ignore[arg-type]
    chain = default_preprocess(config.ndim, config.image_size, config.in_channels)
    if config.ndim == 3 and config.name.startswith(
        "msam_"
    ):  # trained without turns of a mask alone
        return replace(chain, prompting=replace(chain.prompting, refine="prompts"))  # type: ignore[type-var]
    return chain


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Turn a name into a device that works here; None is CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: if there is no such device on this machine.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device is None:
        return torch.device(next(name for name, works in present.items() if works))
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    last = torch.cuda.device_count() if chosen is not None and chosen.type == "cuda" else 1
    if chosen is None or not present.get(chosen.type) or (chosen.index or 0) >= last:
        usable = [name for name, works in present.items() if works]
        raise ConfigError(f"device {str(device)!r} is not one of this machine; use one of {usable}")
    return chosen


def resolve_precision(
    precision: Precision, device: torch.device, config: SamConfig | None = None
) -> torch.dtype:
    """Turn "auto" into the fastest type that keeps masks, for a device and a model.

    That is bfloat16 where CUDA has it, and on processors that have it for models whose image encoder is as
    large as SAM's (see `samaritan.models.packed`); float32 elsewhere.

    Raises:
        ConfigError: if the word is not known.
    """
    if precision == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported()
        else:
            fast = device.type == "cpu" and config is not None and suits_bfloat16(config)
        return torch.bfloat16 if fast else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision not in known:
        raise ConfigError(f"precision is one of {['auto', *known]}, got {precision!r}")
    return known[precision]
