"""Results that are on disk are scored as the challenge does, whichever of its evaluators left them."""

from __future__ import annotations

import csv
import itertools
import json
import math

import numpy as np
import pytest
import torch
from cli.run import samaritan

from samaritan.assembly import create_model
from samaritan.checkpoints import save_weights
from samaritan.errors import CorruptFile, GridMismatch
from samaritan.evaluation import match
from samaritan.evaluation.comparing import Settings
from samaritan.evaluation.cvpr25_scores import challenge_sheets
from samaritan.evaluation.cvpr25_stored import compare_rounds, rounds_of
from samaritan.io.npz_prompts import SliceBox
from samaritan.metrics import dice, get_protocol, surface_dice

SHAPE = (6, 14, 16)
SPACING = (2.5, 1.0, 1.0)
OURS = get_protocol("cvpr25")


def truth() -> np.ndarray:
    gts = np.zeros(SHAPE, np.uint8)
    gts[1:5, 2:9, 3:10], gts[2:5, 10:13, 11:15] = 1, 3
    return gts


def better_and_better() -> list[np.ndarray]:
    """Six answers: ever more of the truth."""
    found = []
    for n in range(6):
        answer = truth()
        answer[:, :, : 8 - n] = 0
        found.append(answer)
    return found


def write(folder, name, **arrays):
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


@pytest.fixture
def folders(tmp_path):
    gts, answers = truth(), better_and_better()
    for name in ("a", "b", "c"):
        write(tmp_path / "gts", name, gts=gts, spacing=SPACING, imgs=gts * 50)
    write(tmp_path / "segs", "a", segs=answers[-1], all_segs=answers)
    # without a box, and as the published evaluator stores: the answer before, then the answer
    pairs = [x for pair in zip([gts * 0, *answers[1:-1]], answers[1:], strict=True) for x in pair]
    write(tmp_path / "segs", "b", segs=answers[-1], all_segs=pairs)
    return tmp_path


def test_all_rounds_are_scored(folders) -> None:
    found = compare_rounds(match(folders / "segs", folders / "gts"), Settings("cvpr25"), OURS)
    assert not found.problems
    assert found.notes == ("c has no prediction: its objects are missed.",)
    cases, _ = challenge_sheets(found.rows)
    a, b, c = cases.rows
    gts = truth()
    for n, answer in enumerate(better_and_better(), 1):
        pairs = [(answer == v, gts == v) for v in (1, 3)]
        dsc = np.mean([dice(*pair) for pair in pairs])
        nsd = np.mean([surface_dice(*p, spacing_mm=SPACING, tolerance_mm=2.0) for p in pairs])
        assert a[f"DSC_{n}"] == pytest.approx(dsc)
        assert a[f"NSD_{n}"] == pytest.approx(nsd if dsc > 0.2 else 0)
    inner = [a[f"DSC_{n}"] for n in range(2, 7)]
    assert a["DSC_AUC"] == pytest.approx(np.trapezoid(inner))
    assert b["DSC_1"] == 0
    assert [b[f"DSC_{n}"] for n in range(2, 7)] == inner
    assert c["DSC_AUC"] == c["DSC_Final"] == 0


@pytest.mark.parametrize(("count", "first"), [(6, 0), (5, 1), (11, 0), (10, 1)])
def test_rounds_are_found_in_every_way_of_storing(tmp_path, count, first) -> None:
    answers = better_and_better()[first:]
    stored = answers
    if count > 6:
        before = [answers[0]] if first == 0 else []
        again = answers if first == 0 else [answers[0] * 0, *answers]
        stored = before + [x for pair in itertools.pairwise(again) for x in pair]
    assert len(stored) == count
    path = write(tmp_path, "a", all_segs=stored)
    found = rounds_of(path, SHAPE)
    assert list(found) == list(range(first, 6))
    for n, answer in found.items():
        assert np.array_equal(answer, better_and_better()[n])


def test_what_is_no_result_is_told(tmp_path) -> None:
    assert rounds_of(write(tmp_path, "a", segs=truth()), SHAPE) is None
    with pytest.raises(CorruptFile, match="expected label maps of 6, 5, 11, 10 rounds"):
        rounds_of(write(tmp_path, "a", all_segs=better_and_better()[:3]), SHAPE)
    with pytest.raises(GridMismatch, match="do not lie on a reference of shape"):
        rounds_of(write(tmp_path, "a", all_segs=better_and_better()), (6, 14, 17))


def test_a_final_answer_alone_is_scored_as_such(folders) -> None:
    write(folders / "segs", "c", segs=better_and_better()[-1])
    found = compare_rounds(match(folders / "segs", folders / "gts"), Settings("cvpr25"), OURS)
    assert "final answer alone" in found.notes[0]
    last = challenge_sheets(found.rows)[0].rows[-1]
    assert last["DSC_Final"] > 0.9
    assert math.isnan(last["DSC_AUC"])


# -- the command -------------------------------------------------------------------------------------


def test_two_folders_become_the_challenges_table(capsys, folders) -> None:
    done = samaritan(
        capsys, "evaluate", folders / "segs", folders / "gts", "--protocol", "cvpr25", "-o", folders / "out",
        "--pictures", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "DSC AUC" in done.out
    with (folders / "out/cvpr25.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["CaseName"] for line in lines] == ["a", "b", "c"]
    assert float(lines[0]["DSC_AUC"]) > float(lines[0]["DSC_Final"]) > 0.9
    page = (folders / "out/report.html").read_text()
    assert "Scores of the challenge" in page
    told = json.loads((folders / "out/report.json").read_text())
    assert len(told["cvpr25"]) == 3
    assert [line["class"] for line in told["cvpr25_classes"]] == ["label 1", "label 3"]
    done = samaritan(
        capsys, "evaluate", folders / "segs", folders / "gts", "--protocol", "cvpr25", "-o", folders / "o2",
        "--labels", "1",
    )  # fmt: skip
    assert done.code == 1
    assert "scores all labels" in done.err


def test_a_model_becomes_the_challenges_table(capsys, tmp_path) -> None:
    torch.manual_seed(0)
    save_weights(create_model("sam3d_tiny"), tmp_path / "tiny.safetensors")
    gts = truth()
    boxes = [SliceBox.around(gts == v).to_dict() for v in (1, 3)]
    write(tmp_path / "set", "CT_a", imgs=gts * 50 + 20, gts=gts, spacing=SPACING, boxes=boxes)
    write(tmp_path / "set", "CT_b", imgs=gts * 50 + 20, gts=gts, spacing=SPACING)
    done = samaritan(
        capsys, "evaluate", "--model", tmp_path / "tiny.safetensors", "--data", tmp_path / "set",
        "--protocol",
        "cvpr25", "-o", tmp_path / "out", "--device", "cpu", "--pictures", 1,
    )  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "out/report.json").read_text())
    a, b = told["cvpr25"]
    assert (a["CaseName"], a["num_class"], a["runtime_upperbound"]) == ("CT_a", 2, 180)
    assert a["RunningTime_1"] > 0
    assert (b["RunningTime_1"], b["DSC_1"]) == (0, 0)
    assert a["TotalRunningTime"] == pytest.approx(sum(a[f"RunningTime_{n}"] for n in range(1, 7)))
    keys = {(row["prompt"], row["clicks"]) for row in told["cases"]}
    assert keys == {("box+clicks", n) for n in range(6)}
    done = samaritan(
        capsys, "evaluate", "--model", tmp_path / "tiny.safetensors", "--data", tmp_path / "set",
        "--protocol",
        "cvpr25", "-o", tmp_path / "o2", "--prompts", "points",
    )  # fmt: skip
    assert done.code == 1
    assert "--prompts box+clicks or clicks" in " ".join(done.err.split())


def test_real_volumes_are_measured(capsys, data_dir, tmp_path) -> None:
    torch.manual_seed(0)
    save_weights(create_model("sam3d_tiny"), tmp_path / "tiny.safetensors")
    done = samaritan(
        capsys, "evaluate", "--model", tmp_path / "tiny.safetensors", "--data",
        data_dir / "nnunet_raw/Dataset004_Hippocampus", "--limit", 1, "--protocol", "cvpr25", "-o",
        tmp_path / "out", "--device", "cpu", "--pictures", 0, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (case,) = json.loads(done.out)["cvpr25"]
    assert case["num_class"] == 2
    assert 0 <= case["DSC_AUC"] <= 4
