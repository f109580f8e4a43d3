"""A stand-in model that segments by brightness, so that the whole way from click to mask can be measured.

Its "embedding" is the normalised input itself, its mask whatever is brighter than the middle between
the darkest and the brightest voxel of the first frame that it saw.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from samaritan.models import Sam
from samaritan.models.config import SamConfig


class OracleConfig(SamConfig):
    """A configuration whose fields tests may change, and whose masks are as fine as is asked for."""

    low_res_size: Any = ()
    __setattr__ = object.__setattr__


class BrightnessOracle(Sam):
    """Logits are the input times ten; remembers the prompts that it was given."""

    def __init__(self, size: tuple[int, ...], *, channels: int = 1, boxes: bool = True) -> None:
        nn.Module.__init__(self)
        self.config = OracleConfig(
            name="oracle",
            ndim=len(size),
            in_channels=channels,
            image_size=size,
            patch_size=(1,) * len(size),
            width=4,
            depth=1,
            heads=1,
            global_blocks=(0,),
            window_size=1,
            num_point_embeddings=4 if boxes else 2,
        )
        self.config.low_res_size = size
        self.prompts: list[dict[str, Any]] = []
        self.encoded = 0
        self.middle: Tensor | None = None
        self.image_encoder: Any = self._encode
        self.prompt_encoder: Any = _Prompts(self.prompts)
        self.mask_decoder: Any = self._decode

    def _encode(self, x: Tensor) -> Tensor:
        self.encoded += 1
        if self.middle is None:
            self.middle = (x.max() + x.min()) / 2
        return x[:, :1] - self.middle

    def _decode(
        self, *, image_embeddings: Tensor, multimask_output: bool, **_: Any
    ) -> tuple[Tensor, Tensor]:
        count = 3 if multimask_output else 1
        logits = (10 * image_embeddings).expand(-1, count, *image_embeddings.shape[2:])
        return logits, torch.arange(count).float()[None]


class _Prompts:
    def __init__(self, seen: list[dict[str, Any]]) -> None:
        self.seen = seen

    def __call__(self, **prompts: Any) -> tuple[None, None]:
        self.seen.append(prompts)
        return None, None

    def get_dense_pe(self) -> None:
        return None
