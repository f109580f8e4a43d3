"""Folds: nnU-Net's, by patient, and what is told of those that cannot be used."""

from __future__ import annotations

import pytest

from samaritan.data.nnunet.splits import Fold, fold_of, make_folds, read_folds, write_folds
from samaritan.errors import ConfigError, CorruptFile

IDS = [f"pat{p}_frame{f}" for p in range(7) for f in (1, 2)]
WHOSE = {one: one.split("_")[0] for one in IDS}


def test_each_case_is_held_out_once() -> None:
    folds = make_folds(IDS)
    assert sorted(c for f in folds for c in f.val) == sorted(IDS)
    assert all(sorted(f.train + f.val) == sorted(IDS) for f in folds)
    assert [len(f.val) for f in folds] == [3, 3, 3, 3, 2]


def test_folds_by_patient_keep_scans_together() -> None:
    for fold in make_folds(IDS, patients=WHOSE):
        assert not {WHOSE[c] for c in fold.train} & {WHOSE[c] for c in fold.val}


def test_patients_of_one_scan_split_as_nnunet_splits_cases() -> None:
    assert make_folds(IDS, patients={one: one for one in IDS}) == make_folds(IDS)


def test_fewer_cases_than_folds_is_told() -> None:
    with pytest.raises(ConfigError, match="as many cases, and there are 3"):
        make_folds(IDS[:3])


def test_folds_are_written_and_read(tmp_path) -> None:
    folds = make_folds(IDS)
    assert read_folds(write_folds(folds, tmp_path / "splits_final.json")) == folds
    (tmp_path / "bad.json").write_text('[{"train": []}]')
    with pytest.raises(CorruptFile, match="must be a list of folds"):
        read_folds(tmp_path / "bad.json")
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(CorruptFile, match="no folds"):
        read_folds(tmp_path / "none.json")


def test_all_cases_and_folds_beyond_the_last() -> None:
    folds = make_folds(IDS)
    assert fold_of(folds, "all", IDS) == Fold(tuple(sorted(IDS)), tuple(sorted(IDS)))
    beyond = fold_of(folds, 7, IDS)
    assert (len(beyond.train), len(beyond.val)) == (11, 3)
    assert fold_of(folds, 7, IDS) == beyond != fold_of(folds, 8, IDS)


@pytest.mark.parametrize(
    ("fold", "told"),
    [
        (Fold(("a",), ()), "has 1 cases to train on and 0 to validate on"),
        (Fold(("a",), ("a",)), "has cases in both parts: a"),
        (Fold(("a",), ("z",)), "names cases that are not there: z"),
    ],
)
def test_folds_that_cannot_be_used_are_told(fold, told) -> None:
    with pytest.raises(ConfigError, match=told):
        fold_of([fold], 0, ["a", "b"])
