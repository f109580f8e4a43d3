"""The optimiser of a recipe: which parameters learn, how fast, and which of them shrink."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from samaritan.adapt.names import expression, select
from samaritan.errors import TrainingError
from samaritan.recipes.sections import Compat, Optim

_DECAYED = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)

_CLICKS = "prompt_encoder.{point_embeddings.0,point_embeddings.1,not_a_point_embed}.weight"


def build_optimizer(model: nn.Module, optim: Optim, compat: Compat) -> torch.optim.Optimizer:
    """An optimiser over all parameters that learn; those that no loss reaches stay as they are.

    Raises:
        ConfigError: if a pattern of `optim.groups` fits no parameter that learns.
        TrainingError: if nothing learns.
    """
    groups = list(parameter_groups(model, optim, compat))
    if not groups:
        raise TrainingError(
            "no parameter of the model learns: choose another model.method, such as decoder_only"
        )
    if optim.name == "sgd":
        return torch.optim.SGD(
            groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov
        )
    kind = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
    fused = all(
        p.device.type in ("cpu", "cuda") for p in model.parameters()
    )  # one pass over memory
    return kind(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=fused)


def hold_still(model: nn.Module, compat: Compat) -> None:
    """Freeze what the published code never trained; see `Compat.frozen_point_embeddings`."""
    if compat.frozen_point_embeddings:
        for name, parameter in model.named_parameters():
            if expression(_CLICKS).fullmatch(name):
                parameter.requires_grad_(False)


def parameter_groups(model: nn.Module, optim: Optim, compat: Compat) -> Iterator[dict[str, object]]:
    """Groups for an optimiser: "params", "lr", "full_lr" and "weight_decay"."""
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    select([group.match for group in optim.groups], list(learning), what="parameter that learns")
    decayed = decayed_names(model)
    found: dict[tuple[float, float], list[str]] = {}
    for name in learning:
        own = next((g for g in optim.groups if expression(g.match).fullmatch(name)), None)
        lr = optim.lr * (own.lr if own else 1.0)
        decay = optim.weight_decay * (own.weight_decay if own else 1.0)
        if not compat.decay_everything and name not in decayed:
            decay = 0.0
        found.setdefault((lr, decay), []).append(name)
    for (lr, decay), names in found.items():
        params: list[Tensor] = [learning[name] for name in names]
        yield {"params": params, "lr": lr, "full_lr": lr, "weight_decay": decay}


def decayed_names(model: nn.Module) -> set[str]:
    """Names of matrices and kernels: what weight decay is for. Not norms, biases, embeddings, tables."""
    return {
        f"{where}.weight" if where else "weight"
        for where, module in model.named_modules()
        if isinstance(module, _DECAYED)
    }
