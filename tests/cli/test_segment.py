"""`samaritan segment`: from a file and a point to a mask on the file's own grid, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cli.run import samaritan

from samaritan.checkpoints import cached, save_weights
from samaritan.geometry import Grid
from samaritan.io import read, read_labels, write
from samaritan.models import create_model
from samaritan.volume import LabelMap, Volume


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan, a picture, and weights for both dimensions."""
    root = tmp_path_factory.mktemp("segment")
    rng = np.random.default_rng(0)
    grid = Grid.from_spacing((30, 28, 20), (1.5, 1.5, 3.0), orientation="LPI", origin_mm=(9, -4, 2))
    write(Volume(rng.integers(0, 300, grid.shape).astype(np.int16), grid), root / "scan.nii.gz")
    pixels = rng.integers(0, 256, (40, 60, 1, 3)).astype(np.uint8)
    write(Volume(pixels, Grid.pixels((40, 60)), channels=("R", "G", "B")), root / "picture.png")
    for name in ("sam_tiny", "sam3d_tiny"):
        torch.manual_seed(1)
        save_weights(create_model(name), root / f"{name}.safetensors")
    return root


@pytest.mark.parametrize("model", ["sam_tiny", "sam3d_tiny"])
def test_the_mask_has_the_grid_of_the_scan(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    out = tmp_path / "mask.nii.gz"
    weights = folder / f"{model}.safetensors"
    done = samaritan(
        capsys,
        "segment",
        folder / "scan.nii.gz",
        "-o",
        out,
        "-m",
        weights,
        "-p",
        "15,14,10",
        "--json",
    )
    assert done.code in (0, 3), done.err
    assert read(out).grid.same_as(read(folder / "scan.nii.gz").grid)
    summary = json.loads(done.out)
    assert summary["objects"][0]["voxels"] == int((read_labels(out).array == 1).sum())


def test_points_in_millimetres_are_the_same_points(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, weights = folder / "scan.nii.gz", folder / "sam3d_tiny.safetensors"
    at = ",".join(f"{v:.4f}" for v in read(scan).grid.index_to_mm((15, 14, 10)))
    one, two = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    samaritan(capsys, "segment", scan, "-o", one, "-m", weights, "--point", "15,14,10")
    done = samaritan(capsys, "segment", scan, "-o", two, "-m", weights, "--mm", "--point", at)
    assert done.code in (0, 3), done.err
    assert np.array_equal(read_labels(one).array, read_labels(two).array)


def test_named_prompts_become_one_label_map_with_names_and_a_picture(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture, log = tmp_path / "m.seg.nrrd", tmp_path / "m.png", tmp_path / "log.json"
    done = samaritan(
        capsys,
        *("segment", folder / "scan.nii.gz", "-o", out, "-m", folder / "sam3d_tiny.safetensors"),
        *("-p", "liver=5,5,5", "-p", "liver=9,9,9:-", "-b", "spleen=15,15,10,25,25,15"),
        *("--picture", picture, "--save-session", log),
    )
    assert done.code in (0, 3), done.err
    assert set(read_labels(out).names.values()) == {"liver", "spleen"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again.seg.nrrd"
    samaritan(
        capsys,
        *("segment", folder / "scan.nii.gz", "-o", again, "-m", folder / "sam3d_tiny.safetensors"),
        *("--session", log),
    )
    assert np.array_equal(read_labels(out).array, read_labels(again).array)


def test_a_picture_is_pointed_at_by_row_and_column(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mask.png"
    done = samaritan(
        capsys,
        *("segment", folder / "picture.png", "-o", out, "-m", folder / "sam_tiny.safetensors"),
        *("-p", "20,30", "-b", "5,5,35,50", "--picture", tmp_path / "look.png"),
    )
    assert done.code in (0, 3), done.err
    assert read_labels(out).array.shape == (40, 60, 1)


def test_everything_is_labelled(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "all.png"
    weights = folder / "sam_tiny.safetensors"
    done = samaritan(
        capsys, "segment", folder / "picture.png", "-o", out, "-m", weights, "--everything"
    )
    assert done.code in (0, 3), done.err
    assert out.exists()


def test_a_mask_alone_is_refined(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = read(folder / "scan.nii.gz").grid
    drawn = np.zeros(grid.shape, np.uint8)
    drawn[5:20, 5:20, 5:15] = 1
    write(LabelMap(drawn, grid), tmp_path / "prior.nii.gz")
    done = samaritan(
        capsys,
        *(
            "segment",
            folder / "scan.nii.gz",
            "-o",
            tmp_path / "m.nii.gz",
            "-m",
            folder / "sam3d_tiny.safetensors",
        ),
        *("--mask", tmp_path / "prior.nii.gz"),
    )
    assert done.code in (0, 3), done.err


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ((), 2, "say what to segment"),
        (("-p", "1,2,3", "--everything"), 2, "needs no prompts"),
        (("-p", "1,2,300"), 1, "lies outside the image"),
        (("-p", "one"), 1, "is not understood"),
        (("-b", "1,1,1,9,1,9"), 1, "no size"),
        (("-b", "1,1"), 1, "is not understood"),
        (("-p", "1,2"), 1, "needs three indices"),
        (("-p", "1,2,3", "--axis", "7"), 1, "slice axis"),
        (("-p", "1,2,3", "--window", "5"), 1, "low,high"),
        (("-p", "1,2,3", "--precision", "int3"), 1, "precision is one of"),
        (("-p", "1,2,3", "--device", "abacus"), 1, "device"),
        (("--mask", "nowhere.nii.gz"), 1, "nowhere.nii.gz"),
        (("--session", "nowhere.json"), 1, "nowhere.json"),
    ],
)
def test_bad_input_is_one_clear_message(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    code: int,
    text: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "mask.nii.gz"
    weights = folder / "sam3d_tiny.safetensors"
    done = samaritan(capsys, "segment", folder / "scan.nii.gz", "-o", out, "-m", weights, *args)
    assert done.code == code, done
    assert text in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["mask.xyz", "mask", "mask.jpg", "mask.png"])
def test_an_output_that_cannot_hold_the_mask_is_refused_before_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    done = samaritan(
        capsys,
        *(
            "segment",
            folder / "scan.nii.gz",
            "-o",
            tmp_path / output,
            "-m",
            "no such model",
            "-p",
            "1,2,3",
        ),
    )
    assert done.code == 1
    assert output in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_here_says_where_to_get_it(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAMARITAN_CACHE", str(tmp_path / "cache"))
    done = samaritan(
        capsys,
        "segment",
        folder / "scan.nii.gz",
        "-o",
        tmp_path / "m.nii.gz",
        "-m",
        "sam_vit_b",
        "-p",
        "1,2,3",
    )
    assert done.code == 1
    assert "sam_vit_b_01ec64.pth" in done.err


def test_random_weights_are_called_what_they_are(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = samaritan(
        capsys,
        *("segment", folder / "scan.nii.gz", "-o", tmp_path / "m.nii.gz", "-m", "sam3d_tiny"),
        *("--random-weights", "-p", "15,14,10"),
    )
    assert done.code in (0, 3)
    assert "means nothing" in done.err


@pytest.mark.skipif(
    not (cached("samaritan_2d") and cached("samaritan_3d")),
    reason="the weights that ship are not in this checkout",
)
@pytest.mark.parametrize(
    ("image", "prompt", "options", "model"),
    [
        ("picture.png", "10,10,30,45", (), "samaritan_2d"),
        ("scan.nii.gz", "5,5,9,20,20,11", (), "samaritan_3d"),
        ("scan.nii.gz", "5,5,9,20,20,11", ("--axis", "2"), "samaritan_2d"),
    ],
)
def test_without_a_model_the_one_that_ships_is_taken_and_told(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    image: str,
    prompt: str,
    options: tuple[str, ...],
    model: str,
) -> None:
    out = tmp_path / f"mask{''.join(Path(image).suffixes)}"
    done = samaritan(capsys, "segment", folder / image, "-o", out, "-b", prompt, *options)
    assert done.code in (0, 3), done.err
    assert f"model: {model}, which comes with the package" in done.err
    assert ("single slices" in done.err) == bool(options)
    assert "samaritan_" not in done.out
    if options:
        found = np.flatnonzero(read_labels(out).array.any(axis=(0, 1)))
        assert set(found) <= {9, 10}


def test_a_named_model_is_not_talked_about(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = folder / "sam_tiny.safetensors"
    done = samaritan(
        capsys,
        *("segment", folder / "picture.png", "-o", tmp_path / "m.png", "-m", weights, "-p", "9,9"),
    )
    assert "comes with the package" not in done.err


def test_objects_are_redrawn_in_stages(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, weights = tmp_path / "log.json", folder / "sam3d_tiny.safetensors"
    typed = ["segment", folder / "scan.nii.gz", "-o", tmp_path / "mask.nii.gz", "-m", weights]
    typed += ["-p", "a=15,14,10", "-p", "b=5,6,7", "--refine", "2", "--save-session", log]
    done = samaritan(capsys, *typed)
    assert done.code in (0, 3), done.err
    events = json.loads(log.read_text())["events"]
    assert [(e["event"], e["object"]) for e in events] == [
        *[("click", "a"), ("click", "b")],
        *[("refine", "a")] * 2,
        *[("refine", "b")] * 2,
    ]


@pytest.mark.parametrize("chosen", [("--channel", "1"), ("--channel", "frame 1"), ("--frame", "1")])
def test_one_frame_of_many_is_picked_by_number_or_name(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: tuple[str, str]
) -> None:
    scan = tmp_path / "frames.nii.gz"
    frames = np.random.default_rng(0).integers(0, 300, (20, 18, 16, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(frames, np.diag([2.0, 2.0, 2.0, 1.0])), scan)
    typed = ["segment", scan, "-m", folder / "sam3d_tiny.safetensors", "-p", "9,9,9", "--json"]
    refused = samaritan(capsys, *typed, "-o", tmp_path / "none.nii.gz")
    assert refused.code == 1
    assert "--frame or --channel" in " ".join(refused.err.split())
    done = samaritan(capsys, *typed, "-o", tmp_path / "mask.nii.gz", *chosen)
    assert done.code in (0, 3), done.err
    assert read_labels(tmp_path / "mask.nii.gz").shape == (20, 18, 16)
