"""A model that labels the whole image without prompts: every mask token stands for one class."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from samaritan.errors import PromptError
from samaritan.models.prompt_checks import AnyTensor, PointPrompts
from samaritan.models.sam import Sam


class ClassOutput(NamedTuple):
    """What the model predicts for each image; fields by name or by word, as in ``output["masks"]``."""

    low_res_logits: Tensor
    """Logits of each class (b, classes, *low_res), background first: softmax or argmax over them."""
    masks: Tensor
    """The same at the size of the input, interpolated linearly."""
    iou_predictions: Tensor
    """Predicted IoU (b, classes); SAMed never trains it."""

    def __getitem__(self, key: Any) -> Any:
        """A field, by word or by place."""
        return getattr(self, key) if key in self._fields else tuple(self)[key]


class ClassSam(Sam):
    """SAM with one mask token per class and no prompts (`SamConfig.classes`).

    Source: SAMed, segment_anything/modeling/sam.py (`forward_train`). There one prompt-free set of
    tokens is broadcast inside attention; here it is repeated for each image, with the same result.
    """

    def forward(  # type: ignore[override]
        self,
        images: Float[Tensor, "b c *size"],
        points: PointPrompts | None = None,
        boxes: AnyTensor | None = None,
        masks: AnyTensor | None = None,
        multimask_output: bool = True,
    ) -> ClassOutput:
        """Label images that are already normalised; `multimask_output` changes nothing, as in SAMed.

        Raises:
            PromptError: if there is a prompt.
        """
        if not (points is None and boxes is None and masks is None):
            raise PromptError(
                f"{self.config.name!r} labels the whole image and takes no prompts: call it with images "
                f"alone, or use a model such as 'sam_vit_b' or 'sammed2d_vit_b'"
            )
        output = super().forward(images, multimask_output=multimask_output)
        size = tuple(images.shape[2:])
        mode = {2: "bilinear", 3: "trilinear"}[len(size)]
        full = F.interpolate(output.low_res_logits, size, mode=mode, align_corners=False)
        return ClassOutput(output.low_res_logits, full, output.iou)
