"""Recipes that learn to label volumes of nnU-Net data sets without prompts: MaskSAM's, SAMed's, a U-Net's."""

from __future__ import annotations

from typing import Any

from samaritan.recipes.schema import Recipe
from samaritan.recipes.sections import (
    Data,
    Loss,
    Matching,
    Model,
    Optim,
    Run,
    Schedule,
    Validation,
)

_SGD: dict[str, Any] = {
    "name": "sgd",
    "momentum": 0.99,
    "nesterov": True,
    "weight_decay": 3e-5,
}
_NO_LOSS = Loss(cross_entropy=0, dice=0, focal=0, iou=0)
_BOTH = Loss(cross_entropy=1, dice=1, focal=0, iou=0)
_POLYNOMIAL = Schedule(kind="polynomial", power=0.9, steps="epoch")


def _patches(**changes: Any) -> Data:
    """250 batches of two in an epoch, as nnU-Net has them."""
    usual = {"batch_size": 2, "per_epoch": 500, "augment": "nnunet", "chain": "nnunet"}
    return Data(**{**usual, **changes})


MASKSAM_ACDC = Recipe(
    name="masksam_acdc",
    task="mask_classes",
    model=Model(name="masksam_acdc"),
    data=_patches(by_patient=True),
    loss=_NO_LOSS,
    optim=Optim(lr=1e-3, **_SGD),
    schedule=_POLYNOMIAL,
    run=Run(epochs=500, clip_norm=12.0),
    validation=Validation(batches=50, keep="last"),
)
"""MaskSAM (Xie et al., ICCV 2025, arXiv:2403.14103), from a description of its program."""

MASKSAM_SYNAPSE = MASKSAM_ACDC.model_copy(
    update={
        "name": "masksam_synapse",
        "model": Model(name="masksam_synapse"),
        "data": _patches(),
        "run": Run(epochs=1000, clip_norm=12.0),
    }
)
"""The same with ViT-H and patches of 26 slices."""

MASKSAM_AMOS = MASKSAM_SYNAPSE.model_copy(
    update={
        "name": "masksam_amos",
        "model": Model(name="masksam_amos"),
        "matching": Matching(mask=1.2, dice=1.2, points=131_072),
        "optim": Optim(name="adamw", lr=1e-3, weight_decay=3e-5, eps=1e-4),
    }
)
"""The same with patches of 9 slices of 512 x 512, and AdamW."""

MASKSAM_SMALL = Recipe(
    name="masksam_small",
    task="mask_classes",
    model=Model(name="masksam_small"),
    data=_patches(by_patient=True, per_epoch=100),
    matching=Matching(points=2048, by_class=True),
    loss=_BOTH,
    optim=Optim(name="adamw", lr=1e-3, weight_decay=0.01),
    schedule=Schedule(kind="cosine", warmup=50, floor=0.01),
    run=Run(epochs=40, clip_norm=1.0, ema=0.99),
    validation=Validation(every=5, batches=20, keep="last"),
)
"""Ours: a small MaskSAM that learns whole, on two cores; a query for each class, and every voxel teaches."""

UNET_NNUNET = Recipe(
    name="unet_nnunet",
    task="voxel_classes",
    model=Model(name="dynunet"),
    data=_patches(),
    loss=_BOTH,
    optim=Optim(lr=1e-2, **_SGD),
    schedule=_POLYNOMIAL,
    run=Run(epochs=1000, clip_norm=12.0),
    validation=Validation(batches=50, keep="last"),
)
"""A U-Net as nnU-Net plans it, from MONAI's blocks, with nnU-Net's loss and schedule: the yardstick."""

UNET_SMALL = UNET_NNUNET.model_copy(
    update={
        "name": "unet_small",
        "model": Model(name="dynunet_small"),
        "data": _patches(by_patient=True, per_epoch=100),
        "optim": Optim(name="adamw", lr=1e-3, weight_decay=0.01),
        "schedule": MASKSAM_SMALL.schedule,
        "run": MASKSAM_SMALL.run,
        "validation": MASKSAM_SMALL.validation,
    }
)
"""The yardstick of `masksam_small`: the same loop and schedule, another network, and patches as planned."""

SAMED_VOLUMES = Recipe(
    name="samed_volumes",
    task="voxel_classes",
    model=Model(name="samed_vit_b", options={"rank": 4}),
    data=_patches(batch_size=12, per_epoch=3000, configuration="2d"),
    loss=Loss(cross_entropy=0.2, dice=0.8, focal=0, iou=0),
    optim=Optim(name="adamw", lr=0.005, weight_decay=0.1),
    schedule=Schedule(kind="polynomial", warmup=250, power=0.9, lag=1),
    run=Run(epochs=40, seed=1234),
    validation=Validation(every=5, batches=20, keep="last"),
)
"""SAMed's model, rate and loss on slices of nnU-Net's data: its planes are then those of prediction."""

RECIPES = (
    MASKSAM_ACDC,
    MASKSAM_SYNAPSE,
    MASKSAM_AMOS,
    MASKSAM_SMALL,
    UNET_NNUNET,
    UNET_SMALL,
    SAMED_VOLUMES,
)
