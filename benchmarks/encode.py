"""Time the image encoders against the plain published formulation, and others that are installed.

    python benchmarks/encode.py --repeats 5 --json encode.json

Every contestant encodes the same image in turn, round after round, so that a busy machine slows all
of them alike. Ratios are medians of ratios within a round. Peak memory is measured in a process of
its own for each, above what the model and the image hold; a GPU (`--device cuda`) knows its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import measuring
import plain

from samaritan.assembly import create_model
from samaritan.models import Sam
from samaritan.models.config import SAM_QUIRKS, SAMMED3D_QUIRKS
from samaritan.models.packed import with_packed_encoder

Encoder = Callable[[Tensor], Tensor]


LOW = " bfloat16"
"""What ends the names of contestants in lower precision."""

CASES = {
    "sam_vit_b": SAM_QUIRKS,
    "sammed2d_vit_b": SAM_QUIRKS,
    "sammed3d_vit_b_ori": SAMMED3D_QUIRKS,
}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(peak_memory(*options.peak, options)))
        return
    report: dict[str, Any] = {**measuring.machine(options.threads, options.device), "cases": {}}
    print(f"torch {report['torch']}, {options.threads} threads, load {report['load']:.2f}")
    print(report["processor"])
    for dtype, key in (("float32", "matmul_gflops"), ("bfloat16", "matmul_gflops_bfloat16")):
        print(f"matrix product in {dtype}: {report[key]:.0f} GFLOP/s")
    for case in options.only or CASES:
        report["cases"][f"encode, {case}"] = rows = measure(case, options)
        show(case, rows)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--only", nargs="+", choices=CASES, help="cases to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny models, one round")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU: cuda")
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile too")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    return options


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Times, memory and operations of every contestant that is there."""
    model, image = load(case, options)
    contestants, rows = {}, {}
    for name, make in asked(options).items():
        try:
            contestants[name] = make(model)
            rows[name] = {}
        except (ImportError, ValueError) as reason:
            rows[name] = {"absent": str(reason)}
    outputs = {name: encode(image) for name, encode in contestants.items()}  # also warms up
    difference = (outputs["samaritan"] - outputs["plain"]).abs().max().item()
    if not difference < 1e-3:
        raise SystemExit(f"{case}: samaritan and plain differ by {difference:.2g}")
    rows["samaritan"]["max_difference_to_plain"] = difference
    for name, encode in contestants.items():  # operations are the same in any precision
        full = name.removesuffix(LOW)
        if name == full:
            rows[name]["gflop"] = measuring.gflop(partial(encode, image))
        else:
            rows[name]["gflop"] = rows[full]["gflop"]
            error = (outputs[name].float() - outputs[full]).norm() / outputs[full].norm()
            rows[name]["relative_error"] = error.item()
    works = {name: partial(encode, image) for name, encode in contestants.items()}
    for name, times in measuring.in_turn(works, options.repeats, options.device).items():
        rows[name]["times_s"] = times
    command = [
        sys.executable,
        __file__,
        *["--quick"] * options.quick,
        *["--compile"] * options.compile,
    ]
    command += ["--threads", str(options.threads), "--peak", case]
    for name, work in works.items():
        if options.device == "cpu":
            out = subprocess.run([*command, name], check=True, capture_output=True, text=True)
            rows[name] |= json.loads(out.stdout)
        else:  # which knows its own memory
            rows[name] |= peak_of(work, options.device)
    return rows


def show(case: str, rows: dict[str, Any]) -> None:
    print(f"\n{case}")
    print(f"{'':26}{'median s':>10}{'min..max':>16}{'x plain':>9}{'GFLOP':>8}{'peak MiB':>10}")
    base = rows["plain"]["times_s"]
    for name, row in rows.items():
        if "absent" in row:
            print(f"{name:26}  ({row['absent']})")
            continue
        times = row["times_s"]
        row["ratio"] = measuring.median_ratio(times, base)
        spread = f"{min(times):.2f}..{max(times):.2f}"
        print(
            f"{name:26}{statistics.median(times):10.3f}{spread:>16}{row['ratio']:9.2f}"
            f"{row['gflop']:8.0f}{row['peak_mib']:10.0f}"
        )


def peak_memory(case: str, name: str, options: argparse.Namespace) -> dict[str, float]:
    """Highest memory while encoding, above what is held before, after one run to warm up."""
    model, image = load(case, options)
    encode = asked(options)[name](model)
    encode(image)
    measuring.give_back()  # what the warm-up freed counts again
    return peak_of(partial(encode, image))


def peak_of(work: Callable[[], Any], device: str = "cpu") -> dict[str, float]:
    with measuring.sampled_memory(device) as peak:
        work()
        return {"peak_mib": peak() / 2**20}


def load(case: str, options: argparse.Namespace) -> tuple[Sam, Tensor]:
    """The model with random weights, position tables included, and a random image."""
    torch.manual_seed(0)
    if options.quick:
        model = create_model("sam3d_tiny" if "3d" in case else "sam_tiny", quirks=CASES[case])
    else:
        model = create_model(case, quirks=CASES[case])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "pos" in name:
                parameter.normal_(std=0.1)
    config = model.config
    image = torch.randn(1, config.in_channels, *config.image_size)
    return model.to(options.device), image.to(options.device)


def ours(model: Sam) -> Encoder:
    return torch.inference_mode()(model.image_encoder)


def packed(model: Sam) -> Encoder:
    """What `Predictor` takes in bfloat16."""
    return torch.inference_mode()(with_packed_encoder(model).image_encoder)


def compiled(model: Sam) -> Encoder:
    """Our encoder through torch.compile, once for each size of a window."""
    torch._dynamo.config.recompile_limit = 64
    encoder = torch.compile(model.image_encoder, dynamic=False)
    return torch.inference_mode()(encoder)  # type: ignore[no-any-return]


def in_bfloat16(make: Callable[[Sam], Encoder]) -> Callable[[Sam], Encoder]:
    """A contestant under autocast: the lower precision that others offer."""

    def made(model: Sam) -> Encoder:
        device = next(model.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16)(make(model))

    return made


def published(model: Sam) -> Encoder:
    weights = model.state_dict()
    return torch.inference_mode()(lambda image: plain.encode(weights, model.config, image))


def segment_anything(model: Sam) -> Encoder:
    """Meta's package; its predictor wants torchvision, which the encoder does not need."""
    if model.config.image_size != (1024, 1024):
        raise ValueError("measured at 1024 x 1024 only")
    placeholders = _placeholders("torchvision")
    package = importlib.import_module("segment_anything")
    for name in placeholders:
        del sys.modules[name]
    other = package.sam_model_registry["vit_b"]()
    other.load_state_dict(model.state_dict())
    other.to(next(model.parameters()).device)
    return torch.inference_mode()(other.image_encoder)


def transformers(model: Sam) -> Encoder:
    """Hugging Face's SAM; its weights have other names, so it keeps random ones, the same each time."""
    if model.config.image_size != (1024, 1024):
        raise ValueError("measured at 1024 x 1024 only")
    torch.manual_seed(0)
    package = importlib.import_module("transformers")
    encoder = package.SamVisionModel(package.SamVisionConfig()).eval()
    encoder.to(next(model.parameters()).device)
    return torch.inference_mode()(lambda image: encoder(image).last_hidden_state)


CONTESTANTS: dict[str, Callable[[Sam], Encoder]] = {
    "samaritan": ours,
    "plain": published,
    "segment_anything": segment_anything,
    "transformers": transformers,
    "samaritan bfloat16": packed,
    "plain bfloat16": in_bfloat16(published),
    "segment_anything bfloat16": in_bfloat16(segment_anything),
    "transformers bfloat16": in_bfloat16(transformers),
}


def asked(options: argparse.Namespace) -> dict[str, Callable[[Sam], Encoder]]:
    """Those that run on the device."""
    found = dict(CONTESTANTS)
    if options.compile:
        found["samaritan compiled"] = compiled
    if options.compile and options.device != "cpu":  # oneDNN's own layouts cannot be traced
        found["samaritan compiled bfloat16"] = lambda model: compiled(with_packed_encoder(model))
    return found


class _Placeholder(ModuleType):
    """A module in which every name exists and is nothing."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> None:
        return None


def _placeholders(package: str) -> list[str]:
    try:
        importlib.import_module(package)
    except (ImportError, RuntimeError):
        names = [package, *(f"{package}.{n}" for n in ("ops", "ops.boxes", "transforms"))]
        names.append(f"{package}.transforms.functional")
        sys.modules.update({name: _Placeholder(name) for name in names})
        return names
    return []


if __name__ == "__main__":
    main()
