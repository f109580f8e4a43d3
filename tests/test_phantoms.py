"""The phantom shows one anatomy on every grid, and says what it is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from peak import PEAK_GIB

import samaritan
from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.phantoms import LABEL_OF, ORGANS, Phantom, phantom, phantom_picture

COARSE = {"shape": (80, 64, 52), "spacing_mm": (5.0, 5.0, 6.0)}


@pytest.fixture(scope="module")
def ct() -> Phantom:
    return phantom("ct", seed=4, **COARSE)


def test_public_name_is_the_function() -> None:
    assert samaritan.phantom is phantom


@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_same_seed_gives_the_same_voxels(kind) -> None:
    one, two, other = (phantom(kind, seed=s, **COARSE) for s in (7, 7, 8))
    assert np.array_equal(one.image.array, two.image.array)
    assert np.array_equal(one.labels.array, two.labels.array)
    assert one.lesions == two.lesions
    assert not np.array_equal(one.labels.array, other.labels.array)


def test_slabs_do_not_show(monkeypatch) -> None:
    whole = phantom("mr", noise=0, seed=2, **COARSE)
    monkeypatch.setattr("samaritan.phantoms.body.SLAB_VOXELS", 64 * 52 * 7)
    slabs = phantom("mr", noise=0, seed=2, **COARSE)
    assert (whole.labels.array == slabs.labels.array).mean() > 0.9999
    assert np.abs(whole.image.array.astype(int) - slabs.image.array).max() <= 1


def test_ct_and_mr_of_one_seed_share_the_anatomy() -> None:
    one, two = phantom("ct", seed=3, **COARSE), phantom("mr", seed=3, **COARSE)
    assert np.array_equal(one.labels.array, two.labels.array)


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "SLA", "ILP"])
def test_turned_grids_show_the_same_anatomy(ct, orientation) -> None:
    turned = phantom("ct", seed=4, grid=ct.image.grid.reorient(orientation), noise=0)
    plain = phantom("ct", seed=4, grid=ct.image.grid, noise=0)
    back = turned.image.reorient("LPS")
    assert turned.image.grid.orientation == orientation
    assert back.grid.same_as(plain.image.grid)
    assert np.abs(back.array.astype(int) - plain.image.array).max() <= 1
    assert (turned.labels.reorient("LPS").array == plain.labels.array).mean() > 0.9999


def test_oblique_anisotropic_grid_shows_the_same_anatomy(ct) -> None:
    oblique = phantom(
        "ct",
        shape=(70, 40, 60),
        spacing_mm=(3, 6, 4),
        orientation="SRP",
        oblique_degrees=25,
        seed=4,
    )
    grid = oblique.image.grid
    assert grid.is_oblique
    assert not grid.is_sheared
    # the oblique voxels that hit the anatomy are the ones that an exact answer at the same mm would give
    exact = phantom("ct", seed=4, shape=(200, 160, 150), spacing_mm=(2, 2, 2))
    moved = exact.labels.to_grid(grid)
    inside = phantom("ct", seed=4, grid=grid).labels.array
    covered = exact.image.with_array(np.ones(exact.image.shape, np.uint8))
    seen = covered.to_grid(grid, interpolation="nearest").array > 0
    assert (moved.array == inside)[seen].mean() > 0.9
    assert np.array_equal(inside, oblique.labels.array)


def test_finer_grid_agrees_at_shared_centres(ct) -> None:
    fine = ct.image.grid.resample([s / 3 for s in ct.image.grid.spacing_mm])
    shared = phantom("ct", seed=4, grid=fine).labels.array[1::3, 1::3, 1::3]
    assert (shared == ct.labels.array).mean() > 0.9999


@pytest.mark.parametrize("seed", range(4))
def test_all_organs_are_there_and_on_their_side(seed) -> None:
    made = phantom("ct", seed=seed, lesions=4, **COARSE)
    grid = made.labels.grid
    found = made.labels.labels()
    assert [made.labels.names[value] for value in found] == list(ORGANS)

    def centre(name: str) -> np.ndarray:
        return grid.index_to_mm(np.argwhere(made.labels.mask(name).array).mean(axis=0))

    assert centre("liver")[0] > 40  # the patient's right
    assert centre("right kidney")[0] > 40
    assert centre("left kidney")[0] < -40
    assert centre("spleen")[0] < -60
    assert centre("spine")[1] < -40  # the back
    assert centre("heart")[2] > centre("liver")[2] > centre("bladder")[2]
    volume_ml = made.labels.mask("liver").array.sum() * grid.voxel_volume_mm3 / 1000
    assert 700 < volume_ml < 2200


@pytest.mark.parametrize("seed", range(6))
def test_lesions_lie_inside_their_organ(seed) -> None:
    made = phantom("ct", seed=seed, lesions=6, shape=(160, 128, 64), spacing_mm=(2.5, 2.5, 4))
    labels = made.labels
    assert len(made.lesions) == 6
    for lesion in made.lesions:
        index = labels.grid.mm_to_index(lesion.centre_mm)
        assert labels.array[tuple(np.rint(index).astype(int))] == LABEL_OF["lesion"]
    from scipy import ndimage

    lesion = labels.mask("lesion").array
    around = labels.array[ndimage.binary_dilation(lesion) & ~lesion]
    hosts = [LABEL_OF[name] for name in ("liver", "spleen", "right kidney", "left kidney")]
    assert np.isin(around, hosts).mean() > 0.98


def test_no_lesions_when_none_are_asked_for() -> None:
    made = phantom(lesions=0, **COARSE)
    assert made.lesions == ()
    assert LABEL_OF["lesion"] not in made.labels.labels()


def test_ct_contrast_is_in_hounsfield_units(ct) -> None:
    def level(name: str) -> float:
        return float(np.median(ct.image.array[ct.labels.mask(name).array]))

    assert ct.image.dtype == np.int16
    assert -1010 < np.median(ct.image.array[ct.labels.array == 0]) < -990
    assert level("left lung") < -700
    assert 80 < level("liver") < 140
    assert level("lesion") < level("liver") - 30
    assert level("right kidney") > level("liver") + 30
    assert level("ribs") > 200


def test_mr_has_bias_noise_and_bright_lesions() -> None:
    made = phantom("mr", seed=4, **COARSE)
    clean = phantom("mr", seed=4, noise=0, **COARSE)
    assert made.image.dtype == np.uint16
    air = made.labels.array == 0
    rayleigh = 18 * np.sqrt(2 * np.log(2))
    assert np.median(made.image.array[air]) == pytest.approx(rayleigh, rel=0.05)
    assert (clean.image.array[air] == 0).mean() > 0.95
    lesion, liver = (clean.image.array[clean.labels.mask(n).array] for n in ("lesion", "liver"))
    assert np.median(lesion) > 1.6 * np.median(liver)
    fat = clean.image.array[(clean.labels.array == 1) & (clean.image.array > 400)]
    assert np.percentile(fat, 95) / np.percentile(fat, 5) > 1.15


def test_edges_hold_mixed_voxels() -> None:
    made = phantom("ct", seed=1, noise=0, **COARSE)
    values = made.image.array
    assert ((values > -900) & (values < -200) & (made.labels.array <= 1)).sum() > 1000


def test_it_says_what_it_is(ct) -> None:
    assert ct.image.meta["source"] == "phantom"
    assert "phantom" in ct.image.notes[0]
    assert ct.labels.grid == ct.image.grid


def test_one_voxel_thick_phantom_is_a_slice_of_the_whole(ct) -> None:
    thin = phantom("ct", seed=4, grid=ct.image.grid.window((0, 0, 26), (80, 64, 1)))
    assert (thin.labels.array == ct.labels.slice(2, 26).array).mean() > 0.999


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kind": "pet"}, "known: ct, mr, shapes"),
        ({"lesions": -1}, "cannot be negative"),
        ({"noise": -2.0}, "cannot be negative"),
    ],
)
def test_wrong_arguments_are_told(arguments, text) -> None:
    with pytest.raises(ConfigError, match=text):
        phantom(**arguments)


@pytest.mark.parametrize("scale_mm", [0.5, 2.0, 9.0, 200.0])
def test_smooth_fields_have_one_deviation_and_change_over_their_scale(scale_mm) -> None:
    from samaritan.phantoms.fields import smooth_field

    rng = np.random.default_rng(1)
    fields = [smooth_field((24, 30, 20), (1.0, 1.0, 2.0), scale_mm, rng) for _ in range(40)]
    assert np.sqrt(np.mean(np.square(fields))) == pytest.approx(1, abs=0.2)
    step = np.sqrt(np.mean(np.square(np.diff(fields, axis=1))))
    assert step == pytest.approx(1.2 / scale_mm, rel=0.3) if scale_mm > 2 else step > 0.45


def test_splines_pass_straight_lines_through() -> None:
    from samaritan.phantoms.fields import spline

    at = np.array([0.0, 0.5, 2.9, 4.0])
    line = np.outer([1.0, 2.0], np.arange(7.0))
    assert np.allclose(spline(line, at, axis=1), np.outer([1, 2], at + 1))


def test_thick_slices_keep_slopes_and_means() -> None:
    from samaritan.phantoms.assorted import _thick

    slope = np.tile(np.arange(12, dtype=np.float32)[:, None, None], (1, 3, 4))
    for axis in range(3):
        seen = _thick(np.moveaxis(slope, 0, axis), axis, 3)
        assert np.allclose(np.moveaxis(seen, axis, 0)[1:11], slope[1:11], atol=1e-5)


@pytest.mark.parametrize("kind", ["ellipsoid", "blob", "plate", "tube", "cluster"])
def test_makers_stay_in_the_volume_and_about_their_place(kind) -> None:
    from samaritan.phantoms import objects

    space = objects.Space((30, 40, 26), (1.0, 1.5, 2.0))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        centre = rng.uniform(0, 1, 3) * space.extent_mm
        part = getattr(objects, kind)(space, centre, 8.0, rng)
        seen = np.zeros(space.shape, bool)
        seen[part.where] = part.inside
        assert seen.sum() == part.inside.sum()
        away = np.argwhere(seen) * space.spacing_mm - centre
        assert np.linalg.norm(away, axis=1).max(initial=0) < 50


def test_pieces_share_out_their_object() -> None:
    from samaritan.phantoms import objects

    space, rng = objects.Space((30, 28, 26), (1.0, 1.0, 1.5)), np.random.default_rng(3)
    whole = objects.ellipsoid(space, np.array([15.0, 14, 18]), 9.0, rng)
    parts = objects.pieces(space, whole, 3, rng)
    assert len(parts) == 3
    assert np.array_equal(sum(p.inside.astype(int) for p in parts), whole.inside.astype(int))


@pytest.mark.parametrize("seed", range(6))
def test_shapes_are_objects_with_labels_from_one_on(seed) -> None:
    made = phantom("shapes", shape=(40, 36, 32), seed=seed)
    labels = made.labels
    assert labels.grid.same_as(made.image.grid)
    assert made.image.dtype == np.uint16
    assert labels.labels() == list(labels.names) == list(range(1, len(labels.names) + 1))
    assert np.bincount(labels.array.ravel())[1:].min(initial=27) >= 27
    assert len(set(labels.names.values())) == len(labels.names)
    assert all(1 <= side <= 3 for side in made.image.grid.spacing_mm)
    assert made.image.meta["source"] == "phantom"


def test_shapes_of_one_seed_are_the_same_and_of_another_not() -> None:
    one, two, other = (phantom("shapes", shape=(40, 36, 32), seed=s) for s in (5, 5, 6))
    assert np.array_equal(one.image.array, two.image.array)
    assert np.array_equal(one.labels.array, two.labels.array)
    assert one.labels.names == two.labels.names
    assert one.image.grid.same_as(two.image.grid)
    assert not np.array_equal(one.labels.array, other.labels.array)


def test_shapes_differ_in_brightness_kind_and_number_of_pieces() -> None:
    from scipy import ndimage

    kinds, pieces, counts = set[str](), list[int](), list[int]()
    for seed in range(12):
        made = phantom("shapes", shape=(48, 48, 48), seed=seed, noise=0)
        names = made.labels.names
        counts.append(len(names))
        kinds |= {name.split()[0] for name in names.values()}
        for value in names:
            pieces.append(ndimage.label(made.labels.array == value)[1])
        levels = ndimage.mean(made.image.array, made.labels.array, list(names))
        assert len(names) < 2 or np.ptp(levels) > 20
    assert {"ellipsoid", "blob", "tube", "plate", "cluster", "lesion"} <= kinds
    assert {"part", "wall", "cavity", "region"} <= kinds
    assert max(pieces) >= 4
    assert max(counts) > 2 * min(counts)


def test_shapes_stand_out_from_what_is_around_them() -> None:
    from scipy import ndimage

    apart = []
    for seed in range(8):
        made = phantom("shapes", shape=(48, 48, 48), seed=seed, noise=0)
        image = made.image.array.astype(float)
        for value in made.labels.names:
            inside = made.labels.array == value
            ring = ndimage.binary_dilation(inside, iterations=3) & ~inside
            apart.append(abs(image[inside].mean() - image[ring].mean()))
    assert np.median(apart) > 80
    assert np.percentile(apart, 10) > 10


def test_shapes_come_on_any_grid() -> None:
    flat = phantom("shapes", shape=(40, 50, 1), seed=1)
    assert flat.image.shape == (40, 50, 1)
    thick = phantom("shapes", shape=(40, 50, 9), spacing_mm=(1, 1, 6), orientation="SRP", seed=1)
    assert thick.image.grid.orientation == "SRP"
    assert thick.image.grid.spacing_mm == pytest.approx((1, 1, 6))
    again = phantom("shapes", grid=thick.image.grid, seed=1)
    assert np.array_equal(again.labels.array, thick.labels.array)


def test_noise_leaves_shapes_as_they_are() -> None:
    clean, noisy = (phantom("shapes", shape=(40, 36, 32), seed=3, noise=n) for n in (0, 50))
    assert np.array_equal(clean.labels.array, noisy.labels.array)
    difference = noisy.image.array.astype(float) - clean.image.array
    bright = clean.image.array > 300
    assert difference[bright].std() == pytest.approx(50, rel=0.2)


@pytest.mark.parametrize("kind", ["ultrasound", "xray", "skin"])
def test_pictures_have_contrast_under_their_mask(kind) -> None:
    for seed in range(5):
        made = phantom_picture(kind, shape=(96, 130), seed=seed)
        again = phantom_picture(kind, shape=(96, 130), seed=seed)
        assert np.array_equal(made.image.array, again.image.array)
        assert made.image.dtype == np.uint8
        assert made.image.grid == Grid.pixels((96, 130))
        assert made.image.n_channels == (3 if kind == "skin" else 1)
        grey = made.image.array.reshape(96, 130, 1, -1).mean(axis=-1)
        inside, outside = grey[made.labels.array > 0], grey[made.labels.array == 0]
        assert 0.02 < inside.size / grey.size < 0.5
        assert inside.mean() < 0.75 * outside.mean()
        assert set(made.labels.labels()) == set(made.labels.names)


def test_wrong_pictures_are_told() -> None:
    with pytest.raises(ConfigError, match="known: ultrasound"):
        phantom_picture("photo")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rows and columns"):
        phantom_picture(shape=(4, 300))


@pytest.mark.slow
def test_large_phantom_is_made_in_bounded_memory() -> None:
    code = (
        PEAK_GIB
        + "\nfrom samaritan.phantoms import phantom\n"
        + "phantom('ct', shape=(512, 512, 400), spacing_mm=(0.78, 0.78, 0.75));"
        + "print(peak_gib())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0  # the arrays themselves take 0.3
