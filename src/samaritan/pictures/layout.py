"""Where planes and legend go on the page: one scale for all planes, as large as the page allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PAGE = (10.0, 8.5)
"""Most inches across and down that planes may take."""

LEAST_WIDTH = 3.0
"""Fewest inches across, so that a title can be read."""

_GAP, _MARGIN, _CAPTION, _TITLE, _LINE, _LETTER = 0.1, 0.08, 0.22, 0.28, 0.21, 0.078

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class Layout:
    """Rectangles (left, top, width, height) in inches from the upper left corner.

    Attributes:
        size: of the page.
        scale: inches per mm.
        planes: one for each plane.
        legend: where the legend goes.
        legend_columns: in how many columns.
        facts: where a few lines about the image fit, if anywhere.
    """

    size: tuple[float, float]
    scale: float
    planes: tuple[Rectangle, ...]
    legend: Rectangle
    legend_columns: int
    facts: Rectangle | None = None

    def relative(self, box: Rectangle) -> Rectangle:
        """Turn a rectangle into matplotlib's (left, bottom, width, height) as parts of the page."""
        left, top, width, height = box
        across, down = self.size
        return left / across, 1 - (top + height) / down, width / across, height / down


def choose_layout(
    sizes: Sequence[tuple[float, float]], names: Sequence[str], title: str | None
) -> Layout:
    """Place one plane, or axial, coronal and sagittal planes in a corner or in a row, whichever is larger.

    Args:
        sizes: height and width of each plane in mm.
        names: the legend's entries.
        title: whether there is one decides about the space above.
    """
    if len(sizes) == 1:
        return _row(sizes, names, title, caption=0)
    corner = _corner(sizes, names, title)
    row = _row(sizes, names, title, caption=_CAPTION)
    return corner if corner.scale >= 0.8 * row.scale else row


def _corner(
    sizes: Sequence[tuple[float, float]], names: Sequence[str], title: str | None
) -> Layout:
    """Axial above coronal, sagittal beside coronal, so that edges line up; the legend fills the corner."""
    (deep, wide), (tall, _), _ = sizes
    legend_width = min(_width(names), 3.0)
    scale = min(
        (PAGE[0] - _GAP) / (wide + deep),
        (PAGE[0] - _GAP - legend_width) / wide,
        (PAGE[1] - _GAP - _CAPTION) / (deep + tall),
    )
    top = _MARGIN + _CAPTION + (_TITLE if title else 0)
    right = _MARGIN + wide * scale + _GAP
    below = top + deep * scale + _GAP + _CAPTION
    column = max(deep * scale, legend_width)
    lines = _LINE * len(names)
    columns = 1 if lines <= deep * scale else 2
    return Layout(
        (max(right + column + _MARGIN, LEAST_WIDTH), below + tall * scale + _MARGIN),
        scale,
        (
            (_MARGIN, top, wide * scale, deep * scale),
            (_MARGIN, below, wide * scale, tall * scale),
            (right, below, deep * scale, tall * scale),
        ),
        (right + 0.1, top, column - 0.1, deep * scale),
        columns,
        (right + 0.1, top, column - 0.1, deep * scale) if lines + 0.8 < deep * scale else None,
    )


def _row(
    sizes: Sequence[tuple[float, float]], names: Sequence[str], title: str | None, *, caption: float
) -> Layout:
    """All planes side by side; the legend goes under the first if there is room, else in lines below."""
    heights, widths = zip(*sizes, strict=True)
    gaps = _GAP * (len(sizes) - 1)
    scale = min((PAGE[0] - gaps) / sum(widths), (PAGE[1] - caption) / max(heights))
    across = max(sum(widths) * scale + gaps + 2 * _MARGIN, LEAST_WIDTH)
    left = (across - sum(widths) * scale - gaps) / 2
    top = _MARGIN + caption + (_TITLE if title else 0)
    boxes = []
    for height, width in sizes:
        boxes.append((left, top, width * scale, height * scale))
        left += width * scale + _GAP
    bottom = top + max(heights) * scale
    room = bottom - top - heights[0] * scale - _GAP
    if len(sizes) == 3 and room > _LINE * len(names) + 0.8 and widths[0] * scale > _width(names):
        rest = (boxes[0][0], top + heights[0] * scale + _GAP, widths[0] * scale, room)
        return Layout((across, bottom + _MARGIN), scale, tuple(boxes), rest, 1, rest)
    each = max((_width([name]) for name in names), default=1.0)
    columns = max(1, min(len(names), int((across - 2 * _MARGIN) // each)))
    lines = -(-len(names) // columns)
    legend = (_MARGIN, bottom + 0.1, across - 2 * _MARGIN, max(_LINE * lines, 0.01))
    down = bottom + (0.1 + _LINE * lines if names else 0) + _MARGIN
    return Layout((across, down), scale, tuple(boxes), legend, columns)


def _width(names: Sequence[str]) -> float:
    """Inches that the longest legend entry takes."""
    return 0.45 + _LETTER * max((len(name) for name in names), default=0) if names else 0.0
