"""What the benchmarks measure alike: times in turn, memory, operations, the machine's own rate."""

from __future__ import annotations

import ctypes
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


def attention_flops(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Operations of the two products of attention, from the shapes (b, heads, tokens, channels)."""
    b, heads, queries, channels = q
    return int(2 * b * heads * queries * k[2] * (channels + v[3]))


def linear_flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Operations of a linear layer, from the shapes (..., inputs) and (outputs, inputs)."""
    return int(2 * torch.Size(x).numel() * weight[0])


def convolution_flops(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Operations of a convolution, from the shapes of its input, its weights and its output."""
    return int(conv_flop_count(x, weight, out_shape))


LEFT_OUT = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.mkldnn._linear_pointwise: linear_flops,
    torch.ops.aten.mkldnn_convolution: convolution_flops,
}
"""What torch's own counter leaves out: fused attention on a CPU, and what goes to oneDNN."""


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Where and on what the numbers were taken."""
    return {
        "torch": torch.__version__,
        "processor": processor() if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": threads,
        "load": psutil.getloadavg()[0],
        "matmul_gflops": matmul_rate(device=device),
        "matmul_gflops_bfloat16": matmul_rate(torch.bfloat16, device),
    }


def processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def matmul_rate(dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """GFLOP/s of a matrix product of torch, the best of five."""
    side = 2048 if device == "cpu" else 8192
    a, b = torch.randn(2, side, side).to(device, dtype)
    times = in_turn({"product": lambda: a @ b}, 5, device)["product"]
    return 2 * side**3 / min(times) / 1e9


def gflop(work: Callable[[], Any]) -> float:
    """Operations of one call, in units of 10^9; products alone are counted."""
    with FlopCounterMode(display=False, custom_mapping=LEFT_OUT) as counter:
        work()
    return float(counter.get_total_flops()) / 1e9


def in_turn(
    works: Mapping[str, Callable[[], Any]], rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of every work, round after round, so that a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            wait(device)
            start = time.perf_counter()
            work()
            wait(device)
            times[name].append(time.perf_counter() - start)
    return times


def wait(device: str) -> None:
    """Until the device has done all that it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def median_ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """The median over rounds of how often one took as long as the other."""
    return statistics.median(t / b for t, b in zip(times, base, strict=True))


def give_back() -> None:
    """Return memory that is free but held to the system, so that using it again counts."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def memory_held(device: str = "cpu") -> int:
    """Bytes of this process: resident, or in tensors of a GPU."""
    if device != "cpu":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


@contextmanager
def sampled_memory(device: str = "cpu") -> Iterator[Callable[[], float]]:
    """The highest memory inside the block, above that at its start, in bytes: resident, or a GPU's."""
    if device != "cpu":
        held = memory_held(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - held
        return
    process, stop = psutil.Process(), threading.Event()
    start = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not stop.is_set():
            highest = max(highest, process.memory_info().rss)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    yield lambda: highest - start
    stop.set()
    thread.join()
