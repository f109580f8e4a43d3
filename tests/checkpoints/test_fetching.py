"""Published weights by name: listed, found in the cache, fetched once, or said how to get by hand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from samaritan.assembly import create_model, model_names
from samaritan.checkpoints import (
    cache_folder,
    cached,
    fetch,
    find_published,
    inspect,
    load_model,
    load_weights,
    locate,
    published_weights,
    registry,
    resolve_model,
    save_weights,
)
from samaritan.checkpoints.downloading import Downloaded, Patience
from samaritan.errors import ConfigError, DownloadError, FileError

DATA = b"weights" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no way to the internet."""
    monkeypatch.setenv("SAMARITAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def refuse(url, target, **options):
        raise DownloadError(f"{url} could not be fetched: no connection")

    monkeypatch.setattr("samaritan.checkpoints.fetching.download", refuse)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def internet(monkeypatch):
    """Let every address give the same file; returns the calls."""
    calls = []

    def give(url, target, **options):
        calls.append((url, options))
        target.write_bytes(DATA)
        return Downloaded(len(DATA), SHA256, '"e"')

    monkeypatch.setattr("samaritan.checkpoints.fetching.download", give)
    return calls


@pytest.fixture
def known(monkeypatch):
    """Change the record of sam_vit_b: known(size=3)."""

    def change(**values):
        changed = replace(find_published("sam_vit_b"), **values)
        monkeypatch.setitem(registry._BY_NAME, "sam_vit_b", changed)

    change(size=len(DATA), sha256=SHA256)
    return change


def test_records_are_complete_and_their_names_unique():
    weights = published_weights()
    assert len({p.name for p in weights}) == len({p.file for p in weights}) == len(weights)
    for p in weights:
        assert re.fullmatch(r"[a-z0-9_]+", p.name)
        assert p.licence
        if not p.shipped:  # of those a card in docs/ tells
            assert p.page.startswith("https://")
            assert p.citation
        assert p.size > 10**6
        assert p.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", p.sha256)
        assert Path(p.file).name == p.file
        assert p.supported
        assert p.model.partition(",")[0] in model_names()


def test_names_of_models_find_their_only_weights():
    assert find_published("sammed3d_vit_b_ori").name == "sammed3d_turbo"
    assert find_published("nothing") is None


def test_the_cache_is_where_the_variable_or_the_platform_says(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache" / "weights"
    monkeypatch.delenv("SAMARITAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "samaritan" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == Path.home() / ".cache" / "samaritan" / "weights"


def test_weights_are_fetched_once_and_noted(internet, known, cache):
    path = fetch("sam_vit_b")
    assert path == cache / "sam_vit_b_01ec64.pth" == cached("sam_vit_b")
    assert fetch("sam_vit_b") == path
    assert len(internet) == 1
    url, options = internet[0]
    assert url == "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"
    assert (options["size"], options["sha256"]) == (len(DATA), SHA256)
    note = json.loads((cache / "sam_vit_b_01ec64.pth.json").read_text())
    assert note["sha256"] == SHA256
    assert note["licence"] == "Apache-2.0"


def test_weights_can_be_fetched_into_another_folder(internet, known, tmp_path):
    assert fetch("sam_vit_b", cache_dir=tmp_path / "here").parent == tmp_path / "here"
    assert cached("sam_vit_b") is None


def test_unknown_hashes_and_sizes_are_recorded(internet, known):
    known(sha256=None, size=99, size_exact=False)
    path = fetch("sam_vit_b")
    assert cached("sam_vit_b") == path
    path.write_bytes(DATA[:-1])
    assert cached("sam_vit_b") is None, "the size that was noted is the one to have"


def test_a_file_of_another_size_in_the_cache_is_fetched_again(internet, known, cache):
    cache.mkdir(parents=True)
    (cache / "sam_vit_b_01ec64.pth").write_bytes(b"half")
    assert cached("sam_vit_b") is None
    assert fetch("sam_vit_b").read_bytes() == DATA


def test_a_file_put_there_by_hand_is_checked_and_noted(known, cache):
    cache.mkdir(parents=True)
    file = cache / "sam_vit_b_01ec64.pth"
    file.write_bytes(DATA)
    assert fetch("sam_vit_b") == file
    assert json.loads((cache / "sam_vit_b_01ec64.pth.json").read_text())["sha256"] == SHA256
    (cache / "sam_vit_b_01ec64.pth.json").unlink()
    file.write_bytes(DATA[::-1])
    with pytest.raises(DownloadError, match="put there by hand, but is not sam_vit_b"):
        fetch("sam_vit_b")


def test_without_a_network_the_error_says_which_file_to_put_where(cache):
    for door in (fetch, locate, load_model):
        with pytest.raises(DownloadError) as caught:
            door("sam_vit_b")
        text = str(caught.value)
        assert "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth" in text
        assert f"save it as {cache / 'sam_vit_b_01ec64.pth'}" in text
        assert "375 MB" in text
        assert "A path to the file works wherever a name does" in text


def test_files_that_need_a_browser_say_so(internet, cache):
    with pytest.raises(DownloadError, match=r"needs a browser.*drive\.google\.com.*ft-sam_b\.pth"):
        fetch("ft_sam_b")
    assert internet == []


def test_offline_mode_of_hugging_face_is_obeyed(internet, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        fetch("sammed3d_turbo")
    assert internet == []


def test_a_mirror_of_hugging_face_is_used(internet, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    fetch("sammed3d_turbo")
    assert internet[0][0].startswith("https://mirror.example/blueyo0/SAM-Med3D/resolve/main/")


def test_local_paths_and_file_addresses_are_passed_on(tmp_path):
    file = tmp_path / "my weights.pth"
    file.write_bytes(DATA)
    for name in (file, str(file), file.as_uri()):
        assert fetch(name) == locate(name) == file
    with pytest.raises(FileError, match="no file file://"):
        fetch("file:///absent/w.pth")


def test_unknown_names_suggest_near_ones():
    for door in (fetch, locate):
        with pytest.raises(ConfigError, match="Did you mean 'sam_vit_b'"):
            door("sam_vitb")


def test_nothing_is_fetched_where_that_is_not_wanted(internet):
    for door in (
        lambda n: locate(n, download=False),
        lambda n: load_model(n, download=False),
        inspect,
    ):
        with pytest.raises(DownloadError, match="not in the cache"):
            door("sam_vit_b")
    assert internet == []


def test_names_resolve_to_weights_in_the_cache(make, same, known, cache):
    there, here = make(seed=1), make()
    cache.mkdir(parents=True)
    file = cache / "sam_vit_b_01ec64.pth"
    torch.save(there.state_dict(), file)
    known(size=file.stat().st_size, sha256=None)
    report = load_weights(here, "sam_vit_b")
    assert same(here.state_dict(), there.state_dict())
    assert report.licence == "Apache-2.0", "it is known by its place in the cache"
    assert inspect("sam_vit_b").licence == "Apache-2.0"


def test_two_that_want_the_same_file_fetch_it_once(known, monkeypatch):
    calls, started = [], threading.Event()

    def slow(url, target, **options):
        calls.append(url)
        started.set()
        threading.Event().wait(0.2)
        target.write_bytes(DATA)
        return Downloaded(len(DATA), SHA256, None)

    monkeypatch.setattr("samaritan.checkpoints.fetching.download", slow)
    first = threading.Thread(target=fetch, args=("sam_vit_b",))
    first.start()
    started.wait()
    second = fetch("sam_vit_b", patience=Patience(1))
    first.join()
    assert second.read_bytes() == DATA
    assert len(calls) == 1


def test_a_cache_that_cannot_be_made_is_a_clear_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SAMARITAN_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"cannot be made.*SAMARITAN_CACHE"):
        fetch("sam_vit_b")


def test_the_folder_of_a_run_means_its_best_weights(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(FileError, match=r"folder without best\.safetensors"):
        resolve_model(run)
    (run / "recipe.yaml").write_text("name: toy\n")
    with pytest.raises(FileError, match="training run that has written no weights yet"):
        resolve_model(run)
    torch.manual_seed(0)
    save_weights(create_model("sam_tiny"), run / "last.safetensors")
    assert resolve_model(run) == run / "last.safetensors"
    save_weights(create_model("sam_tiny"), run / "best.safetensors", extra={"labels": {"1": "x"}})
    assert resolve_model(str(run)) == run / "best.safetensors"
    assert load_model(run)[1].extra == {"labels": {"1": "x"}}
    assert resolve_model(run / "last.safetensors") == run / "last.safetensors"
