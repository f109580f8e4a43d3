"""Recipes by name: those of published systems with their numbers, and small ones of our own."""

from __future__ import annotations

import difflib

from samaritan.errors import ConfigError
from samaritan.recipes import automatic
from samaritan.recipes.schema import Recipe
from samaritan.recipes.sections import (
    Clicks,
    Data,
    Loss,
    Model,
    Optim,
    ParameterGroup,
    Prompts,
    Run,
    Schedule,
    Validation,
)

SAMED = Recipe(
    name="samed",
    task="multiclass",
    model=Model(name="samed_vit_b", num_classes=None, image_size=512, options={"rank": 4}),
    data=Data(batch_size=12, augment="samed", chain="samed"),
    loss=Loss(cross_entropy=0.2, dice=0.8, focal=0, iou=0),
    optim=Optim(name="adamw", lr=0.005, weight_decay=0.1),
    schedule=Schedule(kind="polynomial", warmup=250, power=0.9, horizon=200, lag=1),
    run=Run(epochs=160, seed=1234, accumulate=2),
    validation=Validation(every=5),
)
"""SAMed (hitachinsk/SAMed, README command): 24 slices an update, 160 of 200 epochs."""

SAMED_S = SAMED.model_copy(
    update={
        "name": "samed_s",
        "model": SAMED.model.model_copy(update={"name": "samed_s_vit_b"}),
    }
)
"""SAMed_s: LoRA in the decoder as well, whose transformer is frozen."""

SAM_MED2D = Recipe(
    name="sam_med2d",
    task="interactive",
    model=Model(name="sammed2d_vit_b", image_size=256),
    data=Data(batch_size=2, objects_per_image=5, min_size=1, augment="none", chain="sam_med2d"),
    prompts=Prompts(),
    loss=Loss(focal=20, dice=1, iou=1),
    optim=Optim(name="adam", lr=1e-4, weight_decay=0),
    schedule=Schedule(kind="constant"),
    run=Run(epochs=15, seed=42),
)
"""SAM-Med2D (OpenGVLab/SAM-Med2D, train.py): nine updates a batch."""

FT_SAM = SAM_MED2D.model_copy(
    update={
        "name": "ft_sam",
        "model": Model(name="sam_vit_b", image_size=256, method="encoder_frozen"),
    }
)
"""FT-SAM of the same paper: no adapters, the image encoder frozen."""

TOY_2D = Recipe(
    name="toy_2d",
    task="multiclass",
    model=Model(
        name="sam_tiny",
        image_size=64,
        method="all",
        options={"patch_size": [8, 8], "global_blocks": [0, 1]},
    ),
    data=Data(batch_size=8, augment="none"),
    loss=Loss(cross_entropy=0.2, dice=0.8, focal=0, iou=0),
    optim=Optim(name="adamw", lr=3e-3, weight_decay=0.01),
    schedule=Schedule(kind="cosine", warmup=20),
    run=Run(epochs=40, clip_norm=1.0, log_every=5),
    validation=Validation(every=5),
)
"""A tiny model from random weights, to see the whole way in a minute on a laptop."""

SAMED_SMALL = Recipe(
    name="samed_small",
    task="multiclass",
    model=Model(
        name="sam_tiny",
        image_size=160,
        method="all",
        options={
            "patch_size": [8, 8],
            "width": 128,
            "depth": 6,
            "heads": 4,
            "global_blocks": [1, 3, 5],
            "window_size": 10,
            "embed_dim": 128,
            "pe_features": 64,
            "decoder_mlp": 256,
            "iou_hidden": 128,
        },
    ),
    data=Data(batch_size=8, augment="upright"),
    loss=Loss(cross_entropy=0.2, dice=0.8, focal=0, iou=0),
    optim=Optim(name="adamw", lr=1e-3, weight_decay=0.05),
    schedule=Schedule(kind="polynomial", warmup=200, power=0.9),
    run=Run(epochs=50, clip_norm=1.0, ema=0.995, log_every=10, checkpoint_every=100),
    validation=Validation(every=5),
)
"""SAMed's task, loss and schedule for a SAM of two million weights that begins at random: no GPU needed."""

SAMARITAN_2D = Recipe(
    name="samaritan_2d",
    task="interactive",
    model=Model(name="samaritan_2d"),
    data=Data(
        batch_size=16,
        objects="both",
        min_size=20,
        augment="heavy",
        intensity=0.5,
        chain="focus",
        per_epoch=2000,
        weights={
            "hc18": 1,
            "bus_bra": 1,
            "kvasir_polyps": 1.5,
            "dsb2018_nuclei": 1.5,
            **{f"hippocampus_{axis}": 0.7 for axis in range(3)},
            **{f"ms_lesions_{axis}": 0.3 for axis in range(3)},
            **{f"pyradiomics_{axis}": 0.3 for axis in range(3)},
            **{f"sct_{axis}": 0.3 for axis in range(3)},
            **{f"totalsegmentator_{axis}": 1.0 for axis in range(3)},
            **{f"totalsegmentator_mr_{axis}": 0.4 for axis in range(3)},
            "phantom_ct_2": 0.7,
            "phantom_mr_2": 0.7,
            "phantom_ultrasound": 0.2,
            "phantom_xray": 0.2,
            "phantom_skin": 0.2,
            "phantom_shapes": 3,
        },
    ),
    prompts=Prompts(
        each="object", rounds=2, points=(1, 1, 2), multimask=False, mask_values="logits"
    ),
    loss=Loss(cross_entropy=1, dice=1, focal=0, iou=1),
    optim=Optim(name="adamw", lr=9e-4, weight_decay=0.05),
    schedule=Schedule(kind="cosine", warmup=15, floor=0.01),
    run=Run(epochs=22, precision="bfloat16", clip_norm=1.0, ema=0.998, log_every=25),
    validation=Validation(every=5, clicks=5, batches=12),
)
"""The compact model that ships, its last stage: see scripts/train_samaritan_2d for those before."""

SAMARITAN_3D = Recipe(
    name="samaritan_3d",
    task="interactive",
    model=Model(name="samaritan_3d"),
    data=Data(
        batch_size=32,
        objects="both",
        min_size=20,
        augment="heavy",
        chain="focus",
        per_epoch=6560,
        weights={
            "hippocampus": 4,
            "totalsegmentator": 2,
            "totalsegmentator_mr": 0.7,
            "ms_lesions": 0.5,
            "pyradiomics": 0.4,
            "sct": 0.5,
            "phantom_ct": 0.8,
            "phantom_mr": 0.8,
            "phantom_shapes": 3,
        },
    ),
    prompts=Prompts(
        each="object", rounds=2, points=(1, 1, 2), multimask=False, mask_values="logits"
    ),
    loss=Loss(cross_entropy=1, dice=1, focal=0, iou=1),
    optim=Optim(name="adamw", lr=2e-3, weight_decay=0.05),
    schedule=Schedule(kind="cosine", warmup=60, floor=0.1),
    run=Run(epochs=8, clip_norm=1.0, ema=0.995),
    validation=Validation(every=4, clicks=5, batches=3),
)
"""The compact model for volumes that ships: see scripts/train_samaritan_3d."""

SAM_MED3D = Recipe(
    name="sam_med3d",
    task="iterated",
    model=Model(name="sammed3d_vit_b_ori"),
    data=Data(batch_size=12, min_size=1000, augment="geometry", chain="sam_med3d", crop="object"),
    clicks=Clicks(),
    loss=Loss(cross_entropy=1, dice=1, focal=0, iou=0),
    optim=Optim(
        name="adamw",
        lr=8e-4,
        weight_decay=0.1,
        groups=(
            ParameterGroup(match="prompt_encoder.**", lr=0.1),
            ParameterGroup(match="mask_decoder.**", lr=0.1),
        ),
    ),
    schedule=Schedule(kind="multistep", milestones=(120, 180), gamma=0.1),
    run=Run(epochs=200, seed=2023, accumulate=20),
    validation=Validation(every=5, clicks=10),
)
"""SAM-Med3D (uni-medical/SAM-Med3D, train.py): eleven answers to a crop, whose losses are one sum."""

M_SAM = SAM_MED3D.model_copy(
    update={
        "name": "m_sam",
        "model": Model(name="msam_vit_b_ori"),
        "data": SAM_MED3D.data.model_copy(update={"batch_size": 2}),
        "clicks": Clicks(mask_only="none"),
        "optim": SAM_MED3D.optim.model_copy(
            update={
                "groups": (ParameterGroup(match="mask_decoder.fuse.**"), *SAM_MED3D.optim.groups)
            }
        ),
        "run": Run(epochs=200, seed=2023, precision="float32"),
    }
)
"""M-SAM (nanase1025/M-SAM, train_msam.py): LoRA and the mask-enhanced adapter at the full rate."""

NEUROSAM3D = SAM_MED3D.model_copy(
    update={
        "name": "neurosam3d",
        "model": Model(name="neurosam3d_vit_l"),
        "data": Data(
            batch_size=4,
            min_size=1,
            min_volume_mm3=100,
            augment="heavy",
            chain="neurosam3d",
            crop="voxel",
        ),
        "clicks": Clicks(show="all", first_at="largest", mask_only="middle"),
        "optim": SAM_MED3D.optim.model_copy(update={"lr": 1e-3, "weight_decay": 0.005}),
        "schedule": Schedule(kind="step", every=2000, gamma=0.9),
        "run": Run(epochs=200, seed=2024, precision="bfloat16", accumulate=2),
    }
)
"""NeuroSAM3D (anthonyprinaldi/NeuroSAM3D, configs/all.yaml)."""

NEUROSAM3D_DINOV2 = NEUROSAM3D.model_copy(
    update={
        "name": "neurosam3d_dinov2",
        "model": Model(name="neurosam3d_dinov2"),
        "data": NEUROSAM3D.data.model_copy(update={"batch_size": 2}),
        "run": NEUROSAM3D.run.model_copy(update={"accumulate": 4}),
    }
)
"""The same with the DINOv2 encoder (configs/dino.yaml)."""

NEUROSAM3D_HIERA = NEUROSAM3D.model_copy(
    update={
        "name": "neurosam3d_hiera",
        "model": Model(name="neurosam3d_hiera"),
        "run": NEUROSAM3D.run.model_copy(update={"accumulate": 4}),
    }
)
"""The same with the Hiera encoder (configs/hiera.yaml)."""

TOY_3D = Recipe(
    name="toy_3d",
    task="iterated",
    model=Model(name="sam3d_tiny", image_size=24, method="all", options={"patch_size": [4, 4, 4]}),
    data=Data(batch_size=8, min_size=20, augment="geometry", chain="sam_med3d", crop="mixed"),
    clicks=Clicks(count=(3, 3), mask_only="none"),
    loss=Loss(cross_entropy=1, dice=1, focal=0, iou=0),
    optim=Optim(name="adamw", lr=2e-3, weight_decay=0.01),
    schedule=Schedule(kind="cosine", warmup=10),
    run=Run(epochs=100, clip_norm=1.0, log_every=5),
    validation=Validation(every=10, clicks=5),
)
"""A tiny 3D model from random weights, to see the whole way on a laptop."""

_RECIPES = {
    recipe.name: recipe
    for recipe in (
        SAMED,
        SAMED_S,
        SAM_MED2D,
        FT_SAM,
        SAMED_SMALL,
        SAMARITAN_2D,
        SAMARITAN_3D,
        TOY_2D,
        SAM_MED3D,
        M_SAM,
        NEUROSAM3D,
        NEUROSAM3D_DINOV2,
        NEUROSAM3D_HIERA,
        TOY_3D,
        *automatic.RECIPES,
    )
}


def recipe_names() -> list[str]:
    """Names that `get_recipe` knows."""
    return sorted(_RECIPES)


def get_recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        ConfigError: if there is none, with the names that are near.

    >>> get_recipe("samed").optim.lr
    0.005
    """
    if name not in _RECIPES:
        near = difflib.get_close_matches(name, _RECIPES, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ConfigError(f"unknown recipe {name!r}. {hint}Known: {', '.join(recipe_names())}")
    return _RECIPES[name]
