"""Plans files of nnU-Net 2: what a data set's images are brought to, and what a network sees of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samaritan.data.nnunet.resampling import Resampling
from samaritan.errors import ConfigError, CorruptFile
from samaritan.io.files import file_size, replacing

PLANS_NAME = "nnUNetPlans"
_MOST_BYTES = 64 << 20
_FUNCTION = "resample_data_or_seg_to_shape"


@dataclass(frozen=True)
class Configuration:
    """One configuration of a plans file, such as "3d_fullres", with what it inherits.

    Spatial values are in the order of the plans: after `Plans.transpose_forward`, slowest axis first. Those
    of a "2d" configuration have two axes and leave slices alone.
    """

    name: str
    """As the plans call it."""
    data_identifier: str
    """Name of the folder with its preprocessed cases."""
    spacing: tuple[float, ...]
    """Of voxels, in mm."""
    patch_size: tuple[int, ...]
    """What a network sees at once."""
    batch_size: int
    """Patches in a batch."""
    normalization: tuple[str, ...]
    """Scheme of each channel."""
    use_mask: tuple[bool, ...]
    """Whether each channel is measured and changed inside the image only."""
    median_shape: tuple[float, ...]
    """Of the images in voxels."""
    batch_dice: bool
    """Whether Dice losses are summed over the batch."""
    resampling: Mapping[str, Resampling]
    """Of "data", "seg" and "probabilities"."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """Of the network that nnU-Net would build."""
    previous_stage: str | None = None
    """The configuration whose result is an input of this one."""

    @property
    def is_flat(self) -> bool:
        """Whether it looks at slices one by one."""
        return len(self.patch_size) == 2

    def spacing_for(self, own: tuple[float, ...]) -> tuple[float, ...]:
        """Say what a case is resampled to; a flat configuration keeps the spacing of its slices."""
        return (own[0], *self.spacing) if len(self.spacing) < len(own) else self.spacing

    def patch_3d(self) -> tuple[int, int, int]:
        """Give the patch with three axes: a flat one is one slice."""
        k, j, i = (1, *self.patch_size) if self.is_flat else self.patch_size
        return k, j, i


@dataclass(frozen=True)
class Plans:
    """A plans file.

    Attributes:
        content: all of it, as JSON.
        where: how to call it in messages.
    """

    content: Mapping[str, Any]
    where: str = "the plans"

    @property
    def name(self) -> str:
        """As its file is called."""
        return str(self.content.get("plans_name", PLANS_NAME))

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.content.get("dataset_name", ""))

    @property
    def transpose_forward(self) -> tuple[int, int, int]:
        """Which of the axes k, j, i comes first, second and third."""
        i, j, k = (int(a) for a in self.content["transpose_forward"])
        return i, j, k

    @property
    def transpose_backward(self) -> tuple[int, int, int]:
        """The way back."""
        i, j, k = (self.transpose_forward.index(a) for a in range(3))
        return i, j, k

    @property
    def intensities(self) -> tuple[Mapping[str, float], ...]:
        """What was measured of the foreground of each channel."""
        key = "foreground_intensity_properties_per_channel"
        found = self.content.get(
            key, self.content.get(key.replace("per_channel", "by_modality"), {})
        )
        return tuple(found[k] for k in sorted(found, key=int))

    @property
    def names(self) -> tuple[str, ...]:
        """The configurations there are."""
        return tuple(self.content["configurations"])

    def configuration(self, name: str) -> Configuration:
        """Give a configuration with what it inherits.

        Raises:
            ConfigError: if there is none, it inherits from itself, or a field is missing or not known.
        """
        try:
            return _configuration(name, self.resolved(name))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"configuration {name!r} of {self.where} lacks or misstates {error}. Plans of nnU-Net 2 "
                "are expected; those of version 1 (.pkl) are not: plan again"
            ) from error

    def resolved(self, name: str) -> dict[str, Any]:
        """Give the JSON of a configuration together with what it inherits."""
        found = self._resolved(name, ())
        return {key: value for key, value in found.items() if key != "inherits_from"}

    def _resolved(self, name: str, visited: tuple[str, ...]) -> dict[str, Any]:
        if name in visited:
            raise ConfigError(
                f"configurations of {self.where} inherit in a circle: {' -> '.join([*visited, name])}"
            )
        own = self.content["configurations"].get(name)
        if not isinstance(own, Mapping):
            raise ConfigError(
                f"{self.where} has no configuration {name!r}; expected one of {', '.join(self.names)}"
            )
        if "inherits_from" not in own:
            return dict(own)
        return {**self._resolved(str(own["inherits_from"]), (*visited, name)), **own}

    @classmethod
    def read(cls, path: Path) -> Plans:
        """Read a plans file.

        Raises:
            FileError: if it is missing, or no JSON.
            ConfigError: if it is no plans file of nnU-Net 2.
        """
        if path.suffix == ".pkl":
            raise ConfigError(
                f"{path} is a plans file of nnU-Net 1, a pickle, which is not read: plan again with "
                "samaritan prepare plan, or convert it with nnU-Net 2"
            )
        if file_size(path) > _MOST_BYTES:
            raise CorruptFile(f"{path} is too large for a plans file")
        try:
            content = json.loads(path.read_text("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise CorruptFile(f"{path} is not JSON: {error}") from error
        return cls.of(content, str(path))

    @classmethod
    def of(cls, content: Any, where: str) -> Plans:
        """Take JSON as plans, after looking whether it is such.

        Raises:
            ConfigError: telling what is missing.
        """
        wanted = ("configurations", "transpose_forward")
        missing = [k for k in wanted if not isinstance(content, Mapping) or k not in content]
        if missing or not isinstance(content["configurations"], Mapping):
            raise ConfigError(
                f"{where} is no plans file of nnU-Net 2: it lacks {', '.join(missing) or 'configurations'}"
            )
        made = cls(content, where)
        try:
            forward, _ = sorted(made.transpose_forward), [dict(one) for one in made.intensities]
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{where} has fields that cannot be used: {error}") from error
        if forward != [0, 1, 2]:
            raise ConfigError(
                f"{where}: transpose_forward must name axes 0, 1 and 2, got {content['transpose_forward']}"
            )
        return made

    def write(self, path: Path) -> Path:
        """Write it as nnU-Net does."""
        with replacing(path) as (new,):
            new.write_text(json.dumps(self.content, indent=4), "utf-8")
        return path


def _configuration(name: str, content: Mapping[str, Any]) -> Configuration:
    return Configuration(
        name=name,
        data_identifier=str(content["data_identifier"]),
        spacing=tuple(float(s) for s in content["spacing"]),
        patch_size=tuple(int(n) for n in content["patch_size"]),
        batch_size=int(content["batch_size"]),
        normalization=tuple(str(s) for s in content["normalization_schemes"]),
        use_mask=tuple(bool(m) for m in content["use_mask_for_norm"]),
        median_shape=tuple(float(n) for n in content.get("median_image_size_in_voxels", ())),
        batch_dice=bool(content.get("batch_dice", False)),
        resampling={kind: _resampling(kind, content) for kind in ("data", "seg", "probabilities")},
        architecture=_architecture(content),
        previous_stage=content.get("previous_stage"),
    )


def _resampling(kind: str, content: Mapping[str, Any]) -> Resampling:
    function, settings = (content[f"resampling_fn_{kind}{end}"] for end in ("", "_kwargs"))
    if function != _FUNCTION:
        raise ConfigError(
            f"resampling {function!r} of {kind} is not known here; expected {_FUNCTION!r}. "
            "Plan again, or set this field if the difference is acceptable"
        )
    return Resampling(
        labels=bool(settings.get("is_seg", False)),
        order=int(settings.get("order", 3)),
        order_z=int(settings.get("order_z", 0)),
        separate=settings.get("force_separate_z", False),
    )


def _architecture(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take the network's arguments; older plans have them one by one."""
    if "architecture" in content:
        found = content["architecture"].get("arch_kwargs", {})
        return dict(found) if isinstance(found, Mapping) else {}
    old = {
        "kernel_sizes": "conv_kernel_sizes",
        "strides": "pool_op_kernel_sizes",
        "n_conv_per_stage": "n_conv_per_stage_encoder",
        "n_conv_per_stage_decoder": "n_conv_per_stage_decoder",
    }
    return {new: content[key] for new, key in old.items() if key in content}
