"""What this machine says of its processor and its board. Linux on x86 and on ARM name things differently; elsewhere little is known."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
DEVICE_TREE_MODEL = Path("/proc/device-tree/model")  # "NVIDIA Jetson Orin Nano Developer Kit"
OF_THE_KIND = ("model name", "flags", "Features", "CPU part")  # the rest is of the moment: clock, temperature, which core


@cache
def facts(path: Path = CPUINFO) -> tuple[tuple[str, str], ...]:
    """Each once, though every core says it."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ()
    pairs = (line.partition(":") for line in lines)
    return tuple(dict.fromkeys((name.strip(), value.strip()) for name, _, value in pairs if name.strip() in OF_THE_KIND))


def board_model(path: Path = DEVICE_TREE_MODEL) -> str:
    """What the board calls itself; a PC has no device tree and so no such name."""
    try:
        return path.read_bytes().rstrip(b"\0").decode(errors="replace").strip()
    except OSError:
        return ""


def cpu_name(path: Path = CPUINFO) -> str:
    return next((value for name, value in facts(path) if name == "model name"), platform.processor() or "unknown processor")


def cpu_flags(path: Path = CPUINFO) -> frozenset[str]:
    return frozenset(word for name, value in facts(path) if name in ("flags", "Features") for word in value.split())


def cpu_kind(path: Path = CPUINFO) -> str:
    """All that decides which machine code runs here, and how it rounds."""
    return "\n".join(f"{name}: {value}" for name, value in sorted(facts(path))) or platform.processor()
