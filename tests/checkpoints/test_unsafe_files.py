"""Law 8: nothing untrusted is executed, whatever the file is called and however it is packed."""

from __future__ import annotations

import functools
import io
import os
import pickle
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from samaritan.checkpoints import load_model, load_weights, read_header
from samaritan.checkpoints.reading import read_file
from samaritan.errors import CheckpointError, CorruptFile, TooLarge, UnsafeFile, UnsupportedFormat


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def bombs(canary: Path):
    command = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    touch = f"import pathlib; pathlib.Path({str(canary)!r}).touch()"
    return {
        "system": (Calls(os.system, command), "posix.system"),
        "popen": (Calls(os.popen, command), "os.popen"),
        "eval": (Calls(eval, code), "builtins.eval"),
        "exec": (Calls(exec, code), "builtins.exec"),
        "open": (Calls(open, str(canary), "w"), "io.open"),
        "getattr": (Calls(getattr, "text", "upper"), "builtins.getattr"),
        "import": (Calls(__import__, "os"), "builtins.__import__"),
        "subprocess": (Calls(subprocess.Popen, ["touch", str(canary)]), "subprocess.Popen"),
        "partial": (functools.partial(os.system, command), "functools.partial"),
        "torch load": (Calls(torch.load, str(canary)), "torch.serialization.load"),
        "torch compile": (Calls(torch.hub.load, "x"), "torch.hub.load"),
        "code": (Calls(compile, touch, "x", "exec"), "builtins.compile"),
        "class": (Calls(Path), "pathlib.PosixPath"),
        "bytes of memory": (Calls(bytearray, 10**15), "builtins.bytearray"),
        "tensor of memory": (Calls(torch.Tensor, 10**6), "torch.Tensor"),
    }


NAMES = sorted(set(bombs(Path("x"))) - {"class"})


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something in a file of weights was executed"


def packed(obj, kind, file):
    """Write an object in one of the ways in which pickles reach us."""
    if kind == "torch zip":
        torch.save(obj, file)
    elif kind == "torch legacy":
        torch.save(obj, file, _use_new_zipfile_serialization=False)
    elif kind == "torch zip, protocol 4":
        torch.save(obj, file, pickle_protocol=4)
    elif kind == "as a key's neighbour":
        torch.save({"model": {"x": torch.zeros(2)}, "args": [obj]}, file)
    else:
        file.write_bytes(pickle.dumps(obj, protocol=int(kind[-1])))


@pytest.mark.parametrize(
    "kind",
    ["torch zip", "torch legacy", "torch zip, protocol 4", "as a key's neighbour"]
    + [f"bare pickle {n}" for n in (2, 3, 4, 5)],
)
@pytest.mark.parametrize("name", NAMES)
def test_bombs_are_named_and_do_not_go_off(name, kind, canary, tmp_path):
    bomb, asked = bombs(canary)[name]
    file = tmp_path / "weights.pth"
    packed(bomb, kind, file)
    with pytest.raises(UnsafeFile, match="nothing was executed") as caught:
        read_file(file)
    assert asked in str(caught.value)


def test_bombs_do_not_go_off_through_any_door(canary, tmp_path, make):
    file = tmp_path / "model.safetensors"
    torch.save({"model": Calls(os.system, f"touch {canary}")}, file)
    for door in (load_model, read_file, lambda f: load_weights(make(), f)):
        with pytest.raises(UnsafeFile, match=r"posix.system"):
            door(file)
    with pytest.raises(Exception, match="no header of samaritan"):
        read_header(file)


def test_a_bomb_after_an_innocent_pickle_is_found(canary, tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"x": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)
    data = bytearray(file.read_bytes())
    # the third pickle of the old format holds facts about the machine
    parts = io.BytesIO(bytes(data))
    pickle.load(parts), pickle.load(parts)
    start = parts.tell()
    pickle.load(parts)
    bomb = pickle.dumps(Calls(os.system, f"touch {canary}"), protocol=2)
    file.write_bytes(bytes(data[:start]) + bomb + bytes(data[parts.tell() :]))
    with pytest.raises(UnsafeFile, match=r"posix.system"):
        read_file(file)


def test_whole_model_objects_are_refused_by_their_class(tmp_path):
    file = tmp_path / "model.pth"
    torch.save(nn.Linear(2, 2), file)
    with pytest.raises(UnsafeFile, match=r"torch.nn.modules.linear.Linear.*state_dict"):
        read_file(file)


def rewritten(source: Path, target: Path, change):
    """Copy a zip archive, entry by entry, through `change(name, data) -> (name, data, method)`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            for entry, data, method in change(name, old.read(name)):
                new.writestr(zipfile.ZipInfo(entry), data, method)
    return target


@pytest.fixture
def good(tmp_path):
    file = tmp_path / "good.pth"
    torch.save({"x": torch.arange(6.0)}, file)
    return file


def test_entries_that_point_outside_are_refused(good, tmp_path):
    for name in ("../evil", "/etc/passwd", "a/../../evil", "C:evil", "..\\evil"):
        bad = rewritten(good, tmp_path / "bad.pth", lambda n, d: [(n, d, 0)])
        with zipfile.ZipFile(bad, "a") as archive:
            archive.writestr(zipfile.ZipInfo(name), b"x")
        with pytest.raises(UnsafeFile, match="points outside"):
            read_file(bad)


def test_compressed_entries_are_refused(good, tmp_path):
    bad = rewritten(good, tmp_path / "bad.pth", lambda n, d: [(n, d, zipfile.ZIP_DEFLATED)])
    with pytest.raises(UnsafeFile, match="compressed entry"):
        read_file(bad)


def test_a_long_pickle_is_too_large(good, tmp_path, monkeypatch):
    monkeypatch.setattr("samaritan.checkpoints.torch_files.MAX_PICKLE_BYTES", 10)
    with pytest.raises(TooLarge, match="limit"):
        read_file(good)


def test_storages_must_hold_what_the_pickle_claims(good, tmp_path):
    def shorter(name, data):
        return [(name, data[:8] if "/data/" in name else data, 0)]

    def absent(name, data):
        return [] if "/data/" in name else [(name, data, 0)]

    for change, text in ((shorter, "24 bytes but is 8 bytes"), (absent, "24 bytes but is missing")):
        with pytest.raises(CorruptFile, match=text):
            read_file(rewritten(good, tmp_path / "bad.pth", change))


def test_claims_of_old_files_are_bounded_by_their_length(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"x": torch.zeros(1000)}, file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    assert data.count(b"M\xe8\x03") >= 1  # 1000 as a two byte number
    file.write_bytes(data.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"))
    with pytest.raises(CorruptFile, match="should hold 8,589,934,588 bytes"):
        read_file(file)


def test_tensors_that_repeat_few_numbers_over_a_huge_shape_are_refused(make, tmp_path):
    state = make().state_dict()
    state["image_encoder.pos_embed"] = torch.zeros(1).expand(2**20, 2**20)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CorruptFile, match=r"pos_embed.*would take 4,398,046,511,104 bytes"):
        load_weights(make(), tmp_path / "w.pth")


def test_sparse_and_quantised_tensors_are_refused(make, tmp_path):
    torch.save({"x": torch.zeros(3, 4).to_sparse()}, tmp_path / "w.pth")
    with pytest.raises(UnsafeFile, match="_rebuild_sparse_tensor"):
        read_file(tmp_path / "w.pth")


def test_torchscript_is_named(tmp_path):
    file = tmp_path / "w.pt"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("w/data.pkl", "w/constants.pkl", "w/code/__torch__.py"):
            archive.writestr(name, b"")
    with pytest.raises(UnsupportedFormat, match="TorchScript"):
        read_file(file)


def test_tuples_nested_very_deep_are_refused(tmp_path):
    file = tmp_path / "w.pth"
    key = ()
    for _ in range(40):
        key = (key,)
    torch.save({"x": torch.zeros(1), "deep": key}, file)
    assert read_file(file).content["deep"] == key
    for _ in range(60):
        key = (key,)
    torch.save({"x": torch.zeros(1), "deep": key}, file)
    with pytest.raises(CorruptFile, match="nests tuples"):
        read_file(file)


def test_tables_that_contain_themselves_hold_no_weights(make, tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no tensors"):
        load_weights(make(), tmp_path / "w.pth")
