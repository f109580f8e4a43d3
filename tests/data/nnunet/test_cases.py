"""Stored cases: ours and nnU-Net's three kinds, read without unpickling; and pickles that would do more."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

from samaritan.data.nnunet.cases import open_case, save_case, stored_ids
from samaritan.data.nnunet.notes import read_notes
from samaritan.data.nnunet.preprocessing import Prepared, Properties
from samaritan.errors import ConfigError, CorruptFile, FileError, UnsafeFile


@pytest.fixture
def prepared() -> Prepared:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, (3, 4, 5)).astype(np.int8)
    places = {
        1: np.argwhere(labels == 1).astype(np.int32),
        (1, 2): np.argwhere(labels > 0).astype(np.int32),
    }
    properties = Properties((4.0, 1.5, 1.0), (5, 6, 7), ((1, 4), (0, 4), (2, 7)), (3, 4, 5))
    return Prepared(rng.normal(size=(2, 3, 4, 5)).astype(np.float32), labels, properties, places)


def notes(made: Prepared) -> dict:
    """What nnU-Net pickles, types included."""
    return {
        "sitk_stuff": {
            "spacing": (1.0, 1.5, 4.0),
            "origin": (0.0, 0.0, 0.0),
            "direction": (1.0,) * 9,
        },
        "spacing": [np.float64(s) for s in made.properties.spacing],
        "shape_before_cropping": made.properties.shape_before_cropping,
        "bbox_used_for_cropping": [list(side) for side in made.properties.box],
        "shape_after_cropping_and_before_resampling": made.properties.shape_after_cropping,
        "class_locations": {
            key: np.concatenate([np.zeros((len(p), 1), np.int64), p], axis=1) if len(p) else []
            for key, p in made.places.items()
        },
    }


def theirs(folder, made: Prepared, kind: str) -> None:
    data, seg = made.image, made.labels[None].astype(np.int16)
    if kind == "npz":
        np.savez_compressed(folder / "one.npz", data=data, seg=seg)
    elif kind == "npy":
        np.savez_compressed(folder / "one.npz", data=data, seg=seg)
        np.save(folder / "one.npy", data)
        np.save(folder / "one_seg.npy", seg)
    else:
        blosc2 = pytest.importorskip("blosc2")
        blosc2.asarray(
            data, urlpath=str(folder / "one.b2nd"), chunks=(1, 3, 4, 5), blocks=(1, 1, 4, 5)
        )
        blosc2.asarray(seg, urlpath=str(folder / "one_seg.b2nd"))
    (folder / "one.pkl").write_bytes(pickle.dumps(notes(made)))


def same(found, made: Prepared) -> None:
    assert found.shape == (3, 4, 5)
    assert np.array_equal(found.image[:], made.image)
    assert np.array_equal(found.labels[0], made.labels)
    assert found.image[:, 1:2, :3].shape == (2, 1, 3, 5)
    assert found.properties == made.properties
    assert {k: v.tolist() for k, v in found.places.items()} == {
        k: v.tolist() for k, v in made.places.items()
    }


def test_ours_are_read_as_written_and_memory_mapped(prepared, tmp_path) -> None:
    save_case(tmp_path, "one", prepared)
    found = open_case(tmp_path, "one")
    same(found, prepared)
    assert isinstance(found.image, np.memmap)
    assert stored_ids(tmp_path) == ("one",)


@pytest.mark.parametrize("kind", ["npz", "npy", "b2nd"])
def test_those_of_nnunet_are_read(kind, prepared, tmp_path) -> None:
    theirs(tmp_path, prepared, kind)
    same(open_case(tmp_path, "one"), prepared)
    assert stored_ids(tmp_path) == ("one",)


def test_a_class_that_does_not_occur_has_no_places(prepared, tmp_path) -> None:
    made = replace(prepared, places={1: np.zeros((0, 3), np.int32)})
    theirs(tmp_path, made, "npz")
    assert open_case(tmp_path, "one").places[1].shape == (0, 3)


def test_cases_of_two_kinds_in_a_folder_are_told(prepared, tmp_path) -> None:
    theirs(tmp_path, prepared, "npz")
    theirs(tmp_path, prepared, "b2nd")
    with pytest.raises(ConfigError, match="several kinds"):
        stored_ids(tmp_path)


def test_a_case_that_is_not_there_and_one_without_notes_are_told(prepared, tmp_path) -> None:
    with pytest.raises(FileError, match="no preprocessed case 'one'"):
        open_case(tmp_path, "one")
    theirs(tmp_path, prepared, "npz")
    (tmp_path / "one.pkl").unlink()
    with pytest.raises(FileError, match=r"one\.pkl is missing"):
        open_case(tmp_path, "one")


def test_damaged_arrays_are_told(prepared, tmp_path) -> None:
    save_case(tmp_path, "one", prepared)
    whole = (tmp_path / "one.npy").read_bytes()
    (tmp_path / "one.npy").write_bytes(whole[:-20])
    with pytest.raises(CorruptFile, match="is damaged"):
        open_case(tmp_path, "one")
    np.save(tmp_path / "one.npy", prepared.image[:, :2])
    with pytest.raises(CorruptFile, match="do not belong together"):
        open_case(tmp_path, "one")


# -- pickles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_notes_are_read_without_unpickling(protocol, prepared, tmp_path) -> None:
    wanted = {
        **notes(prepared),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "on": True,
        "none": None,
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(wanted, protocol))
    found = read_notes(tmp_path / "a.pkl")
    assert found.keys() == wanted.keys()
    assert found["f"].tolist() == wanted["f"].tolist()
    assert found["spacing"] == wanted["spacing"]
    assert found["on"] is True
    assert found["class_locations"][1].tolist() == wanted["class_locations"][1].tolist()


class Runs:
    """Would run a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    "hidden", [Runs(), {"a": [Runs()]}, np.array([Runs()], object), np.array(["text"])]
)
def test_pickles_that_would_do_more_are_refused(hidden, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(hidden))
    with pytest.raises(UnsafeFile, match=r"a\.pkl"):
        read_notes(tmp_path / "a.pkl")
    assert not (tmp_path / "ran").exists()


def test_arrays_that_claim_more_than_there_is_are_told(tmp_path) -> None:
    data = pickle.dumps(np.zeros(5, np.int64)).replace(b"K\x05\x85", b"M\xff\xff\x85")
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(CorruptFile, match="damaged, or no pickle"):
        read_notes(tmp_path / "a.pkl")


@pytest.mark.parametrize("cut", [1, 7, 40, 400])
def test_pickles_cut_off_are_told(cut, prepared, tmp_path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(notes(prepared))[:-cut])
    with pytest.raises((CorruptFile, UnsafeFile)):
        read_notes(tmp_path / "a.pkl")
