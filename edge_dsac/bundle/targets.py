"""Compiles an actor's C file for every processor it may meet, with the pip-installed zig: the robot needs no compiler.

A shared object has nothing to link and nothing to look up: it loads under any libc. Knows no robot and no bundle.
Rule that must stay true: `best_target` names nothing this processor cannot run.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edge_dsac.bundle.processor import cpu_flags

# -g0: what a debugger would read names the temporary folder, and the same actor would give other bytes each time.
COMMON = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-ffreestanding", "-nostdlib", "-fno-sanitize=all", "-g0")
SHARED = ("-O3", "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-s")
OBJECT = ("-O2", "-c", "-ffunction-sections", "-fdata-sections")


class CompileError(ValueError):
    """An actor that could not be compiled, and what the compiler said."""


@dataclass(frozen=True, slots=True)
class Target:
    file: str  # in a bundle
    triple: str
    cpu: str
    machine: str  # as platform.machine() has it; "" cannot run under an operating system
    flags: frozenset[str] = frozenset()  # of /proc/cpuinfo, which it needs

    @property
    def words(self) -> tuple[str, ...]:
        return ("-target", self.triple, f"-mcpu={self.cpu}", *COMMON, *(SHARED if self.machine else OBJECT))


V3 = frozenset({"avx2", "fma", "bmi1", "bmi2"})
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"}
# The quickest of each machine first.
TARGETS = {
    "x86_64_v4": Target("native/x86_64_v4.so", "x86_64-linux-gnu", "x86_64_v4+avx512vnni", "x86_64", V4),
    "x86_64_v3": Target("native/x86_64_v3.so", "x86_64-linux-gnu", "x86_64_v3", "x86_64", V3),
    "x86_64_v2": Target("native/x86_64_v2.so", "x86_64-linux-gnu", "x86_64_v2", "x86_64", frozenset({"ssse3", "sse4_1"})),
    "aarch64_dotprod": Target("native/aarch64_dotprod.so", "aarch64-linux-gnu", "generic+dotprod", "aarch64", frozenset({"asimddp"})),
    "aarch64": Target("native/aarch64.so", "aarch64-linux-gnu", "generic", "aarch64"),
    "cortex_m4": Target("native/cortex_m4.o", "thumb-freestanding-eabi", "cortex_m4", ""),
}


def compile_actor(source: str, target: Target, more: tuple[str, ...] = ()) -> bytes:
    """The shared object, or for a microcontroller the object file."""
    if importlib.util.find_spec("ziglang") is None:
        raise CompileError("compiling an actor needs zig: pip install 'edge_dsac[compile]' (it brings ziglang)")
    with tempfile.TemporaryDirectory() as folder:
        c_file, out = Path(folder) / "actor.c", Path(folder) / "actor.bin"
        c_file.write_text(source)
        command = [sys.executable, "-m", "ziglang", "cc", *target.words, *more, c_file.name, "-o", out.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)  # the same names each time
        if done.returncode != 0:
            raise CompileError(
                f"{target.file}: the actor's C file does not compile:\n{done.stderr.strip()}\nthe command was: {' '.join(command)}"
            )
        return out.read_bytes()


def compile_for_all(source: str, targets: Iterable[Target] = tuple(TARGETS.values())) -> dict[str, bytes]:
    """File name in the bundle -> content. As many compilers at once as there are cores."""
    wanted = tuple(targets)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        made = pool.map(lambda target: compile_actor(source, target), wanted)
        return {target.file: content for target, content in zip(wanted, made, strict=True)}


def best_target(present: Iterable[str], machine: str = "", flags: frozenset[str] = frozenset()) -> Target | None:
    """Of the files `present`, the quickest that runs here; None: none does. `machine` and `flags` default to this processor's."""
    files = set(present)
    if not machine:
        machine, flags = platform.machine(), cpu_flags()
    for target in TARGETS.values():
        if target.file in files and target.machine == machine and target.flags <= flags:
            return target
    return None
