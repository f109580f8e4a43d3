"""The way from a raw image to a model's patches, as a checkpoint stores it: plans, labels, patch, mirroring.

One object for training, validation and prediction: what of the plans is needed, and nothing of the data set
but the names of its channels and labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.planned import PlannedSet
from samaritan.data.nnunet.plans import Configuration, Plans
from samaritan.data.nnunet.preprocessing import Prepared, preprocess
from samaritan.data.nnunet.rawset import RawCase
from samaritan.data.nnunet.restoring import WayBack
from samaritan.data.reading import case_image
from samaritan.errors import ConfigError, SamaritanError
from samaritan.geometry import Grid, orientation_matrix
from samaritan.transforms.preprocess import PLANNED

Fold = int | Literal["all"]

_PLANS = (
    "dataset_name",
    "plans_name",
    "transpose_forward",
    "transpose_backward",
    "image_reader_writer",
    "label_manager",
    "foreground_intensity_properties_per_channel",
    "foreground_intensity_properties_by_modality",
)
"""What is kept of a plans file, beside the one configuration."""

_DATASET = ("channel_names", "modality", "labels", "regions_class_order", "file_ending")
"""What is kept of dataset.json."""


@dataclass(frozen=True)
class PlannedChain:
    """How a case becomes patches, and label maps come back; `header.preprocess` of a trained model.

    Attributes:
        plans: what was followed, with one configuration.
        configuration: that one, with what it inherits.
        labels: what the heads of the model mean.
        dataset: what is kept of dataset.json.
        patch_size: of the model; two axes for a model of single slices.
        mirror_axes: of the patch along which training reversed it, so that prediction may.
        fold: the fold of the data set that was not learned from; None: not known.
        orientation: of the images' axes, such as "LPS", if they all lie alike: prediction turns scans so,
            which nnU-Net does not; None: axes are taken as they lie in a file.
    """

    kind: ClassVar[str] = PLANNED

    plans: Plans
    configuration: Configuration
    labels: LabelSet
    dataset: Mapping[str, Any]
    patch_size: tuple[int, ...]
    mirror_axes: tuple[int, ...] = ()
    fold: Fold | None = None
    orientation: str | None = None

    def __post_init__(self) -> None:
        dims = len(self.configuration.patch_size)
        if len(self.patch_size) != dims or min(self.patch_size) < 1:
            raise ConfigError(
                f"patches of configuration {self.configuration.name!r} have {dims} sides, "
                f"got {self.patch_size}"
            )
        if any(not 0 <= axis < dims for axis in self.mirror_axes):
            raise ConfigError(f"mirror_axes are 0 to {dims - 1}, got {self.mirror_axes}")

    @classmethod
    def of(
        cls,
        planned: PlannedSet,
        configuration: Configuration,
        *,
        patch_size: tuple[int, ...] | None = None,
        mirror_axes: tuple[int, ...] = (),
        fold: Fold | None = None,
    ) -> PlannedChain:
        """Take the chain of a planned data set."""
        values = {
            "plans": {
                **{k: planned.plans.content[k] for k in _PLANS if k in planned.plans.content},
                "configurations": {configuration.name: planned.plans.resolved(configuration.name)},
            },
            "configuration": configuration.name,
            "dataset": {k: planned.content[k] for k in _DATASET if k in planned.content},
            "patch_size": list(patch_size or configuration.patch_size),
            "mirror_axes": list(mirror_axes),
            "fold": fold,
            "orientation": orientation_of(planned),
        }
        return cls.from_dict(values)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that an image must have, in order."""
        named = self.dataset.get("channel_names", self.dataset.get("modality", {}))
        found = {str(k): str(v) for k, v in dict(named).items()}
        count = len(self.configuration.normalization)
        return tuple(found.get(str(i), f"channel {i}") for i in range(count))

    def prepare(self, raw: RawCase) -> Prepared:
        """Bring a case to the voxels and intensities that the model knows.

        Raises:
            ConfigError: if it has another number of channels.
        """
        return preprocess(raw, self.plans, self.configuration)

    def way_back(self, prepared: Prepared) -> WayBack:
        """From the model's grid to that of the file."""
        return WayBack(
            self.plans,
            self.configuration,
            self.labels,
            prepared.properties,
            tuple(prepared.image.shape[1:]),
        )

    def grid_of(self, shape: tuple[int, ...]) -> Grid:
        """Say how a volume of prepared voxels lies: in pixels where the images do not lie alike."""
        code = self.orientation or "LPS"
        turned = "".join(code[2 - axis] for axis in self.plans.transpose_forward)
        grid = Grid.from_spacing(shape, self.configuration.spacing, orientation=turned)
        return grid if self.orientation else replace(grid, unit="px")

    def to_dict(self) -> dict[str, Any]:
        """Describe the chain in JSON types, for a checkpoint's header."""
        return {
            "kind": self.kind,
            "plans": dict(self.plans.content),
            "configuration": self.configuration.name,
            "dataset": dict(self.dataset),
            "patch_size": list(self.patch_size),
            "mirror_axes": list(self.mirror_axes),
            "fold": self.fold,
            "orientation": self.orientation,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PlannedChain:
        """Make the chain that `to_dict` described.

        Raises:
            ConfigError: if something is missing or wrong.
        """
        try:
            plans = Plans.of(values["plans"], "the plans of the weights")
            fold = values.get("fold")
            return cls(
                plans,
                plans.configuration(str(values["configuration"])),
                LabelSet.from_json(values["dataset"], "the header of the weights"),
                dict(values["dataset"]),
                tuple(int(n) for n in values["patch_size"]),
                tuple(int(a) for a in values.get("mirror_axes", ())),
                fold if fold is None or fold == "all" else int(fold),
                _orientation(values.get("orientation")),
            )
        except SamaritanError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"the preprocessing that the weights name is damaged: {error!r}. Export them again"
            ) from error


def orientation_of(planned: PlannedSet, *, most: int = 8) -> str | None:
    """Tell how the axes of a data set's images lie, from up to `most` of them; None if they differ."""
    if planned.raw is None:
        return None
    cases = planned.raw.cases
    chosen = cases.cases[:: max(len(cases) // most, 1)][:most]
    grids = [case_image(cases, case).grid for case in chosen]
    found = {grid.orientation if grid.unit == "mm" else None for grid in grids}
    return found.pop() if len(found) == 1 else None


def _orientation(value: Any) -> str | None:
    if value is not None:
        orientation_matrix(str(value))  # raises where it is none
    return None if value is None else str(value)
