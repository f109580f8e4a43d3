"""Where nnunetv2 is installed (an environment of its own): trained there, predicted there and here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli.run import samaritan
from train.patch_toys import write_raw

from samaritan.bridges import nnunet_trainers
from samaritan.checkpoints import load_model
from samaritan.io import read_labels

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

SET, PLANNED = "Dataset007_Toy", "nnUNetPlans__3d_fullres"
REGIONS = {"background": 0, "whole": [1, 2], "square": 2}
SETTINGS = """
model: {name: NAME}
data: {per_epoch: 4, patch_size: [6, 32, 32]}
run: {epochs: 2, checkpoint_every: 2}
schedule: {warmup: 1}
validation: {batches: 2}
"""


class World:
    """Folders of nnU-Net with the toy in them, planned and preprocessed by nnU-Net."""

    def __init__(self, root: Path, labels: dict[str, Any] | None = None, **more: Any) -> None:
        from nnunetv2.experiment_planning import plan_and_preprocess_api as api

        self.root = root
        write_raw(root / "raw" / SET, labels=labels, **more)
        api.extract_fingerprints([7], num_processes=1)
        api.plan_experiments([7])
        api.preprocess([7], configurations=["3d_fullres"], num_processes=[1])

    def train(self, trainer: str, settings: str | None = None, **options: Any) -> Path:
        """Train fold 0 as nnUNetv2_train does; give the folder of its results."""
        from nnunetv2.run.run_training import run_training

        if settings is not None:
            (self.root / "mine.yaml").write_text(settings, "utf-8")
            os.environ["SAMARITAN_CONFIG"] = str(self.root / "mine.yaml")
        try:
            run_training("7", "3d_fullres", 0, trainer, device=torch.device("cpu"), **options)
        finally:
            os.environ.pop("SAMARITAN_CONFIG", None)
        return self.results(trainer)

    def results(self, trainer: str) -> Path:
        return self.root / "results" / SET / f"{trainer}__{PLANNED}"

    def predict(self, trainer: str, output: Path) -> None:
        """Predict the raw images as nnUNetv2_predict --disable_tta --save_probabilities does."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        output.mkdir(exist_ok=True)
        there = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        there.initialize_from_trained_model_folder(str(self.results(trainer)), (0,))
        there.predict_from_files_sequential(str(self.images), str(output), save_probabilities=True)

    @property
    def images(self) -> Path:
        return self.root / "raw" / SET / "imagesTr"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Iterator[Path]:
    """A folder that nnU-Net's variables point into."""
    root = tmp_path_factory.mktemp("nnunet")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(root / name))
        patch.setenv("nnUNet_extTrainer", str(Path(nnunet_trainers.__file__).parent))
        patch.setenv("nnUNet_n_proc_DA", "1")
        patch.setenv("nnUNet_def_n_proc", "1")
        yield root
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(theirs) -> World:
    made = World(theirs)
    made.train("Samaritan_masksam_small", SETTINGS.replace("NAME", "masksam_tiny"))
    return made


def test_results_are_where_nnunet_has_them_and_say_what_was_followed(world) -> None:
    folder = world.results("Samaritan_masksam_small")
    configuration = json.loads((folder / "plans.json").read_text("utf-8"))["configurations"][
        "3d_fullres"
    ]
    assert (configuration["patch_size"], configuration["batch_size"]) == ([6, 32, 32], 2)
    assert configuration["samaritan"]["model"]["options"]["frames"] == 6
    files = {path.name for path in (folder / "fold_0").iterdir()}
    assert {"checkpoint_final.pth", "checkpoint_best.pth", "last.safetensors"} <= files
    assert "checkpoint_latest.pth" not in files
    summary = json.loads((folder / "fold_0/validation/summary.json").read_text("utf-8"))
    assert set(summary["mean"]) == {"1", "2"}
    facts = json.loads((folder / "fold_0/data.json").read_text("utf-8"))
    planned = world.root / "preprocessed" / SET
    fold = json.loads((planned / "splits_final.json").read_text("utf-8"))[0]
    assert (facts["train"], facts["validate"]) == (fold["train"], fold["val"])
    before = json.loads((planned / "nnUNetPlans.json").read_text("utf-8"))
    assert "samaritan" not in before["configurations"]["3d_fullres"]


def test_both_programs_have_the_same_weights_and_answers(world, tmp_path, capsys) -> None:
    folder = world.results("Samaritan_masksam_small")
    kept = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=False)
    model, header = load_model(folder / "fold_0/last.safetensors")
    mine = model.state_dict()
    assert {k.removeprefix("model."): v.shape for k, v in kept["network_weights"].items()} == {
        k: v.shape for k, v in mine.items()
    }
    assert all(
        torch.equal(v, mine[k.removeprefix("model.")]) for k, v in kept["network_weights"].items()
    )
    assert header.extra["labels"] == {"1": "disc", "2": "square"}

    world.predict("Samaritan_masksam_small", tmp_path / "theirs")
    told = samaritan(
        capsys, "predict", world.images, tmp_path / "ours", "--model", folder, "--folds", "0", "--no-mirror",
        "--probabilities", "npz", "--device", "cpu",
    )  # fmt: skip
    assert told.code == 0, told.err
    found = sorted(path.name for path in (tmp_path / "theirs").glob("*.npz"))
    assert len(found) == 5
    for name in found:
        one, two = (np.load(tmp_path / who / name)["probabilities"] for who in ("theirs", "ours"))
        assert one.shape == two.shape == (3, 6, 28, 26)
        apart = np.abs(one - two)
        assert apart[:, 1:-1, 4:-4, 4:-4].max() < 1e-3
        assert apart.max() < 0.1  # in corners nnU-Net's float16 weights have few digits left
        assert one.std() > 0.05
        sure = np.diff(np.sort(one, axis=0)[-2:], axis=0)[0] > 0.2
        case = name.replace(".npz", ".nii.gz")
        maps = [read_labels(tmp_path / who / case).array.T for who in ("theirs", "ours")]
        assert sure.any()
        assert np.array_equal(maps[0][sure], maps[1][sure])


def test_nnunet_ensembles_its_predictions_with_ours(world, tmp_path, capsys) -> None:
    from nnunetv2.ensembling.ensemble import ensemble_folders

    folder = world.results("Samaritan_masksam_small")
    world.predict("Samaritan_masksam_small", tmp_path / "theirs")
    told = samaritan(
        capsys, "predict", world.images, tmp_path / "ours", "--model", folder, "--probabilities", "npz",
    )  # fmt: skip
    assert told.code == 0, told.err
    both = [
        str(tmp_path / "theirs"),
        str(tmp_path / "ours"),
    ]  # what is read beside .npz lies in the first
    ensemble_folders(both, str(tmp_path / "out"), save_merged_probabilities=True, num_processes=1)
    name = "patient000_frame00.npz"
    one, two, mean = (
        np.load(tmp_path / who / name)["probabilities"] for who in ("theirs", "ours", "out")
    )
    assert np.abs((one + two) / 2 - mean).max() < 1e-6
    assert np.array_equal(
        read_labels(tmp_path / "out/patient000_frame00.nii.gz").array.T, mean.argmax(axis=0)
    )


def test_a_later_command_goes_on_with_what_the_first_was_told(world) -> None:
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    args = (
        "7",
        "3d_fullres",
        0,
        "Samaritan_masksam_small",
        "nnUNetPlans",
        True,
        torch.device("cpu"),
    )
    again = get_trainer_from_args(*args)
    maybe_load_checkpoint(again, True, False)
    assert again.recipe.model.name == "masksam_tiny"
    assert (again.num_epochs, again.num_iterations_per_epoch, again.current_epoch) == (2, 2, 2)
    weights = load_model(again.folder.last)[0].state_dict()
    mine = again.network.model.state_dict()
    assert all(torch.equal(mine[key], value) for key, value in weights.items())
    steps = {float(state["step"]) for state in again.optimizer.state_dict()["state"].values()}
    assert steps == {4.0}


def test_regions_are_learned_and_predicted_by_a_unet(
    theirs, tmp_path_factory, tmp_path, monkeypatch
) -> None:
    root = tmp_path_factory.mktemp("regions")
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(root / name))
    made = World(root, REGIONS, regions_class_order=[1, 2])
    no_mirror = SETTINGS.replace("NAME", "dynunet_tiny").replace(
        "data: {", "data: {mirror: false, "
    )
    folder = made.train("Samaritan_unet_small", no_mirror)
    kept = torch.load(folder / "fold_0/checkpoint_final.pth", weights_only=False)
    assert kept["inference_allowed_mirroring_axes"] is None
    _, header = load_model(folder / "fold_0/last.safetensors")
    assert header.preprocess["mirror_axes"] == []
    made.predict("Samaritan_unet_small", tmp_path)
    probabilities = np.load(tmp_path / "patient000_frame00.npz")["probabilities"]
    assert probabilities.shape == (2, 6, 28, 26)
    assert 0 <= probabilities.min() < probabilities.max() <= 1
