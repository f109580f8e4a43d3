"""Distances between surfaces: laws, known solids, and agreement with MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from samaritan.errors import ConfigError, GeometryError
from samaritan.metrics import assd_mm, hd95_mm, hd_mm, surface_dice, surfels
from samaritan.metrics.surface import border

SPACING = (3.0, 0.8, 1.25)
DISTANCES = (hd95_mm, hd_mm, assd_mm)


def blob(seed, shape=(9, 14, 12), part=0.5):
    """A random lumpy mask."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return smooth > np.quantile(smooth, 1 - part)


def both(one, two, spacing=SPACING, tolerance=2.0):
    far = [measure(one, two, spacing_mm=spacing) for measure in DISTANCES]
    return [*far, surface_dice(one, two, spacing_mm=spacing, tolerance_mm=tolerance)]


def test_a_mask_is_at_no_distance_from_itself() -> None:
    assert both(blob(0), blob(0), tolerance=0) == [0, 0, 0, 1]


def test_distances_do_not_care_which_is_the_reference() -> None:
    assert both(blob(0), blob(1)) == pytest.approx(both(blob(1), blob(0)))


def test_distances_grow_with_the_spacing() -> None:
    near = both(blob(0), blob(1), tolerance=1.0)
    far = both(blob(0), blob(1), [2.5 * s for s in SPACING], tolerance=2.5)
    assert far[:3] == pytest.approx([2.5 * d for d in near[:3]])
    assert far[3] == pytest.approx(near[3])


@pytest.mark.parametrize("axis", range(3))
def test_a_shift_is_as_far_as_the_spacing_says(axis) -> None:
    one, two = np.zeros((2, 12, 12, 12), bool)
    one[3:7, 3:7, 3:7] = True
    two = np.roll(one, 3, axis)
    assert hd_mm(one, two, spacing_mm=SPACING) == pytest.approx(3 * SPACING[axis])


def test_axes_and_directions_do_not_matter() -> None:
    one, two = blob(0), blob(1)
    turned = [mask.transpose(2, 0, 1)[::-1] for mask in (one, two)]
    spacing = (SPACING[2], SPACING[0], SPACING[1])
    assert both(*turned, spacing) == pytest.approx(both(one, two))


def test_what_lies_around_does_not_matter() -> None:
    padded = [np.pad(mask, 4) for mask in (blob(0), blob(1))]
    assert both(*padded) == pytest.approx(both(blob(0), blob(1)))


def test_a_missed_object_is_infinitely_far() -> None:
    none, some = np.zeros((9, 14, 12), bool), blob(0)
    for pair in ((none, some), (some, none)):
        assert both(*pair) == [math.inf, math.inf, math.inf, 0]
    assert both(none, none) == [0, 0, 0, 1]


def test_surface_dice_grows_with_the_tolerance_up_to_one() -> None:
    parts = [
        surface_dice(blob(0), blob(1), spacing_mm=SPACING, tolerance_mm=t) for t in range(0, 40, 4)
    ]
    assert parts == sorted(parts)
    assert parts[0] < 0.8
    assert parts[-1] == 1


def test_dense_masks_give_the_same_as_sparse_ones(monkeypatch) -> None:
    sparse = both(blob(0), blob(1))
    monkeypatch.setattr("samaritan.metrics.surface.DENSE", 0.0)
    assert both(blob(0), blob(1)) == pytest.approx(sparse)


def test_the_border_is_what_erosion_takes() -> None:
    for mask in (blob(0), blob(1, (9, 8)), np.ones((1, 3, 4), bool)):
        assert np.array_equal(border(mask), mask & ~ndimage.binary_erosion(mask))


def test_surfels_of_a_box_have_its_area() -> None:
    box = np.zeros((30, 40, 50), bool)
    box[5:25, 5:35, 5:45] = True
    area = surfels.measures((1, 2, 3))[surfels.codes(box)].sum()
    wanted = 2 * (20 * 60 + 20 * 120 + 60 * 120)
    assert area == pytest.approx(wanted, rel=0.03)  # its edges and corners are cut off


def test_every_neighbourhood_has_its_surface() -> None:
    areas, lengths = surfels.measures((1.0, 0.7, 2.0)), surfels.measures((1.0, 0.7))
    for table in (areas, lengths):
        assert (table[[0, -1]] == 0).all()
        assert (table[1:-1] > 0).all()
        assert table == pytest.approx(table[::-1])  # inside and outside can be exchanged


def test_bad_arguments_are_told() -> None:
    with pytest.raises(ConfigError, match="a tolerance is a distance of 0 mm or more, got -1"):
        surface_dice(blob(0), blob(1), spacing_mm=1, tolerance_mm=-1)
    with pytest.raises(GeometryError, match=r"spacing \(1, 1\): expected 2 or 3 axes"):
        hd95_mm(blob(0), blob(1), spacing_mm=(1, 1))
    with pytest.raises(GeometryError, match="one positive"):
        hd95_mm(blob(0), blob(1), spacing_mm=(1, 0, 1))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own call
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(9, 14, 12), (17, 21)])
def test_surfaces_equal_monai(seed, shape) -> None:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    one, two = blob(seed, shape), blob(seed + 10, shape, 0.3)
    pair = [torch.from_numpy(mask[None, None]) for mask in (one, two)]
    spacing, keep = list(SPACING[: one.ndim]), {"include_background": True}
    hd95 = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing, **keep)
    hd = compute_hausdorff_distance(*pair, spacing=spacing, **keep)
    assd = compute_average_surface_distance(*pair, symmetric=True, spacing=spacing, **keep)
    assert both(one, two, spacing)[:3] == pytest.approx(
        [float(hd95), float(hd), float(assd)], rel=1e-5
    )
    for tolerance in (0.5, 1.0, 2.0, 4.0):
        wanted = compute_surface_dice(
            *pair, [tolerance], spacing=spacing, use_subvoxels=True, **keep
        )
        ours = surface_dice(one, two, spacing_mm=spacing, tolerance_mm=tolerance)
        assert ours == pytest.approx(float(wanted), abs=1e-5)


def test_surfels_equal_monai_in_every_neighbourhood() -> None:
    from monai.metrics.utils import get_code_to_measure_table

    for spacing in ((1.3, 0.7, 2.1), (1.3, 0.7)):
        table, _ = get_code_to_measure_table(spacing)
        assert surfels.measures(spacing) == pytest.approx(table.numpy(), abs=1e-5)
