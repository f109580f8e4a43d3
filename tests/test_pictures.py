"""Pictures show the right voxels, the right way round, with prompts and borders where they are."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from PIL import Image

from samaritan.errors import FileError, GeometryError, GridMismatch, UnsupportedFormat
from samaritan.geometry import Grid
from samaritan.phantoms import phantom, phantom_picture
from samaritan.pictures import draw, save_picture
from samaritan.pictures.layout import PAGE, choose_layout
from samaritan.pictures.marks import outline
from samaritan.pictures.planes import as_shown, choose_window, make_scene
from samaritan.prompts import Boxes, Points
from samaritan.volume import LabelMap, Volume
from tests.strategies import ORIENTATIONS, centres, make_grid


def rendered(figure) -> np.ndarray:
    """What the figure looks like: (rows, columns, rgb)."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return np.asarray(Image.open(stream).convert("RGB"))


def texts(figure) -> list[str]:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
        found += [text.get_text() for text in axes.texts]
    return found


def letters(figure, name: str) -> list[str]:
    axes = next(axes for axes in figure.axes if axes.get_label() == name)
    return [text.get_text() for text in axes.texts[:4]]


# -- the right voxels ----------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_planes_and_letters_are_right_for_all_orientations(orientation) -> None:
    grid = make_grid((3, 4, 5), (1.0, 0.7, 2.5), orientation)
    at = (1, 2, 3)
    mm = Volume(centres(grid), grid)
    focus = grid.index_to_mm(at)
    scene = make_scene(mm, None, None, None, at)
    assert [plane.name for plane in scene.planes] == ["axial", "coronal", "sagittal"]
    expected = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
    for plane in scene.planes:
        assert "".join(plane.letters) == expected[plane.name]
        own, value = plane.where.split(" = ")
        assert at["ijk".index(own)] == int(value)
        # the plane contains the point, and going right or down goes where the letters say
        fixed = {"axial": 2, "coronal": 1, "sagittal": 0}[plane.name]
        assert np.allclose(plane.pixels[..., fixed], focus[fixed])
        for letter, step in ((plane.letters[1], (0, 1)), (plane.letters[3], (1, 0))):
            world, sign = {"L": (0, -1), "P": (1, -1), "I": (2, -1)}[letter]
            moved = plane.pixels[step] - plane.pixels[0, 0]
            side = plane.sides[0] if step[0] else plane.sides[1]
            assert moved[world] == pytest.approx(sign * side)


def test_leaning_axes_get_a_second_letter() -> None:
    grid = make_grid((5, 6, 7), turn=0.0)
    affine = grid.affine.copy()
    angle = np.radians(30)
    turn = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    affine[:3, :3] = np.array(turn) @ affine[:3, :3]
    figure = draw(Volume(np.zeros((5, 6, 7)), Grid((5, 6, 7), affine)))
    assert letters(figure, "axial") == ["R", "L", "AS", "PI"]


def test_pictures_have_no_letters_and_are_not_turned() -> None:
    made = phantom_picture("xray", shape=(40, 52))
    figure = draw(made.image)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [""] * 4
    assert np.array_equal(axes.images[0].get_array(), made.image.array[:, :, 0])


def test_planes_are_views() -> None:
    volume = Volume(np.zeros((3, 4, 5)), make_grid(orientation="PSR"))
    for plane in make_scene(volume, None, None, None, None).planes:
        assert np.shares_memory(plane.pixels, volume.array)


def test_planes_go_through_the_first_positive_click_then_box_then_mask() -> None:
    grid = make_grid((7, 8, 9), orientation="LPS")
    volume = Volume(np.zeros(grid.shape), grid)
    labels = LabelMap(np.zeros(grid.shape, np.uint8), grid)
    labels.array[1, 2:4, 5:8] = 1
    points = Points([(0, 0, 0), (6, 7, 8)], [0, 1], grid)
    boxes = Boxes([(2, 2, 2)], [(5, 5, 5)], grid)

    def at(**given: object) -> tuple[int, ...]:
        arguments = {"mask": None, "points": None, "boxes": None, "at": None} | given
        return make_scene(volume, *arguments.values()).at  # type: ignore[arg-type]

    assert at(mask=labels, points=points, boxes=boxes, at=(1, 1, 1)) == (1, 1, 7)
    assert at(mask=labels, points=points, boxes=boxes) == (6, 7, 0)
    assert at(mask=labels, boxes=boxes) == (3, 3, 5)
    assert at(mask=labels) == (1, 2, 3)
    labels.array[5, 7, 0] = 2
    labels.array[5, 6, 0] = 3
    assert at(mask=labels) == (5, 2, 8)
    assert at() == (3, 4, 4)


# -- borders and prompts -------------------------------------------------------------------------


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_outline_is_the_border_and_nothing_else(inside) -> None:
    padded = np.pad(inside, 1)
    expected = set()
    for r, c in np.ndindex(inside.shape[0] + 1, inside.shape[1] + 1):
        if padded[r, c + 1] != padded[r + 1, c + 1] and c < inside.shape[1]:
            expected.add((c - 0.5, r - 0.5, c + 0.5, r - 0.5))
        if padded[r + 1, c] != padded[r + 1, c + 1] and r < inside.shape[0]:
            expected.add((c - 0.5, r - 0.5, c - 0.5, r + 0.5))
    found = []
    for (x0, y0), (x1, y1) in outline(inside):
        n = int(abs(x1 - x0) + abs(y1 - y0))
        for step in range(n):
            dx, dy = (x1 - x0) / n, (y1 - y0) / n
            found.append(
                (x0 + dx * step, y0 + dy * step, x0 + dx * (step + 1), y0 + dy * (step + 1))
            )
    assert len(found) == len(expected)
    assert set(found) == expected


def test_contour_is_drawn_on_the_mask_border() -> None:
    grid = Grid.pixels((20, 30))
    labels = LabelMap(np.zeros(grid.shape, np.uint8), grid)
    labels.array[5:12, 8:21] = 1
    figure = draw(Volume(np.zeros(grid.shape, np.uint8), grid), mask=labels)
    seen = rendered(figure)
    axes = figure.axes[0]
    yellow = (np.abs(seen.astype(int) - (255, 214, 10)) < 40).all(axis=-1)
    rows, columns = np.nonzero(yellow)
    corners = axes.transData.transform([(7.5, 4.5), (20.5, 11.5)])
    height = seen.shape[0]
    legend_top = height - axes.transData.transform((0, 19.5))[1]
    rows, columns = rows[rows < legend_top], columns[rows < legend_top]
    assert columns.min() == pytest.approx(corners[0, 0], abs=3)
    assert columns.max() == pytest.approx(corners[1, 0], abs=3)
    assert rows.min() == pytest.approx(height - corners[0, 1], abs=3)
    assert rows.max() == pytest.approx(height - corners[1, 1], abs=3)


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_prompts_are_drawn_on_their_voxels(orientation) -> None:
    grid = make_grid((7, 8, 9), (1, 1, 2), orientation)
    volume = Volume(np.zeros(grid.shape, np.float32), grid)
    volume.array[2:5, 3:5, 1:4] = 1
    volume.array[3, 4, 2] = 9
    points = Points([(3, 4, 2), (0, 0, 0)], [1, 0], grid)
    figure = draw(volume, points=points, boxes=Boxes([(2, 3, 1)], [(5, 5, 4)], grid))
    for axes in figure.axes[:3]:
        pixels = np.asarray(axes.images[0].get_array())
        first, other = (line for line in axes.lines if line.get_gid() == "point")
        row, column = np.unravel_index(np.argmax(pixels), pixels.shape)
        assert (first.get_xdata()[0], first.get_ydata()[0]) == (column, row)
        assert (first.get_marker(), first.get_color()) == ("P", "#21d04b")
        assert other.get_marker() == "x"  # thin: it lies in none of these planes
        (box,) = (patch for patch in axes.patches if patch.get_gid() == "box")
        rows, columns = np.nonzero(pixels)
        assert box.get_xy() == (columns.min() - 0.5, rows.min() - 0.5)
        assert box.get_width() == columns.max() - columns.min() + 1
        assert box.get_height() == rows.max() - rows.min() + 1


# -- the page ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((30, 40, 50), (1, 0.7, 2.5)), ((40, 40, 5), (0.8, 0.8, 17)), ((64, 64, 3), (1, 1, 1)),
     ((9, 9, 90), (1, 1, 4))],
)  # fmt: skip
def test_all_planes_have_one_physical_scale(shape, spacing) -> None:
    volume = Volume(np.zeros(shape, np.uint8), make_grid(shape, spacing))
    figure = draw(volume, title="scale")
    figure.canvas.draw()
    scales = []
    for axes, plane in zip(
        figure.axes, make_scene(volume, None, None, None, None).planes, strict=False
    ):
        (x0, y0), (x1, y1) = axes.transData.transform([(0, 0), (1, 1)])
        scales += [abs(x1 - x0) / plane.sides[1], abs(y1 - y0) / plane.sides[0]]
    assert len(scales) == 6
    assert scales == pytest.approx([scales[0]] * 6, rel=1e-3)
    assert max(figure.get_size_inches()) < max(PAGE) + 1.2


def test_nothing_is_placed_off_the_page_or_over_another() -> None:
    names = ["liver", "left kidney", "box"]
    for sizes in (
        [(9, 9), (9, 9), (9, 9)],
        [(30, 30), (90, 30), (90, 30)],
        [(300, 300), (2, 300), (2, 300)],
        [(4, 90)],
    ):
        layout = choose_layout(sizes, names, "title")
        places = [*layout.planes, layout.legend]
        for left, top, width, height in places:
            assert left >= 0
            assert top >= 0
            assert left + width <= layout.size[0] + 1e-6
            assert top + height <= layout.size[1] + 1e-6
        for n, (a, b, c, d) in enumerate(places):
            for e, f, g, h in places[:n]:
                assert (
                    a >= e + g - 1e-6 or e >= a + c - 1e-6 or b >= f + h - 1e-6 or f >= b + d - 1e-6
                )


def test_colours_are_shown_as_they_are() -> None:
    made = phantom_picture("skin", shape=(32, 40))
    figure = draw(made.image, mask=made.labels)
    assert np.array_equal(figure.axes[0].images[0].get_array(), made.image.array[:, :, 0])
    deep = made.image.with_array(made.image.array.astype(np.uint16) * 257)
    assert np.array_equal(draw(deep).axes[0].images[0].get_array(), made.image.array[:, :, 0])


def test_other_channels_show_the_first() -> None:
    grid = make_grid()
    array = np.random.default_rng(0).normal(size=(*grid.shape, 2)).astype(np.float32)
    assert np.array_equal(as_shown(Volume(array, grid)).array, array[..., 0])
    complex_volume = Volume((array[..., 0] + 1j).astype(np.complex64), grid)
    assert np.allclose(as_shown(complex_volume).array, np.abs(complex_volume.array))
    draw(Volume(array, grid))


def test_objects_are_named() -> None:
    made = phantom("ct", shape=(40, 32, 30), spacing_mm=(10, 10, 10))
    found = texts(draw(made.image, mask=made.labels, title="a phantom"))
    assert {"a phantom", "body", "liver", "spine"} <= set(found)
    unnamed = LabelMap(made.labels.array, made.labels.grid)
    assert "label 15" in texts(draw(made.image, mask=unnamed))


def test_many_objects_are_counted() -> None:
    grid = Grid.pixels((30, 30))
    labels = LabelMap(np.arange(900, dtype=np.uint16).reshape(grid.shape) // 9, grid)
    assert "and 79 more" in texts(draw(Volume(np.zeros(grid.shape), grid), mask=labels))


def test_empty_masks_are_told() -> None:
    grid = make_grid()
    volume = Volume(np.zeros(grid.shape), grid)
    labels = LabelMap(np.zeros(grid.shape, np.uint8), grid)
    assert "the mask is empty" in texts(draw(volume, mask=labels))
    labels.array[0, 0, 0] = 1
    assert "no mask in these planes" in texts(draw(volume, mask=labels, at=(2, 3, 4)))


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_single_slices_are_drawn_alone(thin) -> None:
    shape = [6, 7, 8]
    shape[thin] = 1
    grid = make_grid(tuple(shape), orientation="LPS")
    figure = draw(Volume(np.zeros(shape, np.int16), grid), crosshair=True)
    (axes,) = figure.axes
    assert axes.get_label() == ("sagittal", "coronal", "axial")[thin]
    draw(Volume(np.zeros((1, 1, 1)), make_grid((1, 1, 1))))


def test_nan_infinity_and_constants_are_drawn() -> None:
    volume = Volume(np.full((3, 4, 5), np.nan, np.float32), make_grid())
    rendered(draw(volume))
    volume.array[1, 1] = (1, 2, np.inf, -np.inf, 5)
    assert choose_window(volume) == pytest.approx((1, 5), abs=0.1)
    rendered(draw(volume))
    assert choose_window(Volume(np.full((3, 4, 5), 7), make_grid())) == (6.5, 7.5)
    for dtype in (bool, ">i2", np.float16, np.uint32):
        rendered(draw(Volume(np.ones((3, 4, 5), dtype), make_grid())))


def test_windows_fit_the_image() -> None:
    ct = phantom("ct", shape=(40, 32, 30), spacing_mm=(10, 10, 10), seed=1)
    assert choose_window(ct.image) == (-160, 240)
    lung = ct.labels.grid.mm_to_index((75, -30, 140)).round().astype(int).tolist()
    assert choose_window(ct.image, lung) == (-1350, 150)
    mr = phantom("mr", shape=(40, 32, 30), spacing_mm=(10, 10, 10), seed=1)
    low, high = choose_window(mr.image)
    assert 0 <= low < 40
    assert 500 < high < 1500
    figure = draw(mr.image, window=(100, 300))
    assert figure.axes[0].images[0].get_clim() == (100, 300)


def test_wrong_requests_are_told() -> None:
    volume = Volume(np.zeros((3, 4, 5)), make_grid())
    labels = LabelMap(np.zeros((3, 4, 6), np.uint8), make_grid((3, 4, 6)))
    with pytest.raises(GridMismatch, match="grids of image and mask differ: shape"):
        draw(volume, mask=labels)
    for at in ((3, 0, 0), (1, 1)):
        with pytest.raises(GeometryError, match="do not meet the image"):
            draw(volume, at=at)


# -- files ---------------------------------------------------------------------------------------


def test_pictures_are_saved_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    figure = draw(Volume(np.zeros((3, 4, 5)), make_grid()))
    path = save_picture(figure, tmp_path / "new" / "a.png")
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")
    with pytest.raises(UnsupportedFormat, match=r"Use one of .*\.png"):
        save_picture(figure, tmp_path / "a.xyz")

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", broken)
    with pytest.raises(FileError, match="No space left"):
        save_picture(figure, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_drawing_leaves_pyplot_alone() -> None:
    code = (
        "import sys, numpy as np; import samaritan.pictures;"
        "assert 'matplotlib' not in sys.modules;"
        "from samaritan.geometry import Grid; from samaritan.volume import Volume;"
        "samaritan.pictures.draw(Volume(np.zeros((3, 4, 5)), Grid.from_spacing((3, 4, 5)))).canvas.draw();"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_real_oblique_and_anisotropic_images_are_drawn(data_dir) -> None:
    import samaritan

    for name in ("t2s/t2s", "mt/mt1", "t2/t2"):
        volume = samaritan.read(data_dir / f"volumes/sct/{name}.nii.gz")
        seen = rendered(draw(volume, crosshair=True))
        assert (seen.max(axis=-1) > 40).mean() > 0.15
