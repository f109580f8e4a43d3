"""The losses of SAMed and SAM-Med3D as their published steps compute them: the yardstick of training.py.

Functions of the weights and nothing else; torch's own autograd goes back through them. Clicks alone are drawn
by our own functions, so that both see the same and their losses can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping

import plain
import plain_decoder
import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.models import SamConfig
from samaritan.recipes.sections import Clicks
from samaritan.train.iterated import click, turns_of_masks_alone

Weights = Mapping[str, Tensor]


def samed(w: Weights, config: SamConfig, images: Tensor, labels: Tensor) -> Tensor:
    """0.2 cross-entropy + 0.8 Dice of all classes, at the resolution of the decoder."""
    features = plain.encode(w, config, images)
    dense = w["prompt_encoder.no_mask_embed.weight"].reshape(1, -1, 1, 1)
    sparse = features.new_zeros(len(images), 0, features.shape[1])
    heads = config.decoder_heads
    logits, _ = plain_decoder.masks_of(w, features + dense, sparse, heads)
    ce = F.cross_entropy(logits, labels)
    probs, classes = logits.softmax(dim=1), logits.shape[1]
    target = torch.stack([labels == i for i in range(classes)], dim=1).float()
    dice = torch.zeros(())
    for i in range(classes):
        score, truth = probs[:, i], target[:, i]
        both = (score * truth).sum()
        whole = (score * score).sum() + (truth * truth).sum()
        dice = dice + 1 - (2 * both + 1e-5) / (whole + 1e-5)
    return 0.2 * ce + 0.8 * dice / classes


def sammed3d(
    w: Weights,
    config: SamConfig,
    images: Tensor,
    masks: Tensor,
    clicks: Clicks,
    generator: torch.Generator,
) -> Tensor:
    """The sum of Dice + cross-entropy of all answers; each is the next mask prompt, gradient included."""
    torch.rand((), generator=generator)  # whether to begin with a box: never here
    torch.randint(1, (), generator=generator)  # how many clicks: always as many
    count = clicks.count[1]
    alone = turns_of_masks_alone(clicks, count, generator)
    features = plain.encode(w, config, images)
    low_res = features.new_zeros(len(masks), 1, *config.low_res_size)
    predicted = torch.zeros_like(masks)
    total = torch.zeros(())
    for turn in range(count):
        sparse = features.new_zeros(len(masks), 0, features.shape[1])
        if turn not in alone:
            given = click(predicted, masks, clicks.at, generator)
            sparse = points(w, *given, config.image_size[0])
        image = features + plain_decoder.dense(w, low_res, features.shape[2:])
        heads = config.decoder_heads
        low_res = plain_decoder.masks_of(w, image, sparse, heads, swapped=True)[0][:, :1]
        logits = F.interpolate(low_res, masks.shape[1:], mode="trilinear", align_corners=False)
        total = total + dice_ce(logits, masks[:, None].float())
        predicted = (logits > 0)[:, 0]
    return total


def points(w: Weights, coords: Tensor, labels: Tensor, side: int) -> Tensor:
    """Tokens of clicks (n, p, 3) with labels (n, p) in a cube of a side, and one that is no point."""
    name = "prompt_encoder.{}.weight".format
    nothing = w[name("not_a_point_embed")]
    code = plain_decoder.positions(w, (coords + 0.5) / side)
    negative, positive = (w[name(f"point_embeddings.{i}")] for i in (0, 1))
    code = code + torch.where(labels[..., None] == 1, positive, negative)
    code = torch.where(labels[..., None] == -1, nothing, code)
    return torch.cat([code, nothing.expand(len(code), 1, -1)], dim=1)


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """MONAI's DiceCELoss(sigmoid=True, squared_pred=True)."""
    probs, axes = logits.sigmoid(), (2, 3, 4)
    both = (probs * target).sum(dim=axes)
    whole = (probs**2).sum(dim=axes) + (target**2).sum(dim=axes)
    dice = (1 - (2 * both + 1e-5) / (whole + 1e-5)).mean()
    return dice + F.binary_cross_entropy_with_logits(logits, target)
