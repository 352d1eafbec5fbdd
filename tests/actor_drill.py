"""The same made-up observations, in numpy, to the reference; and builds of actor_drill.c around a generated actor."""

import ctypes
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.integer import make_integer
from edge_dsac.bundle.targets import TARGETS, compile_actor

HERE = Path(__file__).parent / "firmware"
QEMU_PARTS = Path(__file__).parents[1] / "firmware_bridge" / "firmware" / "qemu"
CLIP = 10.0


def random_actor(sizes, activation="gelu", seed=0, gain=2.0, squash="tanh"):
    generator = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        bound = gain / np.sqrt(inputs)
        layers.append(tuple(generator.uniform(-bound, bound, shape).astype(np.float32) for shape in ((outputs, inputs), outputs)))
    return Actor(tuple(layers), activation, np.ones(sizes[0], np.float32), "0", 1, squash)


def made_integer(actor, seed=1, form="int8"):
    obs = np.random.default_rng(seed).standard_normal((1000, actor.sizes[0]))
    return make_integer(actor, obs, np.full(actor.sizes[0], CLIP), form)


def made_up_observations(count, size):
    """The drill's own sequence: (whole, real)."""
    n = count * size
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(n, 1664525, np.uint32), dtype=np.uint32)
        sums = np.cumsum(np.concatenate([np.ones(1, np.uint32), powers[:-1]]), dtype=np.uint32)
        state = powers + sums * np.uint32(1013904223)
    whole = (state >> np.uint32(16)).astype(np.uint16).view(np.int16).reshape(count, size)
    real = whole.astype(np.float32) / np.float32(2048.0)
    real[63::64, 0] = np.nan
    real[63::128, -1], real[127::128, -1] = np.inf, -np.inf
    return whole, real


def hash_of(answers):
    total, mask = 0xCBF29CE484222325, (1 << 64) - 1
    for value in answers.astype(np.int16).view(np.uint16).ravel().tolist():
        total = ((total ^ value) * 0x100000001B3) & mask
    return total


@cache
def drill_case(sizes, activation="gelu", squash="tanh", form="int8", count=100_000):
    """(actor, in whole numbers, what the drill must come to): processors take turns at the same one."""
    actor = random_actor(sizes, activation, squash=squash)
    integer = made_integer(actor, form=form)
    return actor, integer, expected(integer, count)


def expected(integer, count):
    whole, real = made_up_observations(count, len(integer.obs_scale))
    answers = [integer.act_integer(whole), integer.act_integer(integer.whole(real[7::8]))]
    return tuple(hash_of(each) for each in answers)


def drilled_here(actor, integer, target, count):
    """By a target this processor can run, in this process."""
    text = (HERE / "actor_drill.c").read_text().replace('#include "actor_sizes.h"', sizes_header(actor, count))
    library = loaded(compile_actor(make_c(actor, integer) + text, TARGETS[target]))
    hashes = (ctypes.c_uint64 * 2)()
    library.drill(count, hashes)
    return tuple(hashes)


def loaded(content):
    from edge_dsac.bundle.native_engine import load_library

    return load_library(content)


def sizes_header(actor, count):
    return f"#define OBSERVATIONS {actor.sizes[0]}\n#define ACTIONS {actor.sizes[-1]}\n#define COUNT {count}u\n"


def drill_program(actor, integer, count, folder, triple, cpu, *words):
    """An executable of its own for another processor."""
    (folder / "actor.c").write_text(make_c(actor, integer))
    (folder / "actor_sizes.h").write_text(sizes_header(actor, count))
    out = folder / f"drill-{cpu}"
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        triple,
        f"-mcpu={cpu}",
        "-std=gnu11",
        "-O2",
        "-DPROGRAM",
        "-fno-sanitize=all",
    ]
    command += [f"-I{folder}", *words, str(HERE / "actor_drill.c"), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def as_hashes(line):
    return tuple(int(word, 16) for word in line.split())
