"""One call for all models that label patches without prompts: logits of every class at every voxel."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from samaritan.errors import PromptError
from samaritan.models.classes import ClassSam
from samaritan.models.mask_classes import MaskSam
from samaritan.models.sam import Sam
from samaritan.models.voxel_classes import VoxelNet

SMALLEST = 1e-6
"""No class is less probable than this, so that logarithms are finite."""


def patch_logits(
    model: Sam, patches: Float[Tensor, "b c *patch"]
) -> Float[Tensor, "b heads *patch"]:
    """Logits of a model's heads for normalised patches; their softmax is what the model believes.

    MaskSAM gives scores of masks with classes: their logarithms as parts of their sum are logits. A SAMed
    takes patches of two axes; grey ones are repeated to its channels.

    Raises:
        PromptError: if the model takes prompts.
        ConfigError: if patches are not as the model takes them.
    """
    if isinstance(model, MaskSam):
        probabilities: Tensor = model(patches).probabilities
        return probabilities.clamp(min=SMALLEST).log()
    if isinstance(model, VoxelNet):
        logits: Tensor = model(patches)
        return logits
    if isinstance(model, ClassSam):
        full: Tensor = model(in_channels(model, patches)).masks
        return full
    raise PromptError(
        f"model {model.config.name!r} answers prompts and labels nothing without them: give it points, boxes "
        "or masks, or use one such as 'masksam_small'"
    )


def in_channels(model: Sam, patches: Float[Tensor, "b c *patch"]) -> Float[Tensor, "b n *patch"]:
    """Patches with the model's channels: grey ones are repeated, all others are as they are."""
    wanted = model.config.in_channels
    if patches.shape[1] == 1 and wanted > 1 and not isinstance(model, MaskSam):
        return patches.expand(-1, wanted, *patches.shape[2:])
    return patches
