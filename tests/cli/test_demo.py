"""The demonstration shows what it promises, in a folder in which it replaces nothing of others."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pydicom.examples
import pytest
from cli.run import Done, samaritan

from samaritan.checkpoints import cached
from samaritan.cli.demo import NAMES
from samaritan.cli.demo_folder import NOTE, check_folder, filling
from samaritan.cli.demo_pointing import Click, Wish, worst
from samaritan.cli.demo_scenes import computed, scan
from samaritan.cli.demo_volume import computed_volume
from samaritan.errors import FileError
from samaritan.io import read, read_labels
from samaritan.metrics import dice

shipped = pytest.mark.skipif(
    None in (cached("samaritan_2d"), cached("samaritan_3d")),
    reason="the weights of samaritan_2d and samaritan_3d are not in this checkout",
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, Path]:
    """One run of the demonstration, for all tests that look at what it left."""
    folder = tmp_path_factory.mktemp("demo") / "deep" / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("COLUMNS", "60")
        done = _captured("demo", "-o", folder)
    assert done.code == 0, done.err
    return done, folder


def _captured(*args: object) -> Done:
    """Run a command where no test captures what is printed."""

    class Capture:
        def __init__(self) -> None:
            self.out, self.err = io.StringIO(), io.StringIO()

        def readouterr(self) -> tuple[str, str]:
            return self.out.getvalue(), self.err.getvalue()

    capture = Capture()
    with contextlib.redirect_stdout(capture.out), contextlib.redirect_stderr(capture.err):
        return samaritan(capture, *args)  # type: ignore[arg-type]


@shipped
def test_masks_lie_on_the_grids_of_their_images(shown: tuple[Done, Path]) -> None:
    _, folder = shown
    assert {path.name for path in folder.iterdir()} == {*NAMES, NOTE}
    for name in ("scan", "phantom", "volume"):
        image, mask = (folder / f"demo_{name}{end}.nii.gz" for end in ("", "_mask"))
        assert read_labels(mask).grid.same_as(read(image).grid)
        assert (folder / f"demo_{name}.png").read_bytes().startswith(b"\x89PNG")


@shipped
def test_the_tables_tell_what_lies_in_the_files(shown: tuple[Done, Path]) -> None:
    done, folder = shown
    told = json.loads((folder / NOTE).read_text())
    for scene in told["scenes"]:
        mask = read_labels(folder / f"demo_{scene['name']}_mask.nii.gz")
        pixels = {name: int((mask.array == value).sum()) for value, name in mask.names.items()}
        assert set(pixels) == {found["name"] for found in scene["objects"]}
        for found in scene["objects"]:
            assert 0 < pixels[found["name"]] <= found["pixels"]  # less where objects overlap
            row = next(line for line in done.out.splitlines() if f"{found['pixels']:,}" in line)
            assert found["name"] in row
            assert found["prompt"] in row
            assert (found["dice"] is None) == (scene["name"] == "scan")
    for column in ("object", "prompt", "pixels", "cm2", "quality", "Dice", "seconds"):
        assert column in done.out


@shipped
def test_dice_is_that_of_the_known_answer(shown: tuple[Done, Path]) -> None:
    _, folder = shown
    scenes = json.loads((folder / NOTE).read_text())["scenes"]
    mask = read_labels(folder / "demo_phantom_mask.nii.gz")
    made = computed()
    values = {name: value for value, name in mask.names.items()}
    for found in scenes[-1]["objects"]:
        measured = dice(mask.array == values[found["name"]], made.reference(found["name"]))
        assert measured == pytest.approx(found["dice"], abs=0.03)
        assert found["dice"] > 0.6, "the model does not see what it is pointed at"


@shipped
def test_the_volume_is_told_truly_and_replayed_from_its_log(
    shown: tuple[Done, Path], tmp_path: Path
) -> None:
    done, folder = shown
    told = json.loads((folder / NOTE).read_text())["volume"]
    assert told["model"] == "samaritan_3d"
    mask = read_labels(folder / "demo_volume_mask.nii.gz")
    assert min(mask.grid.shape) > 90
    values, made = {name: value for value, name in mask.names.items()}, computed_volume()
    assert set(values) == {found["name"] for found in told["objects"]} > {"liver", "lesion"}
    for found in told["objects"]:
        inside = mask.array == values[found["name"]]
        measured = dice(inside, made.reference(found["name"]))
        assert measured == pytest.approx(found["dice"], abs=0.02)  # differs where objects overlap
        assert found["dice"] > 0.85, "the model does not see what it is pointed at"
        assert found["dice"] > found["dice_first"], "a click on what is wrong helps"
        volume_ml = found["voxels"] * mask.grid.voxel_volume_mm3 / 1000
        assert found["volume_ml"] == pytest.approx(volume_ml)
        row = next(line for line in done.out.splitlines() if f"{found['voxels']:,}" in line)
        for text in (found["name"], found["prompt"], f"{found['dice_first']:.3f}"):
            assert text in row
    out = tmp_path / "again.nii.gz"
    image, log = folder / "demo_volume.nii.gz", folder / "demo_volume.json"
    again = _captured("segment", image, "-o", out, "--session", log)
    assert again.code == 0, again.err
    assert "samaritan_3d" in again.err
    assert np.array_equal(read_labels(out).array, mask.array)
    words = [line.split() for line in done.out.splitlines() if "--point lesion=" in line]
    assert str(image) in words[0]
    points = [word for word in words[0] if word.startswith("lesion=")]
    lesion = _captured("segment", image, "-o", out, *("-p " + " -p ".join(points)).split())
    (found,) = (one for one in told["objects"] if one["name"] == "lesion")
    assert f"lesion: {found['voxels']} voxels" in lesion.out


def test_the_lesion_of_the_volume_is_one_of_many() -> None:
    scene = computed_volume()
    answer = scene.answer
    assert answer is not None
    (other,) = (value for value, name in answer.names.items() if name == "other lesions")
    lesion = scene.reference("lesion")
    assert 50 < lesion.sum() < (answer.array == other).sum()
    assert scene.at is not None
    assert lesion[:, :, scene.at[2]].any()


@shipped
def test_pictures_are_named_with_their_source_and_licence(shown: tuple[Done, Path]) -> None:
    done, _ = shown
    text = " ".join(done.out.split())
    assert "The volume is a computed MR volume of no patient" in text
    assert re.search(r"real MR slice .*pydicom [\d.]+ \(MIT licence\)", text)
    assert "The phantom is a computed CT slice of no patient" in text
    assert "Apache-2.0" in text


@shipped
def test_the_session_is_undone_and_replayed(
    shown: tuple[Done, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, folder = shown
    steps = json.loads((folder / NOTE).read_text())["session"]
    assert [step["prompt"].split(":")[0] for step in steps] == ["box", "click", "correct", "undo"]
    assert steps[3]["pixels"] == steps[1]["pixels"]
    assert steps[1]["dice"] > steps[0]["dice"] - 0.02, "a click on what is wrong does no harm"
    out = tmp_path / "again.nii.gz"
    again = _captured(
        *("segment", folder / "demo_phantom.nii.gz", "-o", out),
        *("--session", folder / "demo_session.json", "--json"),
    )
    assert again.code == 0, again.err
    assert json.loads(again.out)["objects"][0]["voxels"] == steps[3]["pixels"]
    lines = [line.strip() for line in done.out.splitlines() if "import samaritan" in line]
    lines += re.findall(r"^  ((?:predictor =|session =|samaritan\.write).*)$", done.out, re.M)
    assert len(lines) == 4
    monkeypatch.chdir(tmp_path)
    exec("\n".join(lines), {})
    assert np.array_equal(read_labels(tmp_path / "mask.nii.gz").array, read_labels(out).array)


@shipped
def test_a_second_run_replaces_its_own_files_only(
    shown: tuple[Done, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shown[1], folder)
    (folder / "mine.txt").write_text("mine")
    monkeypatch.setattr("samaritan.cli.demo_volume._ASKED", {"liver": "box", "lesion": "box"})
    done = samaritan(capsys, "demo", "-o", folder, "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["files"]) == len(NAMES)
    assert (folder / "mine.txt").read_text() == "mine"
    (folder / "demo_scan.png").write_text("drawn by hand")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = samaritan(capsys, "demo", "-o", folder)
    assert done.code == 1
    assert "demo_scan.png" in done.err
    assert "--output" in done.err
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    done = samaritan(capsys, "demo", "-o", tmp_path / "file")
    assert (done.code, "is a file" in done.err) == (1, True)
    done = samaritan(capsys, "demo", "-o", tmp_path / "file" / "below")
    assert done.code == 1
    assert "cannot be written" in done.err
    assert "Traceback" not in done.err
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o555)
        done = samaritan(capsys, "demo", "-o", tmp_path / "locked")
        assert done.code == 1
        assert "Permission denied" in done.err
    else:
        done = samaritan(capsys, "demo", "-o", "/proc/samaritan")
        assert done.code == 1
        assert "/proc/samaritan cannot be written" in done.err


def test_nothing_is_left_where_filling_fails(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"

    def fail() -> None:
        with filling(folder, {}, ("one",)) as temporary:
            (temporary / "one").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_between_files_may_be_run_again(tmp_path: Path) -> None:
    def fill(*texts: str) -> None:
        with filling(tmp_path, {}, ("one", "two")) as temporary:
            for name, text in zip(("one", "two"), texts, strict=True):
                (temporary / name).write_text(text)

    fill("1", "2")
    note = json.loads((tmp_path / NOTE).read_text())
    fill("3", "4")
    both = json.loads((tmp_path / NOTE).read_text())
    for name in ("one", "two"):
        both["files"][name] += note["files"][name]
    (tmp_path / NOTE).write_text(json.dumps(both))
    (tmp_path / "two").write_text("2")
    fill("5", "6")
    assert (tmp_path / "two").read_text() == "6"


@pytest.mark.parametrize("text", ["", "{}", '{"format": "other", "files": {}}', "[1]"])
def test_a_note_of_somebody_else_is_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / NOTE).write_text(text)
    with pytest.raises(FileError, match=r"demo\.json"):
        check_folder(tmp_path, ())
    assert (tmp_path / NOTE).read_text() == text


def test_without_the_example_of_pydicom_there_is_the_phantom_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert scan() is not None
    monkeypatch.setattr(
        pydicom.examples, "get_path", lambda name: Path("nowhere.dcm"), raising=False
    )
    assert scan() is None


def test_nothing_about_the_patient_is_taken_over() -> None:
    scene = scan()
    assert scene is not None
    assert not scene.image.meta


def test_prompts_are_told_in_words() -> None:
    on, off = Click((1, 1, 0)), Click((2, 2, 0), positive=False)
    box = ((0, 0, 0), (5, 5, 1))
    assert Wish("a", box).told == "box"
    assert Wish("a", box, (off,)).told == "box, 1 click off it"
    assert Wish("a", None, (on, on, off)).told == "2 clicks on it, 1 click off it"


def test_prompts_are_told_as_options() -> None:
    box = ((0, 0, 0), (5, 5, 1))
    wish = Wish("left kidney", box, (Click((2, 2, 0), positive=False),))
    assert wish.options == ["--box", "left kidney=0,0,0,5,5,1", "--point", "left kidney=2,2,0:-"]
    assert Wish("", None, (Click((1, 2, 3)),)).options == ["--point", "1,2,3"]


def test_clicks_go_where_most_is_missing_or_too_much() -> None:
    truth = np.zeros((9, 8, 7), bool)
    truth[1:6, 1:6, 1:6] = True
    assert worst(truth, truth) is None
    less, more = truth.copy(), truth.copy()
    less[1:4] = False
    more[6:8, 1:6, 1:6] = True
    missing, extra = worst(less, truth), worst(more, truth)
    assert missing is not None
    assert missing.positive
    assert extra is not None
    assert not extra.positive
    assert (truth & ~less)[missing.at]
    assert (more & ~truth)[extra.at]
