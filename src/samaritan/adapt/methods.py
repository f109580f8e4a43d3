"""Named plans of adaptation: what stands beside which modules, and which parameters learn.

This file knows no torch: a plan can be listed, printed and stored without it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from samaritan.errors import ConfigError

DEFAULTS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4, "scale": 1.0, "parts": ""},
    "bottleneck": {"ratio": 0.25, "depthwise": False, "start": "published"},
    "mask_enhanced": {"blocks": 1, "attention_heads": None},
    "depth_conv": {"frames": 4, "ratio": 0.25, "scale": 1.0, "sees": "output", "start": "identity"},
    "depth_mlp": {"frames": 4, "ratio": 0.25, "scale": 1.0, "sees": "output", "start": "identity"},
}
"""Options of every kind of adapter, with what they are unless told."""

ADAPTERS = "**.adapters.**"
"""The pattern of all parameters of adapters."""


@dataclass(frozen=True)
class Insertion:
    """One kind of adapter beside all modules that some patterns find."""

    kind: str
    """"lora", "bottleneck", "mask_enhanced", "depth_conv" or "depth_mlp"."""
    targets: tuple[str, ...]
    """Names of modules, or patterns over them."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Those of this kind."""
    name: str = ""
    """What to call it among the adapters of a module; else its kind."""

    def __post_init__(self) -> None:
        if self.kind not in DEFAULTS:
            raise ConfigError(f"adapters are of kind {' or '.join(DEFAULTS)}, not {self.kind!r}")
        if unknown := [key for key in self.options if key not in DEFAULTS[self.kind]]:
            raise ConfigError(
                f"adapters of kind {self.kind!r} have no option {', '.join(map(repr, unknown))}; there "
                f"are {', '.join(DEFAULTS[self.kind])}"
            )
        object.__setattr__(self, "name", self.name or self.kind)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Insertion:
        """Read back what `dataclasses.asdict` wrote, as it may stand in a file.

        Raises:
            ConfigError: if it is not that.
        """
        try:
            targets, options = values["targets"], values["options"]
            kind, name = values["kind"], values["name"]
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"adapters are described by kind, targets, options and name: {error!r}"
            ) from error
        words = [kind, name, *targets] if isinstance(targets, list | tuple) else [None]
        if not all(isinstance(word, str) for word in words) or not isinstance(options, Mapping):
            raise ConfigError(f"adapters cannot be described by {dict(values)!r}")
        return cls(kind, tuple(targets), dict(options), name)


@dataclass(frozen=True)
class Method:
    """A way to adapt a model."""

    name: str
    """What to call it."""
    about: str
    """One line."""
    trainable: tuple[str, ...]
    """Patterns over the names of parameters that learn; all others are frozen."""
    insertions: tuple[Insertion, ...] = ()
    """Adapters that it brings."""

    def with_options(self, **options: Any) -> Method:
        """The same with options of its adapters, such as `rank=8`, wherever they belong.

        Raises:
            ConfigError: if none of its adapters has such an option, or the method fixes it.
        """
        free = {
            i.kind: [k for k in DEFAULTS[i.kind] if k not in i.options] for i in self.insertions
        }
        known = {key for keys in free.values() for key in keys}
        if unknown := [key for key in options if key not in known]:
            there = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise ConfigError(
                f"method {self.name!r} has no option {', '.join(map(repr, unknown))}; {there}"
            )
        return replace(
            self,
            insertions=tuple(
                replace(
                    i,
                    options={
                        **i.options,
                        **{k: v for k, v in options.items() if k in free[i.kind]},
                    },
                )
                for i in self.insertions
            ),
        )


_QKV = "image_encoder.blocks.*.attn.qkv"
_MLP = "image_encoder.blocks.*.mlp"
_FUSE = "mask_decoder.fuse"
_ATTENTION = "self_attn,cross_attn_token_to_image,cross_attn_image_to_token"
_DECODER_QV = (
    f"mask_decoder.transformer.layers.*.{{{_ATTENTION}}}.{{q_proj,v_proj}}",
    "mask_decoder.transformer.final_attn_token_to_image.{q_proj,v_proj}",
)
_HEADS = (
    "mask_decoder.{iou_token,mask_tokens,output_upscaling,output_hypernetworks_mlps,"
    "iou_prediction_head}.**"
)
_PROMPTS, _DECODER = "prompt_encoder.**", "mask_decoder.**"
_LORA_QV = Insertion("lora", (_QKV,), {"parts": "qv"})

_LAYERS, _LAST = "mask_decoder.transformer.layers.*", "mask_decoder.transformer"
_SEES_INPUT = {"sees": "input", "scale": 0.5}
_SEES_OUTPUT = {"sees": "output", "scale": 1.0}

SLICES = Method(
    "slices",
    "adapters through which slices of a volume, folded into the batch, see their neighbours; they "
    "alone learn (MaskSAM's)",
    (ADAPTERS,),
    (
        Insertion("depth_conv", ("image_encoder.blocks.*.attn",), _SEES_OUTPUT),
        Insertion("depth_conv", (_MLP,), _SEES_INPUT),
        Insertion("depth_mlp", (f"{_LAYERS}.self_attn",), _SEES_OUTPUT),
        Insertion("depth_mlp", (f"{_LAYERS}.cross_attn_token_to_image",), _SEES_OUTPUT),
        Insertion("depth_mlp", (f"{_LAYERS}.mlp",), _SEES_INPUT),
        Insertion("depth_conv", (f"{_LAYERS}.cross_attn_image_to_token",), _SEES_OUTPUT),
        Insertion("depth_mlp", (f"{_LAST}.final_attn_token_to_image",), _SEES_OUTPUT),
    ),
)
"""What makes a model for pictures see the slices of a volume; `samaritan.assembly.masksam` builds on it."""

_METHODS = {
    method.name: method
    for method in (
        Method(
            "lora",
            "LoRA on q and v of the image encoder; prompt encoder and mask decoder learn (SAMed)",
            (ADAPTERS, _PROMPTS, _DECODER),
            (_LORA_QV,),
        ),
        Method(
            "lora_decoder",
            "LoRA on q and v of image encoder and decoder; the decoder's transformer is frozen (SAMed_s)",
            (ADAPTERS, _PROMPTS, _HEADS),
            (_LORA_QV, Insertion("lora", _DECODER_QV, {"parts": ""})),
        ),
        Method(
            "sam_med2d",
            "an adapter beside the MLP of every encoder block; prompt encoder and mask decoder learn",
            (ADAPTERS, _PROMPTS, _DECODER),
            (Insertion("bottleneck", (_MLP,)),),
        ),
        Method(
            "mask_enhanced",
            "LoRA on q and v of the image encoder and the mask-enhanced adapter before the decoder; "
            "prompt encoder and mask decoder learn (M-SAM)",
            (ADAPTERS, _PROMPTS, _DECODER),
            (_LORA_QV, Insertion("mask_enhanced", (_FUSE,))),
        ),
        Method("adapters_only", "only adapters that are already there learn", (ADAPTERS,)),
        Method("decoder_only", "only the mask decoder learns", (_DECODER,)),
        Method("encoder_frozen", "all but the image encoder learns", (_PROMPTS, _DECODER)),
        Method("all", "everything learns", ("**",)),
        Method("none", "nothing learns", ()),
    )
}


def method_names() -> list[str]:
    """Names of all methods."""
    return sorted(_METHODS)


def get_method(name: str, **options: Any) -> Method:
    """A method by name, with options of its adapters.

    Raises:
        ConfigError: if there is no such method or option.

    >>> get_method("lora", rank=8).insertions[0].options["rank"]
    8
    """
    if name not in _METHODS:
        near = difflib.get_close_matches(name, _METHODS, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ConfigError(
            f"no method of adaptation is called {name!r}. {hint}Known: {', '.join(method_names())}"
        )
    return _METHODS[name].with_options(**options)
