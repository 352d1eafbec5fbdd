"""Compiles the firmware with the pip-installed zig: the host library that tests and the virtual board run, and the Cortex-M image.

Works for any robot file, not only for those that ship: its header is generated into the build folder. Results are cached by
the content of everything that goes in, so a second call costs nothing. Knows no board and no protocol.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from edge_dsac.spec.robot import RobotSpec
from firmware_bridge.errors import BuildFailed
from firmware_bridge.header import FIRMWARE, make_messages_header, make_robot_header

CORE = ("framing.c", "safety.c", "fallback.c", "session.c", "board.c")
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-Wno-sign-conversion")
# Everywhere the same sums: one compiler would fuse a product and an addition, the other would not.
ARITHMETIC = ("-ffp-contract=off",)
SHARED = ("-shared", "-fPIC", "-fvisibility=hidden")
HOST_FLAGS = ("-O2", *SHARED, "-fno-sanitize=all")
SANITIZED_FLAGS = ("-O1", "-g", *SHARED, "-fsanitize=undefined,float-cast-overflow,float-divide-by-zero", "-fsanitize-trap=all")
QEMU_FLAGS = (
    "-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4", "-Os", "-ffreestanding", "-fno-sanitize=all", "-ffunction-sections",
    "-fdata-sections", "-Wl,--gc-sections",
)  # fmt: skip


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge_dsac"


def build_host_library(spec: RobotSpec, folder: Path | None = None, sanitize: bool = False) -> Path:
    """The firmware as a shared library for this machine. `sanitize`: any undefined behaviour ends the process."""
    flags = SANITIZED_FLAGS if sanitize else HOST_FLAGS
    return build(spec, "host-ubsan.so" if sanitize else "host.so", (*CORE, "hal_host.c"), flags, folder)


def build_qemu_image(spec: RobotSpec, folder: Path | None = None) -> Path:
    """The firmware for qemu's mps2-an386 (Cortex-M4)."""
    script = FIRMWARE / "qemu" / "mps2.ld"
    flags = (*QEMU_FLAGS, f"-I{script.parent}", f"-Wl,-T,{script}")
    return build(spec, "qemu.elf", (*CORE, "qemu/hal_qemu.c", "qemu/start.c"), flags, folder)


def build(spec: RobotSpec, name: str, sources: tuple[str, ...], flags: tuple[str, ...], folder: Path | None) -> Path:
    headers = {"robot_spec.h": make_robot_header(spec), "messages.h": make_messages_header()}
    target = (folder or cache_folder()) / f"{spec.model}-{digest(headers, sources, flags)}-{name}"
    if target.exists():
        return target
    if importlib.util.find_spec("ziglang") is None:
        raise BuildFailed("compiling the firmware needs zig: pip install 'edge_dsac[sim]' (it brings ziglang)")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        for header, text in headers.items():
            (Path(work) / header).write_text(text)
        out = Path(work) / name
        command = [sys.executable, "-m", "ziglang", "cc", *WARNINGS, *ARITHMETIC, *flags, f"-I{work}", f"-I{FIRMWARE}"]
        command += [str(FIRMWARE / source) for source in sources] + ["-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildFailed(
                f"firmware of {spec.model}: {name} does not compile:\n{done.stderr.strip()}\nthe command was: {' '.join(command)}"
            )
        os.replace(out, target)  # two builders at once each leave a whole file
    return target


def digest(headers: dict[str, str], sources: tuple[str, ...], flags: tuple[str, ...]) -> str:
    """Of everything that goes in. A source that is not listed counts as well: it may be a header."""
    compiler = importlib.metadata.version("ziglang") if importlib.util.find_spec("ziglang") else "none"
    asked = (sorted(headers.items()), sources, WARNINGS, ARITHMETIC, flags, compiler)
    everything = hashlib.sha256(repr(asked).encode())
    for path in sorted(FIRMWARE.rglob("*")):
        if path.suffix in (".c", ".h", ".ld") and "robots" not in path.parts and "generated" not in path.parts:
            everything.update(path.name.encode() + path.read_bytes())
    return everything.hexdigest()[:16]
