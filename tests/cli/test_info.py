"""`samaritan info` says what an image is and what is odd about it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import samaritan
from samaritan.cli.info import describe, info, looks_like_labels
from samaritan.geometry import Grid
from samaritan.phantoms import phantom, phantom_picture
from samaritan.volume import LabelMap, Volume
from tests.strategies import make_grid

app = typer.Typer()
app.command()(info)


def run(*args: object):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def known(*args: object) -> dict:
    done = run(*args, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def made():
    return phantom("ct", shape=(40, 32, 20), spacing_mm=(10, 10, 15), oblique_degrees=10, seed=1)


def test_geometry_and_intensities_are_told(tmp_path, made) -> None:
    path = samaritan.write(made.image, tmp_path / "ct.nii.gz")
    found = known(path)
    assert found["shape"] == [40, 32, 20]
    assert found["spacing"] == pytest.approx([10, 10, 15])
    assert found["field_of_view"] == pytest.approx([400, 320, 300])
    assert (found["orientation"], found["oblique"], found["sheared"]) == ("LPS", True, False)
    assert np.allclose(found["affine"], made.image.grid.affine, atol=1e-4)
    assert found["dtype"] == "int16"
    assert found["range"] == [made.image.array.min(), made.image.array.max()]
    assert found["percentiles"]["50"] == pytest.approx(np.median(made.image.array), abs=1)
    assert found["bytes"] == 40 * 32 * 20 * 2
    assert "labels" not in found
    text = run(path).stdout
    for word in ("40 x 32 x 20", "10 x 10 x 15 mm", "LPS, oblique", "400 x 320 x 300 mm", "int16"):
        assert word in text


def test_labels_have_names_and_volumes(tmp_path, made) -> None:
    path = samaritan.write(made.labels, tmp_path / "labels.seg.nrrd")
    rows = {row["name"]: row for row in known(path)["labels"]}
    liver = made.labels.mask("liver").array.sum()
    assert rows["liver"]["voxels"] == liver
    assert rows["liver"]["volume_ml"] == pytest.approx(liver * 1.5, rel=1e-3)
    assert "left kidney" in run(path).stdout


def test_plain_label_files_are_recognised_and_can_be_forced(tmp_path, made) -> None:
    labels = samaritan.write(made.labels, tmp_path / "labels.nii.gz")
    image = samaritan.write(made.image, tmp_path / "image.nii.gz")
    assert len(known(labels)["labels"]) == len(made.labels.labels())
    assert "labels" not in known(labels, "--no-labels")
    assert "labels" not in known(image)
    done = run(image, "--labels")
    assert done.exit_code == 1
    assert "-10" in done.stderr  # negative values are no labels


def test_guessing_labels() -> None:
    grid = make_grid((20, 22, 24))
    patches = (np.indices(grid.shape).sum(axis=0) // 20).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 9, grid.shape, dtype=np.uint8)
    assert looks_like_labels(Volume(patches, grid))
    assert looks_like_labels(Volume(patches.astype(np.float32), grid))
    assert looks_like_labels(Volume(patches > 1, grid))
    for array in (noise, patches * 0, patches - 5.0, patches + 0.5, np.stack([patches] * 3, -1)):
        assert not looks_like_labels(Volume(array, grid))
    for kind in ("ct", "mr"):
        image = phantom(kind, shape=(40, 32, 20), spacing_mm=(10, 10, 15)).image  # type: ignore[arg-type]
        assert not looks_like_labels(image)


def test_pictures_are_in_pixels(tmp_path) -> None:
    path = samaritan.write(phantom_picture("skin", shape=(32, 40)).image, tmp_path / "skin.png")
    found = known(path)
    assert (found["unit"], found["shape"]) == ("px", [32, 40, 1])
    assert found["channels"] == ["R", "G", "B"]
    assert "32 x 40 x 1" in run(path).stdout


def test_oddities_are_told(tmp_path) -> None:
    array = np.ones((3, 4, 5), np.float32)
    array[0, 0, 0], array[0, 0, 1] = np.nan, np.inf
    path = samaritan.write(Volume(array, make_grid(shear=0.2)), tmp_path / "odd.nii")
    found = known(path)
    assert (found["nan"], found["infinite"]) == (1, 1)
    notes = " ".join(found["notes"])
    for text in ("1 voxels are not a number", "1 voxels are infinite", "value 1", "right angles"):
        assert text in notes
    assert "odd: 1 voxels are infinite" in run(path).stdout
    empty = describe(Volume(np.full((3, 4, 5), np.nan), make_grid()), tmp_path)
    assert "No voxel holds a finite number." in empty["notes"]
    large = describe(Volume(array, Grid.from_spacing((3, 4, 5), (90, 90, 90))), tmp_path)
    assert any("unlikely" in note for note in large["notes"])
    tiny = describe(Volume(array, Grid.from_spacing((3, 4, 5), (1e-3, 1e-3, 1e-3))), tmp_path)
    assert any("metres" in note for note in tiny["notes"])


def test_empty_label_maps_are_told(tmp_path) -> None:
    labels = LabelMap(np.zeros((3, 4, 5), np.uint8), make_grid())
    path = samaritan.write(labels, tmp_path / "empty.seg.nrrd")
    assert describe(labels, path)["labels"] == []


def test_files_that_cannot_be_read_exit_1_but_the_others_are_told(tmp_path, made) -> None:
    good = samaritan.write(made.image, tmp_path / "good.nii.gz")
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    done = run(bad, good, "--json")
    assert done.exit_code == 1
    assert "bad.nii.gz" in done.stderr
    assert [row["path"] for row in json.loads(done.stdout)] == [str(good)]


def test_real_files_are_described(data_dir) -> None:
    found = known(data_dir / "volumes/sct/dmri/dmri.nii.gz")
    assert (found["frames"], found["orientation"], found["oblique"]) == (7, "LAS", True)
    labels = known(data_dir / "totalsegmentator/example_seg.nii.gz")["labels"]
    assert labels[4]["name"] == "liver"
    assert "labels" not in known(data_dir / "totalsegmentator/example_ct_sm.nii.gz")
    manual = known(data_dir / "volumes/sct/t2/t2_seg-manual.nii.gz")
    assert [row["value"] for row in manual["labels"]] == [1]
