"""The update as one compiled function, and a machine set up for it: threads pinned, denormals flushed, memory kept.

Compiled and plain give slightly different floats, so which one ran is part of a run's resolved configuration.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from types import FunctionType
from typing import Any, Literal

import torch

from edge_dsac.learn.losses import Batch, Noise, alone
from edge_dsac.learn.networks import Params
from edge_dsac.learn.ranks import ALONE, Ranks, mean_of_ranks
from edge_dsac.learn.update import Figures, Rates, State, update

Compile = Literal["auto", "on", "off"]
Precision = Literal["float32", "bfloat16"]
PAYS_FROM_UPDATES = 4_000  # compiling takes up to a minute of one core the first time, seconds afterwards (it is cached)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class CompileError(ValueError):
    """The update cannot be compiled here."""


def prepare(threads: int, precision: Precision = "float32", device: str = "cpu") -> None:
    """Once, before anything is computed."""
    if precision == "bfloat16":
        if device == "cpu" and not multiplies_bfloat16():
            raise CompileError("--precision bfloat16: this processor has neither avx512_bf16 nor amx; train in float32")
        torch.set_float32_matmul_precision("medium")  # parameters and sums stay float32, products are of bfloat16
    if platform.machine() == "x86_64":
        # In float32 only gelu goes through oneDNN here, and 10 us go by before it begins: half of acting, nothing of an update.
        torch.backends.mkldnn.enabled = precision == "bfloat16"
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # Adam's moments decay into denormals, which some processors add 20 times slower
    keep_memory()


def multiplies_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_memory() -> None:
    """Every update allocates and frees the same few megabytes: given back to the system and faulted in anew, that is 5 % of it."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    except (OSError, AttributeError):
        pass  # not glibc: slower by that much


def default_threads() -> int:
    """For the update; one core is the collector's where there are more."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def resolve(how: Compile, updates: int, device: str) -> bool:
    """Whether to compile."""
    compiler = device != "cpu" or shutil.which(os.environ.get("CXX", "g++"))
    if how == "on" and not compiler:
        raise CompileError("--compile on: needs a C++ compiler: apt-get install g++ (or set CXX); --compile off does without")
    return bool(compiler) and (how == "on" or (how == "auto" and updates >= PAYS_FROM_UPDATES))


def make_updater(rates: Rates, compiled: bool, device: str, ranks: Ranks = ALONE) -> Any:
    forms: Any = {with_actor: compile_own(device) if compiled else update for with_actor in (True, False)}

    def of_all(values: Params) -> Params:
        return mean_of_ranks(values, ranks.count)

    joined = alone if ranks.count == 1 else of_all

    def updater(
        state: State, batch: Batch, noise: Noise, bounds: tuple[torch.Tensor, torch.Tensor], with_actor: bool, pace: torch.Tensor
    ) -> tuple[State, Figures]:
        if compiled and device != "cpu":
            torch.compiler.cudagraph_mark_step_begin()
        after: tuple[State, Figures] = forms[with_actor](state, batch, noise, bounds, rates, with_actor, pace, joined)
        return after

    return updater


def compile_own(device: str) -> Any:
    """A compiled `update` for one caller: always the same rates, the same shapes and the same `with_actor`.

    So torch need not ask at every call whether they have changed (0.3 ms of each update). It remembers what it compiled by code
    object; a copy of its own keeps this caller from being handed another's.
    """
    own = FunctionType(update.__code__.replace(), update.__globals__, update.__name__, update.__defaults__)
    options: dict[str, Any] = {
        "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
        "triton.cudagraphs": device != "cpu",  # on a GPU the whole step is replayed as one CUDA graph
    }
    if device == "cpu":
        options["realize_opcount_threshold"] = 12  # keeps the slope of gelu from the forward pass; by default it is computed again
    return torch.compile(own, fullgraph=True, dynamic=False, options=options)
