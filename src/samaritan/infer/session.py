"""A session: an immutable log of what a person did to an image, whose masks follow from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from samaritan.errors import GridMismatch, PromptError
from samaritan.geometry import Grid
from samaritan.infer import cubes, slices, windows
from samaritan.infer.cache import ByteCache
from samaritan.infer.engine import OpenImage
from samaritan.infer.events import (
    Box,
    Click,
    Event,
    Prompt,
    Redo,
    Refine,
    Reset,
    StartFrom,
    Undo,
    from_json,
    in_force,
    label_values,
    to_json,
)
from samaritan.infer.objects import ObjectState, Patch
from samaritan.infer.repairing import repaired, repairs
from samaritan.io.files import replacing
from samaritan.prompts import Boxes, MaskPrompt, Points
from samaritan.transforms import CubePreprocess
from samaritan.volume import LabelMap, Volume, smallest_label_dtype

FORMAT = "samaritan-session/1"
KEPT_BYTES = 256 * 2**20
"""Masks at the model's resolution are kept up to this many bytes: undo and other objects cost nothing."""

SHOWN_BYTES = 128 * 2**20
"""Probabilities on the image's grid are kept up to this many bytes; of each object only where it may be."""


@dataclass(frozen=True, eq=False)
class _Kept:
    """What was worked out, for all sessions that come of one."""

    states: ByteCache[ObjectState] = field(
        default_factory=lambda: ByteCache(KEPT_BYTES, lambda state: state.n_bytes, least=2)
    )
    patches: ByteCache[list[Patch]] = field(
        default_factory=lambda: ByteCache(SHOWN_BYTES, _bytes_of)
    )


@dataclass(frozen=True, eq=False)
class Session:
    """What was done to an image so far. Every call gives a new session and leaves this one as it is.

    A prompt that cannot be used raises at once, so the session that one has goes on unharmed. Masks
    are worked out when asked for, from (image, log), and kept for the sessions that follow.

    Attributes:
        image: the image, opened by a predictor.
        log: every event, undone ones included.
        max_windows: how many windows of a 3D model an object may grow over.

    Example::

        session = predictor.session(volume).click((40, 120, 88), object="liver").undo()
        session.mask  # a LabelMap on the grid of the volume
    """

    image: OpenImage
    log: tuple[Event, ...] = ()
    max_windows: int = 32
    _kept: _Kept = field(default_factory=_Kept, repr=False)

    # -- what a person does ----------------------------------------------------------------------

    def click(
        self,
        point: Sequence[float],
        *,
        positive: bool = True,
        object: str = "object",
        mm: bool = False,
    ) -> Self:
        """Point at the object, or at what does not belong to it.

        Args:
            point: array index (i, j, k), two numbers on a flat image, or (x, y, z) in millimetres RAS+.
            positive: whether the point belongs to the object.
            object: name of the object; the first prompt with a new name begins a new one.
            mm: whether `point` is in millimetres.

        Raises:
            PromptError: if the point lies outside the image.
        """
        at, label = _row(point), np.array([int(positive)])
        points = Points.from_mm(at, label, self.grid) if mm else Points(at, label, self.grid)
        return self._then(Click(_triple(points.coords[0]), bool(positive), _name(object)))

    def box(
        self,
        start: Sequence[float],
        stop: Sequence[float],
        *,
        object: str = "object",
    ) -> Self:
        """Draw a half-open box around the object, from voxel `start` up to before voxel `stop`.

        Raises:
            PromptError: if the box has no size or lies outside, or if the model takes no boxes.
        """
        boxes = Boxes(_row(start), _row(stop), self.grid)
        if not self.image.engine.takes_boxes:
            raise PromptError(
                f"model {self.image.engine.model.config.name!r} takes no boxes (its weights hold none): "
                "click inside the object instead, or use a model with box prompts"
            )
        return self._then(Box(_triple(boxes.start[0]), _triple(boxes.stop[0]), _name(object)))

    def start_from(
        self,
        mask: Volume,
        *,
        object: str | None = None,
    ) -> Self:
        """Start from a mask or label map, which stands as it is until the next prompt on it.

        A click then mends it: of what the model says otherwise, the part that holds the click is taken, and
        other masks stay unless the click lies in one. A box or `refine` draws the whole object anew.

        Args:
            mask: on the image's own grid, or resampled to it by nearest neighbour. Each label of a label map
                becomes an object of its own under its name, and keeps its value, unless `object` is given.
            object: name of the object.

        Raises:
            PromptError: if nothing of the mask lies on the image.
        """
        on_grid = mask.to_grid(self.grid, interpolation="nearest")
        if isinstance(on_grid, LabelMap) and object is None and len(on_grid.labels()) > 0:
            session = self
            for label in on_grid.labels():
                name = on_grid.names.get(label, f"label {label}")
                drawn = on_grid.array == label
                event = StartFrom.from_mask(drawn, _name(name), label=label, names=on_grid.names)
                session = session._then(event)
            return session
        drawn = MaskPrompt(on_grid).volume.array != 0
        return self._then(StartFrom.from_mask(drawn, _name(object or "object")))

    def refine(self, *, object: str = "object", stages: int = 1) -> Self:
        """Ask the model to redraw an object from its present mask, again and again; each stage is an event.

        Models whose training never showed a mask alone (M-SAM) see their last prompts with it.

        Raises:
            PromptError: if there is no such object yet, or no stage.
        """
        self._require(object)
        if stages < 1:
            raise PromptError(f"an object is refined in one stage or more, got {stages}")
        session = self
        for _ in range(stages):
            session = session._then(Refine(object))
        return session

    def undo(self) -> Self:
        """Take back the last event.

        Raises:
            PromptError: if there is none.
        """
        return self._then(Undo())

    def redo(self) -> Self:
        """Bring back what was last taken back.

        Raises:
            PromptError: if nothing was taken back since the last prompt.
        """
        return self._then(Redo())

    def reset(self) -> Self:
        """Begin anew; `undo` brings everything back."""
        return self._then(Reset())

    # -- what comes of it ------------------------------------------------------------------------

    @property
    def grid(self) -> Grid:
        """The grid of the image and of every mask."""
        return self.image.volume.grid

    @cached_property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts in force: neither undone nor reset."""
        return in_force(self.log)

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects, in the order in which they were begun."""
        return tuple(dict.fromkeys(prompt.object for prompt in self.prompts))

    @cached_property
    def mask(self) -> LabelMap:
        """All objects as one label map on the image's grid: object n is label n, or as in its own map.

        Where objects overlap the more probable one wins; a mask that one started from yields to predictions.
        """
        values, names = label_values(self.prompts)
        array = np.zeros(self.grid.shape, smallest_label_dtype(max(names, default=0)))
        best = np.zeros(self.grid.shape, np.float16) if len(values) > 1 else None
        for name, label in values.items():
            _paint(array, best, label, self._state(name), self._patches(name))
        meta = {"model": self.image.engine.model.config.name}
        return LabelMap(array, self.grid, names=names, meta=meta, notes=self.notes)

    def probability(self, object: str = "object") -> Volume:
        """Give the probability of one object, float32, on the image's grid.

        Raises:
            PromptError: if there is no such object.
        """
        self._require(object)
        base = self._state(object).base
        array = np.zeros(self.grid.shape, np.float32) if base is None else base.astype(np.float32)
        for patch in self._patches(object, whole=True):
            _blend_in(array[patch.where], patch)
        return Volume(array, self.grid)

    def quality(self, object: str = "object") -> float | None:
        """Give the model's own estimate of its IoU for the newest answer; None before the first.

        Weights that never learned it (SAM-Med3D's) give a number without meaning.
        """
        self._require(object)
        frames = list(self._state(object).frames.values())
        return frames[-1].quality if frames else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the masks, each once with the objects that it is about."""
        about: dict[str, list[str]] = {}
        for name in self.objects:
            for note in self._state(name).notes:
                about.setdefault(note, []).append(name)
        return tuple(f"{_listed(names)}: {note}" for note, names in about.items())

    # -- keeping it ------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Describe the session in JSON types: the log, and the image's grid to check at replay."""
        return {
            "format": FORMAT,
            "model": self.image.engine.model.config.name,
            "shape": list(self.grid.shape),
            "affine": self.grid.affine.tolist(),
            "axis": self.image.axis,
            "events": [to_json(event) for event in self.log],
        }

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as a JSON file, whole or not at all."""
        with replacing(Path(path)) as (temporary,):
            temporary.write_text(json.dumps(self.to_dict()), encoding="utf-8")

    def replay(self, saved: Mapping[str, Any] | str | Path) -> Self:
        """Do again what a saved session did, on this image.

        Raises:
            PromptError: if the file is not a session.
            GridMismatch: if it was saved for an image with another grid.
        """
        values = _loaded(saved)
        grid = Grid(tuple(values["shape"]), np.asarray(values["affine"], float), self.grid.unit)
        hint = "A session can only be replayed on the image that it was made on."
        self.grid.require_same(grid, what="grids of image and session", hint=hint)
        session = self
        for event in map(from_json, values["events"]):
            session = session._then(session._checked(event))
        return session

    def _checked(self, event: Event) -> Event:
        """Check an event that came from outside as if it had been called."""
        if isinstance(event, Click):
            Points(_row(event.index), np.array([int(event.positive)]), self.grid)
        elif isinstance(event, Box):
            self.box(event.start, event.stop)
        elif isinstance(event, StartFrom) and (
            event.shape != self.grid.shape or sum(event.runs) != self.grid.n_voxels
        ):
            raise PromptError(
                f"a mask of shape {event.shape} does not lie on an image of shape {self.grid.shape}"
            )
        return event

    # -- inside ----------------------------------------------------------------------------------

    def _then(self, event: Event) -> Self:
        self.image.engine.require_prompts()
        following = replace(self, log=(*self.log, event))
        _ = following.prompts  # raises where there is nothing to undo or redo
        return following

    def _require(self, name: str) -> None:
        if name not in self.objects:
            raise PromptError(
                f"there is no object {name!r} in this session; there are {list(self.objects)}"
            )

    def _state(self, name: str) -> ObjectState:
        """Work out an object, from the longest kept beginning of its prompts."""
        prompts = tuple(prompt for prompt in self.prompts if prompt.object == name)
        state, states = ObjectState(), self._kept.states
        known = next(
            (n for n in range(len(prompts), 0, -1) if (self.max_windows, *prompts[:n]) in states), 1
        )
        for n in range(known, len(prompts) + 1):
            make = partial(self._applied, state, prompts[n - 1])
            state = states.get((self.max_windows, *prompts[:n]), make)
        return state

    def _applied(self, state: ObjectState, prompt: Prompt) -> ObjectState:
        if self.image.engine.preprocess.n_axes == 2:
            return slices.apply(self.image, state, prompt)
        if isinstance(self.image.engine.preprocess, CubePreprocess):
            return cubes.apply(self.image, state, prompt)
        return windows.apply(self.image, state, prompt, max_windows=self.max_windows)

    def _patches(self, name: str, *, whole: bool = False) -> list[Patch]:
        """Where an object is on the image's grid: all that may be in it, or `whole` windows."""
        clicks = repairs([prompt for prompt in self.prompts if prompt.object == name])
        state = self._state(name)
        found = self._drawn(name, whole=whole and not clicks)
        if not clicks or state.base is None:
            return found
        others = {
            other: base
            for other in self.objects
            if other != name and (base := self._state(other).base) is not None
        }
        return repaired(state.base, found, clicks, others, self.grid.spacing_mm)

    def _drawn(self, name: str, *, whole: bool) -> list[Patch]:
        """Where the model drew an object."""
        state, image = self._state(name), self.image
        if image.engine.preprocess.n_axes == 2:
            return list(slices.patches(image, state))
        find = (
            cubes.patches
            if isinstance(image.engine.preprocess, CubePreprocess)
            else windows.patches
        )
        if whole:
            return list(find(image, state, whole=True))
        return self._kept.patches.get(state, lambda: list(find(image, state)))


def _paint(
    array: npt.NDArray[Any],
    best: npt.NDArray[np.float16] | None,
    label: int,
    state: ObjectState,
    patches: list[Patch],
) -> None:
    """Write one object into the label map where it is more probable than what is there."""
    if state.base is not None:
        left = state.base.copy()
        for patch in patches:
            left[patch.where] &= ~patch.covered if patch.covered is not None else False
        free = left if best is None else left & (best == 0)
        array[free] = label
        if best is not None:
            best[free] = 0.5
    for patch in patches:
        inside = patch.probability > 0.5
        if best is not None:
            inside &= patch.probability.astype(np.float16) > best[patch.where]
            best[patch.where][inside] = patch.probability[inside]
        array[patch.where][inside] = label


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _bytes_of(patches: list[Patch]) -> int:
    return sum(patch.n_bytes for patch in patches)


def _blend_in(array: npt.NDArray[np.float32], patch: Patch) -> None:
    """Replace what a patch covers."""
    if patch.covered is None:
        array[...] = patch.probability
    else:
        array[patch.covered] = patch.probability[patch.covered]


def _loaded(saved: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """Read a saved session and check that it is one."""
    if isinstance(saved, Mapping):
        values: Any = saved
    else:
        try:
            values = json.loads(Path(saved).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PromptError(f"{saved} cannot be read as a session: {error}") from error
    known = isinstance(values, Mapping) and values.get("format") == FORMAT
    if not known or not isinstance(values.get("events"), list):
        raise PromptError(
            f"this is not a session of format {FORMAT!r}; save one with session.save(path)"
        )
    try:
        Grid(tuple(values["shape"]), np.asarray(values["affine"], float))
    except (KeyError, TypeError, ValueError) as error:
        raise GridMismatch(
            f"the session does not say which image it belongs to: {error}"
        ) from error
    checked: Mapping[str, Any] = values
    return checked


def _triple(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _row(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Bring one index to (1, n)."""
    try:
        return np.asarray(values, np.float64).reshape(1, -1)
    except (TypeError, ValueError) as error:
        raise PromptError(f"an index is two or three numbers, got {values!r}") from error


def _name(name: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise PromptError(f"an object needs a name, got {name!r}")
    return name
