"""Prompts from files: both kinds ask the same, mistakes are told all at once, saved sessions are replayed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from samaritan.assembly import create_model
from samaritan.errors import FileError, PromptError
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.infer.batch import predict_cases
from samaritan.infer.inputs import find_cases
from samaritan.infer.prompt_files import read_prompts
from samaritan.io import read_labels, write
from samaritan.volume import LabelMap, Volume

GRID = Grid.from_spacing((16, 14, 5), (1.0, 1.0, 4.0), orientation="LPS", origin_mm=(5, 6, 7))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    return Predictor(create_model("sam_tiny"), device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    for name in ("p01_0000", "p02_0000"):
        voxels = rng.integers(0, 900, GRID.shape).astype(np.int16)
        write(Volume(voxels, GRID), folder / f"{name}.nii.gz")
    return folder


def wrote(tmp_path: Path, content: object, name: str = "prompts") -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path = tmp_path / f"{name}{'.csv' if isinstance(content, str) else '.json'}"
    path.write_text(text, "utf-8")
    return path


def masks(predictor: Predictor, images: Path, path: Path, out: Path, **options) -> dict:
    prompts = read_prompts(path, **options)
    done = predict_cases(predictor, find_cases(images), out, prompts=prompts).done
    return {case: read_labels(file) for case, file in done.items()}


CSV = """case,object,kind,i,j,k,i1,j1,k1
p01,liver,point,8,7,2,,,
p01,liver,negative,2,2,2,,,
p01,spleen,box,3,3,1,9,9,3
"""
JSON = {
    "p01": {
        "liver": {"points": [[8, 7, 2], [2, 2, 2]], "labels": [1, 0]},
        "spleen": {"box": [[3, 3, 1], [9, 9, 3]]},
    }
}


def test_both_kinds_and_a_session_ask_the_same(predictor, images, tmp_path) -> None:
    case = find_cases(images).cases[0]
    session = predictor.session(Volume(_voxels(images, case), GRID))
    session = session.click((8, 7, 2), object="liver")
    session = session.click((2, 2, 2), positive=False, object="liver")
    session = session.box((3, 3, 1), (9, 9, 3), object="spleen")
    saved = session.to_dict()
    files = {
        "csv": CSV,
        "json": JSON,
        "sessions": [{"case": "p01_0000.nii.gz", **saved}],
        "one": {"p01": saved},
    }
    for name, content in files.items():
        found = masks(predictor, images, wrote(tmp_path, content, name), tmp_path / f"out_{name}")
        assert set(found) == {"p01"}
        assert found["p01"].names == {1: "liver", 2: "spleen"}
        assert np.array_equal(found["p01"].array, session.mask.array)
        assert found["p01"].grid.same_as(GRID)


def _voxels(images: Path, case) -> np.ndarray:
    from samaritan.io import read

    return read(images / case.images[0]).array


def test_millimetres_are_the_same_places(predictor, images, tmp_path) -> None:
    point = GRID.index_to_mm((8, 7, 2)).tolist()
    ends = np.array([GRID.index_to_mm((2.5, 2.5, 0.5)), GRID.index_to_mm((8.5, 8.5, 2.5))])
    low, high = ends.min(axis=0).tolist(), ends.max(axis=0).tolist()
    row = "p01,{},{},{}\n"
    csv = "case,object,kind,x,y,z,x1,y1,z1\n" + row.format(
        "liver", "point", ",".join(f"{v}" for v in point)
    )
    csv += row.format("spleen", "box", ",".join(f"{v}" for v in [*low, *high]))
    mm = {
        "p01": {
            "liver": {"points": [point], "unit": "mm"},
            "spleen": {"box": [low, high], "unit": "mm"},
        }
    }
    index = {"p01": {"liver": {"points": [[8, 7, 2]]}, "spleen": JSON["p01"]["spleen"]}}
    bare = {
        "p01": {name: {k: v for k, v in o.items() if k != "unit"} for name, o in mm["p01"].items()}
    }
    wanted = masks(predictor, images, wrote(tmp_path, index, "index"), tmp_path / "o1")["p01"]
    for n, content in enumerate((csv, mm)):
        found = masks(predictor, images, wrote(tmp_path, content), tmp_path / f"mm{n}")["p01"]
        assert np.array_equal(found.array, wanted.array)
    found = masks(predictor, images, wrote(tmp_path, bare), tmp_path / "mm2", mm=True)["p01"]
    assert np.array_equal(found.array, wanted.array)


def test_a_mask_is_redrawn_or_corrected(predictor, images, tmp_path) -> None:
    drawn = np.zeros(GRID.shape, np.uint8)
    drawn[4:10, 4:10, 2] = 1
    write(LabelMap(drawn, GRID), tmp_path / "prior.nii.gz")
    csv = "case,object,kind,file\np02,tumour,mask,prior.nii.gz\n"
    found = masks(predictor, images, wrote(tmp_path, csv), tmp_path / "out")
    assert found["p02"].names == {1: "tumour"}
    assert not found["p02"].array[:, :, [0, 1, 3, 4]].any()


def test_everything_that_is_wrong_is_told_at_once_with_its_line(
    predictor, images, tmp_path
) -> None:
    csv = """case,object,kind,i,j,k,i1,j1,k1,unit,file
p01,liver,point,8,7,2
p1,liver,point,8,7,2
p01,liver,point,8,7,99
p01,liver,negative,eight,7,2
p01,liver,click,8,7,2
p01,liver,box,3,3,1,3,9,3
p01,liver,box,3,3,1
p02,liver,mask,,,,,,,,nowhere.nii.gz
p02,liver,point,nan,2,3
,liver,point,1,2,3
p02,liver,point,1,2,3,,,,inch
p02,liver,point,1,2,3,,,,,,,
"""
    with pytest.raises(PromptError) as caught:
        masks(predictor, images, wrote(tmp_path, csv), tmp_path / "out")
    text = str(caught.value)
    for line, why in {
        3: "there is no case 'p1'. Did you mean 'p01'",
        4: "point (8, 7, 99) lies outside the image",
        5: "i = 'eight' is no finite number",
        6: "kind 'click' is not known",
        7: "has no size",
        8: "a box needs i, j, k, i1, j1, k1",
        9: "there is no file",
        10: "i = 'nan' is no finite number",
        11: "the case is missing",
        12: "unit 'inch' is not known",
        13: "more values than columns",
    }.items():
        assert f"line {line}: " in text
        assert why in text
    assert "(11 problems)" in text
    assert not (tmp_path / "out").exists()


def test_json_tells_the_place_of_each_mistake(predictor, images, tmp_path) -> None:
    content = {
        "p01": {
            "liver": {"points": [[1, 2, 3], [1, "b", 3]], "labels": [1, 1]},
            "spleen": {"points": [[1, 2, 3]], "labels": [2]},
            "kidney": {"point": [1, 2, 3]},
            "aorta": {"box": [[1, 2, 3]]},
            "lung": {"points": [[1, 2, 3]], "labels": []},
        },
        "p02": [],
    }
    with pytest.raises(PromptError) as caught:
        masks(predictor, images, wrote(tmp_path, content), tmp_path / "out")
    text = str(caught.value)
    for place in (
        "p01 / liver / point 1: expected two or three finite numbers, got [1, 'b', 3]",
        "p01 / spleen / point 0: a label is 1 or 0, got 2",
        "p01 / kidney: expected an object with points",
        "p01 / aorta / box 0: expected [[i, j, k], [i, j, k]]",
        "p01 / lung: 1 points need as many labels",
        "p02: expected objects by name, or a session",
    ):
        assert place in text


def test_what_is_no_list_of_prompts_is_told(predictor, images, tmp_path) -> None:
    with pytest.raises(FileError, match="is not JSON"):
        read_prompts(wrote(tmp_path, "{oh", "broken"))
    with pytest.raises(FileError, match="cannot be read as text"):
        read_prompts(tmp_path / "missing.csv")
    for content, why in (
        ("", "expected case and kind"),
        ("name,x\na,1\n", "not known: name"),
        ("case,kind,i,j,k,x,y,z\n", "not both"),
        ("case,kind,i,j,k\n", "it asks nothing"),
        ([{"case": "p01"}], "entry 0: expected a saved session"),
    ):
        with pytest.raises(PromptError, match=why):
            masks(predictor, images, wrote(tmp_path, content), tmp_path / "out")


def test_a_session_of_another_image_is_told(predictor, images, tmp_path) -> None:
    other = Volume(np.zeros((4, 5, 6), np.int16), Grid.from_spacing((4, 5, 6), (1, 1, 1)))
    saved = predictor.session(other).click((1, 1, 1)).to_dict()
    with pytest.raises(PromptError, match="p01: grids of image and session differ"):
        masks(predictor, images, wrote(tmp_path, {"p01": saved}), tmp_path / "out")
    with pytest.raises(PromptError, match="a session of one image, and there are 2"):
        masks(predictor, images, wrote(tmp_path, saved), tmp_path / "out")


def test_pictures_need_two_numbers_and_semicolons_do(predictor, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 1)).astype(np.uint8)
    write(Volume(pixels, Grid.pixels((20, 30))), tmp_path / "images" / "a.png")
    csv = "case;kind;i;j\na.png;point;10;12\n"
    found = masks(predictor, tmp_path / "images", wrote(tmp_path, csv), tmp_path / "out")
    assert found["a"].shape == (20, 30, 1)
    mm = {"a": {"x": {"points": [[1, 2, 0]], "unit": "mm"}}}
    with pytest.raises(PromptError, match="has no millimetres"):
        masks(predictor, tmp_path / "images", wrote(tmp_path, mm), tmp_path / "out2")


def test_prompts_that_changed_are_answered_again(predictor, images, tmp_path) -> None:
    both = CSV + "p02,liver,point,5,5,3,,,\n"
    masks(predictor, images, wrote(tmp_path, both), tmp_path / "out")
    moved = wrote(tmp_path, both.replace("5,5,3", "6,6,3"))
    outcome = predict_cases(
        predictor, find_cases(images), tmp_path / "out", prompts=read_prompts(moved)
    )
    assert (set(outcome.there), set(outcome.done)) == ({"p01"}, {"p02"})
