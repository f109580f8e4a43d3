"""The examination finds what is wrong without failing itself."""

from __future__ import annotations

import json
import sys
from importlib import metadata

import pytest

from samaritan import environment
from samaritan.environment import examine, installed_version, try_import


def problems_of(monkeypatch, **replaced: object) -> list[environment.Problem]:
    for name, value in replaced.items():
        monkeypatch.setattr(environment, name, value)
    return list(examine().problems)


def test_it_tells_what_will_be_used() -> None:
    found = examine()
    assert found.samaritan == environment.__version__
    assert found.device in ("cpu", "cuda", "mps")
    assert found.precision in ("float32", "bfloat16")
    assert found.devices[0].device == "cpu"
    assert found.threads >= 1
    assert found.processors >= 1
    assert 0 < found.memory_free <= found.memory
    assert found.cache_free > 0
    versions = {package.name: package.version for package in found.packages}
    assert versions["torch"] == installed_version("torch")
    assert {package.extra for package in found.packages} <= {None, "dicom", "minc"}
    json.dumps(found.to_dict())


def test_imports_are_tried_in_another_process(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_one.py").write_text("raise RuntimeError('operator nms does not exist')")
    (tmp_path / "crashing_one.py").write_text("import os; os.abort()")
    (tmp_path / "slow_one.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert try_import("json") is None
    assert try_import("broken_one") == "RuntimeError: operator nms does not exist"
    assert "exit status" in try_import("crashing_one")
    assert "longer than" in try_import("slow_one", timeout_s=1)
    assert "broken_one" not in sys.modules


@pytest.mark.parametrize(
    ("requires", "error", "breaks", "text"),
    [
        (
            ["torch (==2.0.0)"],
            "RuntimeError: nms",
            True,
            "built for torch 2.0.0.*RuntimeError: nms",
        ),
        (["numpy", "torch==2.0.0"], None, False, "built for torch 2.0.0, but torch"),
        ([], "OSError: undefined symbol", True, "cannot be imported .*undefined symbol"),
    ],
)
def test_a_torchvision_that_does_not_fit_is_told(
    monkeypatch, requires, error, breaks, text
) -> None:
    version, requires_of = installed_version, metadata.requires
    monkeypatch.setattr(
        metadata, "requires", lambda name: requires if name == "torchvision" else requires_of(name)
    )
    found = problems_of(
        monkeypatch,
        installed_version=lambda name: "0.15.0" if name == "torchvision" else version(name),
        try_import=lambda name: error,
    )
    (problem,) = (p for p in found if "torchvision" in p.what)
    assert problem.breaks is breaks
    assert "pip uninstall torchvision" in problem.do
    assert "transformers" in problem.what
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(problem.what)


def test_a_torchvision_that_fits_is_no_problem(monkeypatch) -> None:
    torch = installed_version("torch").partition("+")[0]
    version, requires_of = installed_version, metadata.requires
    monkeypatch.setattr(
        metadata,
        "requires",
        lambda name: [f"torch=={torch}"] if name == "torchvision" else requires_of(name),
    )
    found = problems_of(
        monkeypatch,
        installed_version=lambda name: "9.9" if name == "torchvision" else version(name),
        try_import=lambda name: None,
    )
    assert not [p for p in found if "torchvision" in p.what]


def test_missing_and_old_packages_are_told(monkeypatch) -> None:
    version = installed_version
    absent = {"nibabel": None, "highdicom": None, "scipy": "0.1"}
    found = problems_of(
        monkeypatch,
        installed_version=lambda name: absent[name] if name in absent else version(name),
    )
    told = {problem.what: problem for problem in found}
    assert told["nibabel is missing"].breaks
    assert not told["scipy 0.1 is installed, but >=1.12 is needed"].breaks
    assert not any("highdicom" in what for what in told)  # an extra is no problem
    assert 'pip install "nibabel' in told["nibabel is missing"].do


def test_a_torch_that_cannot_be_imported_is_told(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = examine()
    assert not found.usable
    assert found.device is found.precision is found.threads is None
    assert any("torch cannot be imported" in problem.what for problem in found.problems)


def test_too_little_memory_and_disk_are_told(monkeypatch) -> None:
    found = problems_of(monkeypatch, LEAST_MEMORY=2**60, LEAST_DISK=2**60)
    assert any("GiB of memory are free" in problem.what for problem in found)
    assert any("GiB are free where weights are kept" in problem.what for problem in found)
    assert not any(problem.breaks for problem in found)


def test_a_cache_that_is_a_file_is_told(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAMARITAN_CACHE", str(tmp_path / "file"))
    assert any("cannot be written" in problem.what for problem in examine().problems)
