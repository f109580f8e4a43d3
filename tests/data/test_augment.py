"""Augmentation: one draw for image and labels, given randomness only, MONAI only when it is used."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from samaritan.data import jitter

pytest.importorskip("monai")

from samaritan.data.augment import (
    Chain,
    Geometry,
    Intensity,
    SamedAugment,
    heavy,
    turned,
    upright,
    warped,
)

ALWAYS = Geometry(flip=0.5, quarters=0.7, warp=1.0, image="nearest")


def drawing(rows: int = 40, columns: int = 57, seed: int = 0):
    rng = np.random.default_rng(seed)
    plane = np.zeros((rows, columns), np.uint8)
    for value in (3, 60, 255):
        r, c = rng.integers(0, rows - 12), rng.integers(0, columns - 15)
        plane[r : r + 12, c : c + 15] = value
    return plane


@pytest.mark.parametrize("augment", [SamedAugment(image="nearest"), ALWAYS])
def test_a_picture_equal_to_its_label_stays_equal(augment) -> None:
    plane = drawing()
    for seed in range(20):
        pixels, planes = augment(plane[:, :, None], plane[None], np.random.default_rng(seed))
        assert np.array_equal(pixels[:, :, 0], planes[0])
        assert set(np.unique(planes)) <= {0, 3, 60, 255}


@pytest.mark.parametrize("augment", [SamedAugment(), ALWAYS, heavy(), upright()])
def test_labels_of_the_augmented_are_augmented_labels(augment) -> None:
    """Whatever lies in the picture and on other planes, a plane goes the same way."""
    one, two = drawing(seed=1), drawing(seed=2)
    for seed in range(10):
        noise = np.random.default_rng(99).integers(0, 255, (*one.shape, 1)).astype(np.uint8)
        _, both = augment(noise, np.stack([one, two]), np.random.default_rng(seed))
        _, alone = augment(one[:, :, None], two[None], np.random.default_rng(seed))
        assert np.array_equal(both[1], alone[0])
        # of a mask: the mask of the augmented
        _, mask = augment(noise, (one == 60)[None].astype(np.uint8), np.random.default_rng(seed))
        assert np.array_equal(mask[0], both[0] == 60)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", [SamedAugment(), Geometry(), Intensity(strength=4), heavy()])
def test_the_generator_alone_decides(augment, channels) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (64, 80, channels)).astype(np.uint8)
    planes = drawing(64, 80)[None].astype(np.uint16)
    before = pixels.copy(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    seen = set()
    for seed in range(6):
        first = augment(pixels, planes, np.random.default_rng(seed))
        again = augment(pixels, planes, np.random.default_rng(seed))
        assert np.array_equal(first[0], again[0])
        assert np.array_equal(first[1], again[1])
        assert (first[0].dtype, first[1].dtype) == (np.uint8, np.uint16)
        assert first[0].shape[2] == channels
        assert first[0].shape[:2] == first[1].shape[1:]
        seen.add(first[0].tobytes())
    assert len(seen) > 2
    assert np.array_equal(pixels, before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_intensity_leaves_planes_and_shape_alone() -> None:
    pixels = np.random.default_rng(3).integers(0, 255, (60, 71, 3)).astype(np.uint8)
    planes = drawing(60, 71)[None]
    for seed in range(20):
        new, same = Intensity(strength=9)(pixels, planes, np.random.default_rng(seed))
        assert same is planes
        assert new.shape == pixels.shape


def test_samed_draws_half_turned_and_a_quarter_rotated() -> None:
    plane = drawing(40, 40)
    counts = {"same": 0, "turned": 0, "rotated": 0}
    wholes = {
        turned(plane[:, :, None], plane[None], k, f)[1].tobytes() for k in range(4) for f in (0, 1)
    }
    for seed in range(400):
        _, planes = SamedAugment()(plane[:, :, None], plane[None], np.random.default_rng(seed))
        kind = (
            "same"
            if np.array_equal(planes[0], plane)
            else "turned"
            if planes.tobytes() in wholes
            else "rotated"
        )
        counts[kind] += 1
    assert 160 < counts["turned"] < 240
    assert 60 < counts["rotated"] < 140
    assert 60 < counts["same"] < 140


def test_linear_rotation_is_smoother_than_the_published_one() -> None:
    i, j = np.mgrid[:64, :64]
    smooth = (127 + 100 * np.sin(i / 9) * np.cos(j / 7)).astype(np.uint8)[:, :, None]
    plane = np.zeros((1, 64, 64), np.uint8)
    inside = np.s_[16:48, 16:48]
    true = 127 + 100 * np.sin(i / 9) * np.cos(j / 7)
    error = {}
    for how in ("linear", "nearest"):
        there = warped(smooth, plane, rotate=17, image=how)[0]
        back = warped(there, plane, rotate=-17, image=how)[0][..., 0]
        error[how] = np.abs(back - true)[inside].mean()
    assert error["linear"] < 0.6 * error["nearest"]


def test_a_warp_does_what_it_says() -> None:
    plane = np.zeros((1, 60, 80), np.uint8)
    plane[0, 28:32, 38:42] = 1
    blank = np.zeros((60, 80, 1), np.uint8)
    larger = warped(blank, plane, scale=2)[1]
    assert larger.sum() == 4 * plane.sum()
    moved = warped(blank, plane, shift=(0.1, -0.25))[1]
    assert np.array_equal(np.argwhere(moved[0])[0], [28 + 6, 38 - 20])
    assert np.array_equal(warped(blank, plane)[1], plane)


def test_quarter_turns_lose_nothing() -> None:
    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7, 1)
    planes = pixels[None, :, :, 0]
    for quarters in range(4):
        new, plane = turned(pixels, planes, quarters, 1)
        back = turned(*turned(new, plane, 0, 1), -quarters, None)
        assert np.array_equal(back[0], pixels)
        assert np.array_equal(back[1], planes)


@pytest.mark.parametrize("change", [c for _, c in (*jitter.GREYS, *jitter.COLORS)])
def test_changes_are_finite_and_keep_the_shape(change) -> None:
    values = np.random.default_rng(0).uniform(0, 255, (3, 4, 5)).astype(np.float32)
    for value in (values, np.zeros_like(values), np.full_like(values, 255)):
        new = change(value.copy(), np.random.default_rng(1))
        assert new.shape == value.shape
        assert new.dtype == np.float32
        assert np.isfinite(new).all()


def test_grey_mixes_all_colours_and_invert_is_its_own_inverse() -> None:
    values = np.random.default_rng(0).uniform(0, 255, (3, 4, 5)).astype(np.float32)
    mixed = jitter.grey(values, np.random.default_rng(1))
    assert np.array_equal(mixed[0], mixed[2])
    twice = jitter.invert(jitter.invert(values, np.random.default_rng(1)), np.random.default_rng(1))
    assert np.allclose(twice, values, atol=1e-4)


def test_steps_follow_each_other() -> None:
    plane = drawing()
    rng = np.random.default_rng(4)
    geometry = Geometry()(plane[:, :, None], plane[None], rng)
    want = Intensity()(*geometry, rng)
    found = Chain((Geometry(), Intensity()))(
        plane[:, :, None], plane[None], np.random.default_rng(4)
    )
    assert np.array_equal(found[0], want[0])


def test_upright_keeps_what_is_left_on_the_left() -> None:
    rows, columns = np.meshgrid(np.arange(64), np.arange(64), indexing="ij")
    discs = [(rows - 32) ** 2 + (columns - c) ** 2 < 64 for c in (16, 48)]
    plane = (discs[0] + 2 * discs[1]).astype(np.uint8)
    for seed in range(30):
        _, planes = upright()(plane[:, :, None], plane[None], np.random.default_rng(seed))
        one, two = (np.argwhere(planes[0] == value).mean(axis=0) for value in (1, 2))
        assert one[1] < two[1] - 15
        assert abs(one[0] - two[0]) < 15


def test_monai_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, numpy as np\n"
        "import samaritan.data.datasets\n"
        "from samaritan.data.augment import SamedAugment, heavy, turned\n"
        "heavy(); SamedAugment()\n"
        "turned(np.zeros((3, 4, 1), np.uint8), np.zeros((1, 3, 4), np.uint8), 1, 0)\n"
        "assert 'monai' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
