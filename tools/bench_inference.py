"""What one action costs, numpy in to numpy out, at batch 1: this project's engines beside onnxruntime and torch.

    python tools/bench_inference.py [--turns 40] [--json] [--out bench/inference.json]

Three networks with random weights: 12-64-64-2, 17-256x3-6, 376-256x3-17. Engines take turns of 500 calls each, so that what else
runs on the machine hits all alike; `paced` has a sleep of 1 ms before each call, as a robot's loop has, and is what a robot sees.
A ratio is the median over turns of the ratios of the turns' own quantiles: above 1, ours is quicker.

`bound_us` is what this machine allows the whole-number engine: its weights' bytes over the measured rate at which one core
reads so many bytes again and again, plus the measured cost of calling a C function that does nothing, in the same way.
`nothing` is that function, timed like an engine: its p99.9 is what the machine itself puts into everybody's.
Asks for SCHED_FIFO (says whether it got it); engines that are not installed are listed with the reason.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.integer import make_integer
from edge_dsac.bundle.native_engine import NativeActor, NativeNetwork, load_library
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.targets import TARGETS, best_target, compile_actor
from edge_dsac.loop.realtime import ask_for_realtime, release_realtime
from edge_dsac.profile.choose import machine_name
from edge_dsac.profile.measure import timed
from edge_dsac.records import Observation

NETS = {"12-64-64-2": (12, 64, 64, 2), "17-256x3-6": (17, 256, 256, 256, 6), "376-256x3-17": (376, 256, 256, 256, 17)}
CALLS, PACED_CALLS = 500, 25
ROUGH_CLIP = 10.0
# Reads `bytes` again and again, 32 at a time, eight sums: nothing but loads. `nothing` is an actor that does nothing.
PROBE = """
#include <stdint.h>
typedef int64_t wide __attribute__((vector_size(32), aligned(32)));
__attribute__((visibility("default"))) int64_t read_all(const char *from, int64_t bytes, int64_t times) {
  wide s[8] = {{0}};
  for (int64_t i = 0; i < times; i++) {
    for (int64_t k = 0; k + 256 <= bytes; k += 256)
      for (int j = 0; j < 8; j++) s[j] ^= *(const wide *)(from + k + 32 * j);
    __asm__ volatile("" ::: "memory");
  }
  wide all = s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
  return all[0] ^ all[1] ^ all[2] ^ all[3];
}
__attribute__((visibility("default"))) void actor_nothing(const float *obs, float *action) { (void)obs, (void)action; }
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40, help=f"of {CALLS} calls each (default: %(default)s)")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--only", nargs="+", metavar="ENGINE", help="of numpy, native-float32, native-int8, onnxruntime, torch-eager")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress on standard error")
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    args = parser.parse_args()
    grants = ask_for_realtime(None)
    realtime = {grant.what: grant.granted for grant in grants}
    target = best_target([target.file for target in TARGETS.values()])
    if target is None:
        raise SystemExit("no target of the generated C runs on this machine")
    nets = []
    for name in args.nets:
        print(f"{name} ...", file=sys.stderr, flush=True)
        nets.append(bench(name, NETS[name], target, args.turns, args.only))
    release_realtime()
    words = {"machine": machine_name(), "realtime": realtime, "target": target.file, "turns": args.turns, "calls": CALLS, "nets": nets}
    if args.out:
        args.out.write_text(json.dumps(words, indent=1) + "\n")
    print(json.dumps(words) if args.json else "\n\n".join(table(net) for net in nets))
    return 0


def bench(name: str, sizes: tuple[int, ...], target: Any, turns: int, only: list[str] | None) -> dict[str, Any]:
    actor = random_actor(sizes)
    obs = np.random.default_rng(1).standard_normal((64, sizes[0])).astype(np.float32)
    integer = make_integer(actor, obs, np.full(sizes[0], ROUGH_CLIP))
    library = compile_actor(make_c(actor, integer), target)
    makers: dict[str, Callable[[], Any]] = {
        "numpy": lambda: NumpyMlp(actor),
        "native-float32": lambda: NativeNetwork(library, actor, 1),
        "native-int8": lambda: NativeActor(library, "integer", sizes, 1),
        "onnxruntime": lambda: make_onnxruntime(actor),
        "torch-eager": lambda: TorchEager(actor),
    }
    engines, skipped = {}, {}
    for engine, make in makers.items():
        needs = {"onnxruntime": "onnxruntime", "torch-eager": "torch"}.get(engine)
        if only and engine not in only:
            continue
        if needs and importlib.util.find_spec(needs) is None:
            skipped[engine] = f"{needs} is not installed"
        else:
            engines[engine] = make()
    check(engines, actor, obs)
    weights = {
        form: sum(layer.weight.nbytes for layer in integer.layers) if form == "int8" else sum(w.nbytes for w, _ in actor.layers)
        for form in ("int8", "float32")
    }
    seen = [Observation(row, 0, True) for row in obs]
    probe = load_library(compile_actor(PROBE, target))
    hot: dict[str, list[list[int]]] = {engine: [] for engine in engines}
    paced: dict[str, list[list[int]]] = {engine: [] for engine in engines}
    bounds: dict[str, list[float]] = {"int8": [], "float32": []}
    nothing = NativeActor(compile_actor(PROBE, target), "nothing", sizes, 1)
    gc.disable()
    for engine in engines.values():
        timed(engine, seen, CALLS, 0.0)
    idle: list[list[int]] = []
    for _ in range(turns):
        idle.append(timed(nothing, seen, CALLS, 0.0))
        call_us = float(np.median(idle[-1])) / 1000.0
        for form in bounds:
            bounds[form].append(call_us + read_us(probe, weights[form]))
        for engine in engines:
            hot[engine].append(timed(engines[engine], seen, CALLS, 0.0))
            paced[engine].append(timed(engines[engine], seen, PACED_CALLS, 0.001))
    gc.enable()
    bound = {form: float(np.median(values)) for form, values in bounds.items()}
    figures: dict[str, Any] = {engine: {**quantiles(hot[engine]), "paced": quantiles(paced[engine])} for engine in engines}
    figures |= {engine: {"skipped": why} for engine, why in skipped.items()}
    return {
        "name": name, "bound_us": round(bound["int8"], 3), "bound_float32_us": round(bound["float32"], 3), "weight_bytes": weights,
        "nothing": quantiles(idle), "engines": figures, "ratio": ratios(hot, bounds),
    }  # fmt: skip


def ratios(hot: dict[str, list[list[int]]], bounds: dict[str, list[float]]) -> dict[str, float]:
    found = {}
    for ours in ("native-int8", "native-float32"):
        if ours not in hot:
            continue
        for other in hot:
            if other != ours:
                found[f"{other} over {ours}, p50"] = paired(hot[other], hot[ours], 0.5)
                found[f"{other} over {ours}, p99.9"] = round(pooled(hot[other], 0.999) / pooled(hot[ours], 0.999), 2)
        bound = bounds[ours.removeprefix("native-")]
        found[f"{ours} over its bound, p50"] = round(
            float(np.median([np.median(turn) / 1000.0 / b for turn, b in zip(hot[ours], bound, strict=True)])), 2
        )
    return found


def paired(slow: list[list[int]], quick: list[list[int]], share: float) -> float:
    return round(float(np.median([np.quantile(a, share) / np.quantile(b, share) for a, b in zip(slow, quick, strict=True)])), 2)


def pooled(turns: list[list[int]], share: float) -> float:
    return float(np.quantile(np.concatenate(turns), share))


def quantiles(turns: list[list[int]]) -> dict[str, float]:
    times = np.concatenate(turns) / 1000.0
    shares = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999, "max_us": 1.0}
    return {name: round(float(np.quantile(times, share)), 2) for name, share in shares.items()}


def read_us(probe: Any, size: int, times: int = 200) -> float:
    """Once through so many bytes. Rounded up to the 256 the probe reads at a time."""
    import ctypes

    probe.read_all.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    memory = np.zeros(size + 512, np.uint8)
    at = memory.ctypes.data
    at += -at % 64
    whole = -(-size // 256) * 256
    probe.read_all(at, whole, 20)
    begun = time.perf_counter_ns()
    probe.read_all(at, whole, times)
    return (time.perf_counter_ns() - begun) / times / 1000.0


def check(engines: dict[str, Any], actor: Actor, obs: np.ndarray) -> None:
    """A quick engine that answers something else is not quick."""
    for name, engine in engines.items():
        allowed = 0.2 if name == "native-int8" else 1e-5
        for row in obs[:8]:
            wrong = np.abs(engine.act(Observation(row, 0, True)) - actor.act(row)).max()
            assert wrong < allowed, f"{name} is {wrong} off"


def random_actor(sizes: tuple[int, ...]) -> Actor:
    generator = np.random.default_rng(0)
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        bound = 2.0 / np.sqrt(inputs)
        weight, bias = generator.uniform(-bound, bound, (outputs, inputs)), generator.uniform(-bound, bound, outputs)
        layers.append((weight.astype(np.float32), bias.astype(np.float32)))
    return Actor(tuple(layers), "gelu", np.ones(sizes[0], np.float32), "0" * 8, 1)


def make_onnxruntime(actor: Actor) -> Any:
    from edge_dsac.bundle.export import make_graph
    from edge_dsac.bundle.ort_engine import Bound, open_session

    return Bound(open_session(make_graph(actor, np.eye(actor.sizes[-1]), {})), actor.sizes[0], actor.sizes[-1])


class TorchEager:
    """As people deploy it: a Sequential under no_grad, one thread."""

    def __init__(self, actor: Actor) -> None:
        import torch

        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        self.torch = torch
        parts: list[Any] = []
        for weight, bias in actor.layers:
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(weight))
                linear.bias.copy_(torch.from_numpy(bias))
            parts += [linear, torch.nn.GELU()]
        self.net = torch.nn.Sequential(*parts[:-1], torch.nn.Tanh())
        self.no_grad = torch.no_grad

    def act(self, obs: Observation) -> np.ndarray:
        with self.no_grad():
            return np.asarray(self.net(self.torch.from_numpy(obs.vector)).numpy())


def table(net: dict[str, Any]) -> str:
    lines = [f"{net['name']:16} {'p50':>8} {'p99':>8} {'p99.9':>8} {'max':>8}   {'paced p50':>9} {'p99':>8} us"]
    for engine, figures in net["engines"].items():
        if "skipped" in figures:
            lines.append(f"  {engine:14} skipped: {figures['skipped']}")
            continue
        lines.append(
            f"  {engine:14} {figures['p50_us']:8.2f} {figures['p99_us']:8.2f} {figures['p999_us']:8.2f} {figures['max_us']:8.1f}   "
            f"{figures['paced']['p50_us']:9.2f} {figures['paced']['p99_us']:8.2f}"
        )
    idle = net["nothing"]
    lines.append(f"  {'nothing':14} {idle['p50_us']:8.2f} {idle['p99_us']:8.2f} {idle['p999_us']:8.2f} {idle['max_us']:8.1f}")
    lines.append(f"  bound: int8 {net['bound_us']:.2f}, float32 {net['bound_float32_us']:.2f}")
    return "\n".join(lines + [f"  {name:44} {value}" for name, value in net["ratio"].items()])


if __name__ == "__main__":
    sys.exit(main())
