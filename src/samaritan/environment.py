"""What this machine offers: packages, devices, precision, memory, and what is about to go wrong."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from samaritan._version import __version__

LEAST_MEMORY = 3 * 2**30
"""Bytes of free memory below which SAM ViT-B with a large scan may not fit."""

LEAST_DISK = 4 * 2**30
"""Bytes of free disk below which the largest published weights may not fit."""

SHOWN_EXTRAS = ("dicom", "minc")
"""Extras for users; the others serve development."""


@dataclass(frozen=True)
class Package:
    """A package that Samaritan uses: its version, or None, and the extra that brings it (None: always)."""

    name: str
    version: str | None
    wanted: str
    extra: str | None


@dataclass(frozen=True)
class Device:
    """Something that computes: as torch calls it, its name, and its memory in bytes."""

    device: str
    name: str
    memory: int


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, what to do about it, and whether it breaks something."""

    what: str
    do: str
    breaks: bool = False


@dataclass(frozen=True)
class Environment:
    """Everything that `examine` finds; sizes in bytes."""

    samaritan: str
    python: str
    system: str
    packages: tuple[Package, ...]
    devices: tuple[Device, ...]
    device: str | None
    precision: str | None
    precision_reason: str
    threads: int | None
    processors: int
    memory: int
    memory_free: int
    cache: str
    cache_free: int
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> bool:
        """Whether nothing is broken."""
        return not any(problem.breaks for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {**asdict(self), "usable": self.usable}


def examine() -> Environment:
    """Look at this machine. Never raises for what is missing or broken: that is told in `problems`."""
    import psutil

    problems: list[Problem] = []
    packages = _packages(problems)
    torch = _torch(problems)
    device = precision = None
    devices: tuple[Device, ...] = (_processor(),)
    reason = "torch cannot be imported"
    if torch is not None:
        device, devices = _devices(torch, problems)
        precision, reason = _precision(torch, device)
    _check_torchvision(problems)
    memory = psutil.virtual_memory()
    cache, free = _cache(problems)
    if memory.available < LEAST_MEMORY:
        problems.append(
            Problem(
                f"only {memory.available / 2**30:.1f} GiB of memory are free",
                "Close other programs, or use a smaller model",
            )
        )
    return Environment(
        samaritan=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages=packages,
        devices=devices,
        device=device,
        precision=precision,
        precision_reason=reason,
        threads=None if torch is None else int(torch.get_num_threads()),
        processors=_processors(),
        memory=int(memory.total),
        memory_free=int(memory.available),
        cache=str(cache),
        cache_free=free,
        problems=tuple(problems),
    )


def installed_version(name: str) -> str | None:
    """Version of an installed package by its metadata, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def try_import(name: str, *, timeout_s: float = 120) -> str | None:
    """Import a package in another process: None if that works, else the last line of its error."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it takes longer than {timeout_s:g} s"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"it ends with exit status {done.returncode}"


def _packages(problems: list[Problem]) -> tuple[Package, ...]:
    """List what our own metadata asks for, and note what is missing or of a wrong version."""
    from packaging.requirements import Requirement

    found = []
    try:
        wanted = metadata.requires("samaritan") or []
    except metadata.PackageNotFoundError:
        problems.append(Problem("samaritan itself is not installed", "Install it: pip install ."))
        wanted = []
    for requirement in map(Requirement, wanted):
        extra = None
        if requirement.marker is not None and "extra" in str(requirement.marker):
            fitting = [e for e in SHOWN_EXTRAS if requirement.marker.evaluate({"extra": e})]
            if not fitting:
                continue
            extra = fitting[0]
        elif requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = installed_version(requirement.name)
        found.append(Package(requirement.name, version, str(requirement.specifier), extra))
        install = f'pip install "{requirement.name}{requirement.specifier}"'
        if version is None and extra is None:
            problems.append(Problem(f"{requirement.name} is missing", f"Run: {install}", True))
        elif version is not None and not requirement.specifier.contains(version, prereleases=True):
            problems.append(
                Problem(
                    f"{requirement.name} {version} is installed, but {requirement.specifier} is needed",
                    f"Run: {install}",
                )
            )
    return tuple(sorted(found, key=lambda package: (package.extra or "", package.name.lower())))


def _torch(problems: list[Problem]) -> Any:
    """Import torch, or note why not."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        problems.append(
            Problem(
                f"torch cannot be imported: {error}", "Install it anew: pip install torch", True
            )
        )
        return None
    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:
        problems.append(
            Problem(
                f"torch {torch.__version__} and numpy {installed_version('numpy')} do not fit: {error}",
                "Upgrade torch, or install numpy<2",
                True,
            )
        )
    return torch


def _devices(torch: Any, problems: list[Problem]) -> tuple[str, tuple[Device, ...]]:
    """List the devices that torch sees, and choose as a predictor does."""
    from samaritan.infer.engine import resolve_device

    devices = [_processor()]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            known = torch.cuda.get_device_properties(index)
            devices.append(Device(f"cuda:{index}", known.name, int(known.total_memory)))
    elif shutil.which("nvidia-smi"):
        built = torch.version.cuda
        why = f"it is built for CUDA {built}" if built else "it is built without CUDA"
        problems.append(
            Problem(
                f"there is an NVIDIA driver, but torch {torch.__version__} cannot use it: {why}",
                "Install the torch build that fits the driver: see https://pytorch.org/get-started",
            )
        )
    if torch.backends.mps.is_available():
        devices.append(Device("mps", "Apple GPU", devices[0].memory))
    return resolve_device(None).type, tuple(devices)


def _precision(torch: Any, device: str) -> tuple[str, str]:
    """Say which precision "auto" means here, and why."""
    from samaritan.infer.engine import resolve_precision
    from samaritan.models import get_config
    from samaritan.models.packed import suits_bfloat16

    name = str(resolve_precision("auto", torch.device(device))).removeprefix("torch.")
    if device == "cuda":
        able = name == "bfloat16"
        return name, f"the GPU {'computes' if able else 'does not compute'} in bfloat16"
    if device == "mps":
        return name, "float32 is the precision that gives the published numbers on this device"
    ratio = _bfloat16_speed(torch)
    measured = f"bfloat16 is {ratio:.1f} times as fast here (measured on one matrix product)"
    if suits_bfloat16(get_config("sam_vit_b")):
        return name, f"but bfloat16 in image encoders as large as SAM's: {measured}"
    return name, f"this processor has no instructions for bfloat16: {measured}"


def _bfloat16_speed(torch: Any, size: int = 384) -> float:
    """Measure how much faster a matrix product is in bfloat16 than in float32."""
    best = []
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            matrix = torch.ones(size, size, dtype=dtype)
            times = []
            for _ in range(6):
                start = time.perf_counter()
                matrix @ matrix
                times.append(time.perf_counter() - start)
            best.append(min(times))
    return float(best[0] / best[1])


def _check_torchvision(problems: list[Problem]) -> None:
    """Note a torchvision that does not fit torch: it breaks every package that imports it."""
    version = installed_version("torchvision")
    if version is None:
        return
    wanted = [
        found.group(1)
        for line in metadata.requires("torchvision") or []
        if (found := re.match(r"torch\s*\(?==\s*([\w.]+)", line))
    ]
    torch = (installed_version("torch") or "").partition("+")[0]
    mismatch = bool(wanted) and wanted[0].partition("+")[0] != torch
    error = try_import("torchvision")
    if error is None and not mismatch:
        return
    fits = f"is built for torch {wanted[0]}, but torch {torch} is installed" if mismatch else ""
    fails = f"cannot be imported ({error})" if error else ""
    problems.append(
        Problem(
            f"torchvision {version} {' and '.join(part for part in (fits, fails) if part)}: packages that "
            "import it, such as transformers, peft, timm and segment-anything, fail with it",
            "Samaritan does not need it. Remove it: pip uninstall torchvision; or install the pair that fits",
            breaks=error is not None,
        )
    )


def _cache(problems: list[Problem]) -> tuple[Path, int]:
    """Say where weights are kept and how much room is there."""
    from samaritan.checkpoints.cache import VARIABLE, cache_folder

    folder = cache_folder()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    other = f"Choose another folder with the environment variable {VARIABLE}"
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        problems.append(Problem(f"weights cannot be kept in {folder}: it cannot be written", other))
    elif free < LEAST_DISK:
        problems.append(
            Problem(f"only {free / 2**30:.1f} GiB are free where weights are kept, {folder}", other)
        )
    return folder, free


def _processor() -> Device:
    import psutil

    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
        found = re.search(r"model name\s*:\s*(.+)", text)
        name = found.group(1) if found else name
    except OSError:
        pass
    return Device("cpu", name, int(psutil.virtual_memory().total))


def _processors() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
