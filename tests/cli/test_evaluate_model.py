"""`samaritan evaluate --model` asks a model, writes a report, and tells what is wrong with its input."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cli.run import samaritan
from evaluation.pictures_of import disc, write_set
from train.volume_toys import folder

from samaritan.assembly import create_model
from samaritan.checkpoints import save_weights
from samaritan.data import load_manifest


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    save_weights(create_model("sam_tiny", image_size=64), folder / "tiny.safetensors")
    classes = create_model("samed_tiny", num_classes=2, image_size=64)
    save_weights(classes, folder / "classes.safetensors")
    return folder


@pytest.fixture
def data(tmp_path):
    """Two sets of two pictures."""
    for name, radius in (("hearts", 8), ("livers", 14)):
        masks = {f"{name}{i}": disc((30 + i, 30), radius) for i in range(2)}
        write_set(tmp_path / "data" / name, masks)
    return tmp_path / "data"


def told(capsys, tmp_path, *options):
    done = samaritan(capsys, "evaluate", *options, "-o", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_model_on_data_becomes_a_report(capsys, models, data, tmp_path) -> None:
    options = ("--model", models / "tiny.safetensors", "--data", data, "--device", "cpu")
    found = told(
        capsys, tmp_path, *options, "--clicks", 2, "--points", "1,3", "--baseline", "ellipse",
        "--prompts", "box,points,clicks,box+clicks", "--pictures", 1,
    )  # fmt: skip
    groups = {(g["key"]["group"], g["key"]["prompt"], g["key"]["clicks"]) for g in found["groups"]}
    for name in ("hearts", "livers"):
        assert {(name, "ellipse", None), (name, "box", None), (name, "points", 3)} <= groups
        assert {(name, "clicks", 2), (name, "box+clicks", 0), (name, "box+clicks", 2)} <= groups
    means = {(m["key"]["prompt"], m["key"]["clicks"]): m["stats"] for m in found["mean_of_groups"]}
    assert means["ellipse", None]["dice"]["mean"] > 0.9
    assert set(found["median_seconds"]) == {"opening", "encoding", "answer", "once_encoded"}
    assert found["iou_estimate"][0]["n"] == 4 * (1 + 2 + 2 + 3)
    assert "prompts box, points, clicks, box+clicks" in found["facts"]["asked"]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for words in ("Dice at a glance", "mean of data sets", "The model about itself", "<figure>"):
        assert words in page
    rows = (tmp_path / "out" / "cases.csv").read_text("utf-8").splitlines()
    assert "predicted_iou,seconds" in rows[0]
    assert len(rows) == 1 + 4 * (1 + 1 + 2 + 2 + 3)


def test_a_part_of_the_data_gives_the_same_numbers(capsys, models, data, tmp_path) -> None:
    options = ("--model", models / "tiny.safetensors", "--clicks", 2, "--prompts", "clicks,points")
    whole = told(capsys, tmp_path, *options, "--data", data)
    part = told(capsys, tmp_path, *options, "--data", data, "--limit", 1, "--group-by", "none")
    assert len({case["case"] for case in read_rows(tmp_path)}) == 2
    assert "groups" in whole
    assert "groups" not in part
    manifest = load_manifest(data).split({"train": 0.5, "test": 0.5})
    file = manifest.write(tmp_path / "manifest.json")
    told(capsys, tmp_path, *options, "--data", file, "--split", "test")
    assert {case["case"] for case in read_rows(tmp_path)} == {
        case.id for case in manifest if case.split == "test"
    }


def read_rows(tmp_path):
    return json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["cases"]


def test_a_table_is_printed(capsys, models, data, tmp_path) -> None:
    done = samaritan(
        capsys, "evaluate", "-m", models / "tiny.safetensors", "-d", data, "-o", tmp_path / "out",
        "--clicks", 1, "--prompts", "box,clicks",
    )  # fmt: skip
    assert done.code == 0, done.err
    for words in ("data set", "box", "click", "hearts", "mean of data sets", "report.html"):
        assert words in done.out
    for title in ("Dice", "surface Dice", "HD95 (px)", "Median time"):
        assert title in done.out


def test_volumes_get_curves_by_structure(capsys, tmp_path) -> None:
    torch.manual_seed(0)
    save_weights(create_model("sam3d_tiny"), tmp_path / "tiny.safetensors")
    data = folder(tmp_path, count=2)
    options = ("-m", tmp_path / "tiny.safetensors", "-d", data, "-o", tmp_path / "out")
    done = samaritan(
        capsys, "evaluate", *options, "--clicks", 3, "--ceiling", "--pictures", 1, "--limit", 1
    )
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    for words in ("ball", "bar", "HD95 (mm)", "surface Dice", "ceiling", "once all is encoded"):
        assert words in text
    keys = {
        (s["key"]["prompt"], s["key"]["clicks"], s["name"])
        for s in json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["labels"]
    }
    for name in ("ball", "bar"):
        assert {("clicks", n, name) for n in (1, 2, 3)} < keys
        assert {("box", None, name), ("ceiling", None, name)} < keys
    assert not any(prompt == "points" for prompt, _, _ in keys)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Scores against clicks" in page
    assert "<figure>" in page
    lines = (tmp_path / "out" / "summary.csv").read_text("utf-8").splitlines()
    assert not lines[0].startswith("protocol")
    assert any("ceiling of one window" in line for line in lines)


def test_models_without_prompts_label_the_images(capsys, models, data, tmp_path) -> None:
    options = ("--model", models / "classes.safetensors", "--data", data)
    found = told(capsys, tmp_path, *options)
    assert {g["key"]["label"] for g in found["groups_and_labels"]} == {1, 2}
    assert "<figure>" in (tmp_path / "out" / "report.html").read_text("utf-8")
    found = told(capsys, tmp_path, *options, "--protocol", "samed")
    assert set(found["overall"][0]["stats"]) == {"dice", "hd95_voxels"}


def test_sam_med2d_is_reproduced(capsys, models, data, tmp_path) -> None:
    options = ("--model", models / "tiny.safetensors", "--data", data, "--clicks", 2)
    found = told(capsys, tmp_path, *options, "--protocol", "sam_med2d")
    assert {"dice", "iou", "predicted_iou", "seconds"} <= set(found["overall"][0]["stats"])
    values = [case["values"]["dice"] for case in read_rows(tmp_path)]
    assert values == [round(value, 4) for value in values]


def test_a_bad_case_is_told_and_the_others_are_reported(capsys, models, data, tmp_path) -> None:
    (data / "hearts" / "images" / "hearts0.png").write_bytes(b"garbage")
    done = samaritan(
        capsys, "evaluate", "-m", models / "tiny.safetensors", "-d", data, "-o", tmp_path / "out",
        "--clicks", 1, "--json",
    )  # fmt: skip
    assert done.code == 1
    assert "1 case could not be measured" in done.err
    assert "hearts0" in done.err
    assert list(json.loads(done.out)["problems"]) == ["hearts/hearts0"]


def test_cases_without_labels_are_left_out_and_counted(capsys, models, data, tmp_path) -> None:
    manifest = load_manifest(data)
    for name, kept in (("one", 3), ("none", 0)):
        cases = [c if i < kept else replace(c, labels=()) for i, c in enumerate(manifest)]
        replace(manifest, cases=tuple(cases)).write(tmp_path / f"{name}.json")
    options = ("evaluate", "-m", models / "tiny.safetensors", "--clicks", 1, "-o", tmp_path / "out")
    done = samaritan(capsys, *options, "-d", tmp_path / "one.json")
    assert done.code == 0, done.err
    assert "1 of 4 cases have no labels and are left out" in done.err
    assert len({row["case"] for row in read_rows(tmp_path)}) == 3
    refused = samaritan(capsys, *options, "-d", tmp_path / "none.json")
    assert refused.code == 1
    assert "none of the 4 cases has labels to measure against" in refused.err


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ((), 2, "say what to measure: two folders"),
        (("DATA",), 2, "say what to measure: two folders"),
        (("DATA", "DATA", "--protocol", "m_sam"), 2, "--protocol m_sam asks a model"),
        (("-m", "MODEL", "-d", "DATA", "--protocol", "x"), 1, "cvpr25, sam_med3d_2024, neurosam3d"),
        (("-m", "MODEL", "-d", "DATA", "--protocol", "m_sam"), 1, "is a 2D model"),
        (("-m", "MODEL"), 2, "--data is missing"),
        (("-d", "DATA"), 2, "--model is missing"),
        (("DATA", "DATA", "-m", "MODEL", "-d", "DATA"), 2, "not two folders as well"),
        (("-m", "MODEL", "-d", "DATA", "--resample"), 2, "--resample: for two folders"),
        (("-m", "nowhere.pth", "-d", "DATA"), 1, "nowhere.pth"),
        (("-m", "MODEL", "-d", "nowhere"), 1, "nowhere does not exist"),
        (("-m", "MODEL", "-d", "DATA", "--prompts", "scribbles"), 1, "'scribbles' is not known"),
        (("-m", "MODEL", "-d", "DATA", "--points", "0"), 1, "expected whole numbers"),
        (("-m", "MODEL", "-d", "DATA", "--objects", "x"), 1, "objects: 'x' is not known"),
        (("-m", "MODEL", "-d", "DATA", "--baseline", "x"), 1, "there is: ellipse"),
        (("-m", "MODEL", "-d", "DATA", "--group-by", "x"), 1, "set, modality, split, none"),
        (("-m", "MODEL", "-d", "DATA", "--split", "test"), 1, "no case is in part 'test'"),
        (("-m", "MODEL", "-d", "DATA", "--min-size", "9999"), 1, "holds no object to ask for"),
        (("-m", "MODEL", "-d", "DATA", "--protocol", "samed"), 1, "this one answers prompts"),
        (("-m", "CLASSES", "-d", "DATA", "--protocol", "sam_med2d"), 1, "this one has none"),
        (("-m", "CLASSES", "-d", "DATA", "--prompts", "box"), 1, "takes no prompts"),
    ],
)
def test_bad_options_are_told_and_leave_nothing(
    capsys, models, data, tmp_path, options, code, text
) -> None:
    words = {
        "MODEL": models / "tiny.safetensors", "CLASSES": models / "classes.safetensors",
        "DATA": data,
    }  # fmt: skip
    typed = [words.get(option, option) for option in options]
    done = samaritan(capsys, "evaluate", *typed, "-o", tmp_path / "out")
    assert done.code == code, done.err
    assert text in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_real_pictures_are_asked_and_measured(capsys, models, data_dir, tmp_path) -> None:
    nuclei = data_dir / "images2d" / "dsb2018_nuclei"
    options = ("--limit", 1, "--max-objects", 2, "--clicks", 1, "--points", 1, "--pictures", 1)
    found = told(
        capsys, tmp_path, "-m", models / "tiny.safetensors", "-d", nuclei, *options,
        "--baseline", "ellipse",
    )  # fmt: skip
    ellipse = [s for s in found["overall"] if s["key"]["prompt"] == "ellipse"]
    assert ellipse[0]["n_found"] == 2
    assert np.isfinite(ellipse[0]["stats"]["dice"]["mean"])
