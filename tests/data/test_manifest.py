"""Manifests: round trips, splits by patient, fingerprints, and every wrong field at once."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest

from samaritan.data import Case, Group, Manifest, Place, load_manifest
from samaritan.data.splitting import quotas
from samaritan.errors import ConfigError, CorruptFile, FileError, UnsupportedFormat


def many(n_patients: int = 10, group: str = "set") -> list[Case]:
    return [
        Case(f"{group}{p}_{f}", (f"{p}_{f}.png",), (f"{p}_{f}l.png",), patient=f"p{p}", group=group)
        for p in range(n_patients)
        for f in range(1 + p % 3)
    ]


PLACE = Place("vol", 2, 7, (5, 6, 9), ((1, 0, 0, 0), (0, 0.1, 0, 2.5), (0, 0, 3, 0), (0, 0, 0, 1)))


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    odd = Case("é, \"x\"", ("a b.png",), ("m1.png", "m2.png"), "masks", "CT", "me", "other", "val",
               ("left, liver", "r"), PLACE)  # fmt: skip
    groups = {
        "set": Group({1: "a", 2: "b"}, ("T1",), {"all": (1, 2)}, 3, (0.0, 1.0), "note"),
        "other": Group(),
    }
    return Manifest(tmp_path / "data", (*many(), odd), groups)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_write_then_read_is_identity(manifest, tmp_path, suffix) -> None:
    found = Manifest.read(manifest.write(tmp_path / f"lists/m{suffix}"))
    assert found.cases == manifest.cases
    assert dict(found.groups) == dict(manifest.groups)
    assert found.root == manifest.root


def test_a_csv_by_hand_needs_no_header_line(tmp_path) -> None:
    (tmp_path / "m.csv").write_text(
        "id,images,labels,patient\na,a0.png;a1.png,l.png,p\nb,b.png,,\n"
    )
    found = Manifest.read(tmp_path / "m.csv")
    assert [c.patient for c in found] == ["p", "b"]
    assert found.cases[0].images == ("a0.png", "a1.png")
    assert found.root == tmp_path


def test_all_wrong_fields_are_told_at_once(manifest, tmp_path) -> None:
    path = manifest.write(tmp_path / "m.json")
    content = json.loads(path.read_text("utf-8"))
    content["cases"][0]["label_kind"] = "polygons"
    content["cases"][1]["images"] = 3
    content["cases"][2]["color"] = "red"
    del content["cases"][3]["images"]
    content["groups"]["set"]["labels"] = {"one": "a"}
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"5 problems") as caught:
        Manifest.read(path)
    for word in ("label_kind", "images", "color", content["cases"][3]["id"], "labels"):
        assert word in str(caught.value)


def test_cases_that_cannot_be_are_all_told(tmp_path) -> None:
    cases = (Case("a", ("x",)), Case("a", ()), Case("b", ("x",), ("l1", "l2")))
    with pytest.raises(ConfigError, match=r"3 problems") as caught:
        Manifest(tmp_path, cases, {"": Group()})
    assert "'a' occurs twice" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "other"}', '{"format": "samaritan manifest 1"}']
)
def test_other_files_are_refused(tmp_path, text) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(CorruptFile, match="is not a manifest"):
        Manifest.read(tmp_path / "m.json")
    with pytest.raises(FileError, match="is not a file"):
        Manifest.read(tmp_path / "none.json")


def test_other_suffixes_are_refused(manifest, tmp_path) -> None:
    with pytest.raises(UnsupportedFormat, match=r"\.json or \.csv"):
        manifest.write(tmp_path / "m.yaml")


def test_patients_are_never_parted(manifest) -> None:
    made = manifest.split({"train": 0.6, "val": 0.2, "test": 0.2}, seed=3)
    assert made.leaks() == {}
    parts = [
        len({c.patient for c in made.select(split=s, group="set")})
        for s in ("train", "val", "test")
    ]
    assert parts == [6, 2, 2]
    assert next(c for c in made if c.group == "other").split == "val"  # decided already


def test_splits_depend_on_the_seed_alone(manifest) -> None:
    half = {"train": 0.5, "val": 0.5}
    shuffled = replace(manifest, cases=manifest.cases[::-1])
    one = {c.id: c.split for c in manifest.split(half, seed=1)}
    assert one == {c.id: c.split for c in shuffled.split(half, seed=1)}
    assert one != {c.id: c.split for c in manifest.split(half, seed=2)}


def test_each_data_set_is_split_by_itself(tmp_path) -> None:
    made = Manifest(tmp_path, (*many(10, "a"), *many(5, "b"))).split({"train": 0.8, "val": 0.2})
    assert len({c.patient for c in made.select(split="val", group="b")}) == 1
    assert len({c.patient for c in made.select(split="val", group="a")}) == 2


def test_wrong_fractions_are_refused(manifest) -> None:
    for wrong in ({"train": 0.8}, {}, {"train": 1.5, "val": -0.5}):
        with pytest.raises(ConfigError, match="add up to 1"):
            manifest.split(wrong)


def test_a_leak_stops_a_split(tmp_path) -> None:
    cases = [replace(c, split="train" if i % 2 else "val") for i, c in enumerate(many(3))]
    manifest = Manifest(tmp_path, tuple(cases))
    assert list(manifest.leaks()) == [("set", "p1"), ("set", "p2")]
    with pytest.raises(ConfigError, match="a leak"):
        manifest.split({"train": 1.0})
    assert manifest.split({"train": 0.5, "val": 0.5}, again=True).leaks() == {}


def test_each_patient_is_held_out_in_one_fold(tmp_path) -> None:
    folds = Manifest(tmp_path, tuple(many(7))).folds(3, seed=1)
    held = [{c.patient for c in fold.select(split="val")} for fold in folds]
    assert sorted(p for fold in held for p in fold) == [f"p{i}" for i in range(7)]
    assert all(fold.leaks() == {} for fold in folds)
    with pytest.raises(ConfigError, match="cannot make 9 folds"):
        Manifest(tmp_path, tuple(many(7))).folds(9)


def test_quotas_add_up() -> None:
    assert quotas([0.8, 0.1, 0.1], 7) == [5, 1, 1]
    assert quotas([1, 1, 1], 10) == [4, 3, 3]
    assert quotas([0.7, 0.3], 0) == [0, 0]


def test_the_fingerprint_sees_what_matters(pairs) -> None:
    manifest = load_manifest(pairs)
    first, full = manifest.fingerprint(), manifest.fingerprint(hashes=True)
    assert first == load_manifest(pairs).fingerprint()
    assert first != manifest.split({"train": 0.5, "val": 0.5}).fingerprint()
    file = pairs / "masks/00_x.png"
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    assert manifest.fingerprint() == first  # the size is the same
    assert manifest.fingerprint(hashes=True) != full


def test_selecting_keeps_what_is_asked(manifest) -> None:
    assert len(manifest.select(group="other")) == 1
    assert len(manifest.select(ids=["set0_0", "set1_1"])) == 2
    assert list(manifest.select(modality="CT").groups) == ["other"]
    with pytest.raises(ConfigError, match="nobody"):
        manifest.select(ids=["nobody"])
    with pytest.raises(ConfigError, match="different labels"):
        _ = manifest.names
    assert manifest.select(group="set").names == {1: "a", 2: "b"}


def test_a_manifest_can_be_sent_to_a_worker(manifest) -> None:
    assert pickle.loads(pickle.dumps(manifest)) == manifest
