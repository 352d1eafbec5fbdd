"""What may differ between one robot and the next, and how far: one TOML file per answer, read as strictly as a robot file.

A file gives each quantity as `[low, high]`; both the same is a fixed value. `nominal` is the robot as designed, `full` is
what policies are trained against, `hidden` is the "real" robot of the tests: changed in ways nobody is told.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.records import Float
from edge_dsac.spec.schema import Reader, SpecError, fact, parse_toml

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ranges:
    mass_scale: Range = fact("all masses and inertias", low=0.2, high=5.0)
    com_up_m: Range = fact("centre of mass of the chassis, up", low=-0.1, high=0.1)
    com_forward_m: Range = fact("centre of mass of the chassis, forward", low=-0.1, high=0.1)
    motor_constant_scale: Range = fact("torque and back-EMF constant", low=0.2, high=3.0)
    friction_scale: Range = fact("dry friction of the joints", low=0.0, high=10.0)
    damping_scale: Range = fact("viscous friction of the joints", low=0.0, high=10.0)
    wheel_radius_scale: Range = fact("wheel radius", low=0.5, high=2.0)
    ground_friction_scale: Range = fact("grip of the tyres", low=0.1, high=3.0)
    delay_s: Range = fact("from a command to the voltage at the motor", low=0.0, high=0.1)
    dead_band: Range = fact("duty below which the motor sees nothing", low=0.0, high=0.5)
    battery_scale: Range = fact("open-circuit voltage over nominal", low=0.5, high=1.5)
    battery_ohm: Range = fact("internal resistance", low=0.0, high=2.0)
    gyro_noise_rad_s: Range = fact("white noise of the gyro", low=0.0, high=1.0)
    accel_noise_m_s2: Range = fact("white noise of the accelerometer", low=0.0, high=5.0)
    gyro_bias_rad_s: Range = fact("constant error of the gyro, each axis drawn anew", low=-1.0, high=1.0)
    accel_bias_m_s2: Range = fact("constant error of the accelerometer, each axis drawn anew", low=-5.0, high=5.0)
    radar_noise_m: Range = fact("white noise of the radar", low=0.0, high=1.0)
    radar_dropout: Range = fact("share of readings in which the radar sees nothing", low=0.0, high=1.0)


PER_AXIS = ("gyro_bias_rad_s", "accel_bias_m_s2")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One value per robot of a batch, `[n]`; the biases `[n, 3]`."""

    values: dict[str, Float]

    def __getitem__(self, name: str) -> Float:
        return self.values[name]


def shipped_ranges() -> list[str]:
    folder = resources.files("sim") / "randomization"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_ranges(name_or_path: str) -> Ranges:
    """A shipped set by name, or any file by its path."""
    path = Path(name_or_path)
    if path.suffix != ".toml" and "/" not in name_or_path:
        if name_or_path not in shipped_ranges():
            guess = difflib.get_close_matches(name_or_path, shipped_ranges(), 1)
            advice = f"did you mean {guess[0]!r}?" if guess else f"shipped: {', '.join(shipped_ranges())}; or give the path of a .toml file"
            raise SpecError(f"randomization {name_or_path!r} is not known; {advice}")
        path = Path(str(resources.files("sim") / "randomization" / f"{name_or_path}.toml"))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    reader = Reader(text, str(path))
    ranges = reader.read(Ranges, parse_toml(text, str(path)), "")
    for field in dataclasses.fields(Ranges):
        low, high = getattr(ranges, field.name)
        if low > high:
            raise reader.error(field.name, "the low end first", f"[{low:g}, {high:g}]")
    return ranges


def draw(ranges: Ranges, n: int, generator: np.random.Generator) -> Drawn:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Ranges):
        low, high = getattr(ranges, field.name)
        size = (n, 3) if field.name in PER_AXIS else (n,)
        values[field.name] = generator.uniform(low, high, size) if high > low else np.full(size, low)
    return Drawn(values)
