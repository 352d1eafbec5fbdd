"""A flight log in the formats of other tools: CSV, npz, MCAP (for Foxglove). Writes whole files, by rename."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.records import BoardMode, Event, Mode
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog.layout import FRESH, OBS_OK, LogError
from edge_dsac.steplog.reading import FlightLog

CHANNELS = {
    "frame": ("position_rad", "velocity_rad_s", "applied", "gyro_rad_s", "accel_m_s2", "battery_v", "extra"),
    "action": ("action", "applied_action", "command", "rules"),
    "timing": ("late_ns", "busy_ns", "frame_age_ns"),
}


def flat_columns(log: FlightLog) -> dict[str, np.ndarray]:
    """One plain column per number, named as in the robot file: position_rad.left_wheel, obs.pitch_rad, ..."""
    spec = log.spec
    joints, axes = [joint.name for joint in spec.joints], ["x", "y", "z"]
    names = {
        "position_rad": joints, "velocity_rad_s": joints, "applied": joints, "command": joints, "gyro_rad_s": axes, "accel_m_s2": axes,
        "extra": [extra.name for extra in spec.extras], "obs": list(ObservationLayout(spec).labels),
        "action": [part.name for part in spec.actions], "applied_action": [part.name for part in spec.actions],
    }  # fmt: skip
    columns: dict[str, np.ndarray] = {}
    for field in log.columns.dtype.names or ():
        if field in ("crc", "flags"):
            continue
        if field in names:
            for i, name in enumerate(names[field]):
                columns[f"{field}.{name}"] = log.columns[field][:, i]
        else:
            columns[field] = log.columns[field]
    columns["fresh"] = (log.columns["flags"] & FRESH) != 0
    columns["obs_ok"] = (log.columns["flags"] & OBS_OK) != 0
    return columns


def export(log: FlightLog, kind: str, out: Path) -> None:
    writer = {"csv": write_csv, "npz": write_npz, "mcap": write_mcap}[kind]
    part = out.with_name(out.name + f".part.{kind}")
    writer(log, part)
    os.replace(part, out)


def write_csv(log: FlightLog, out: Path) -> None:
    columns = flat_columns(log)
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def write_npz(log: FlightLog, out: Path) -> None:
    np.savez_compressed(out, robot_file=np.array(log.spec.text), **flat_columns(log))  # type: ignore[arg-type]


def write_mcap(log: FlightLog, out: Path) -> None:
    """JSON messages on the channels /frame, /observation, /action, /timing and /mode; the robot file as an attachment."""
    try:
        from mcap.writer import Writer
    except ImportError:
        raise LogError("MCAP export needs the package mcap: pip install 'edge_dsac[log]'") from None
    with open(out, "wb") as file:
        writer = Writer(file)
        writer.start(profile="", library="edge_dsac")
        writer.add_attachment(log.wall_start_ns, log.wall_start_ns, f"{log.spec.model}.toml", "application/toml", log.spec.text.encode())
        channels = {name: add_channel(writer, name) for name in ("frame", "observation", "action", "timing", "mode")}
        labels = ObservationLayout(log.spec).labels
        start_ns = int(log.columns["t_host_ns"][0]) if len(log.columns) else 0
        for row in log.columns:
            at_ns = log.wall_start_ns + int(row["t_host_ns"]) - start_ns
            messages: dict[str, Any] = {channel: {name: plain(row[name]) for name in fields} for channel, fields in CHANNELS.items()}
            messages["observation"] = dict(zip(labels, plain(row["obs"]), strict=True))
            messages["mode"] = {
                "mode": Mode(int(row["mode"])).name,
                "board": BoardMode(int(row["board"])).name,
                "because": Event(int(row["because"])).name,
            }
            for channel, message in messages.items():
                writer.add_message(channels[channel], at_ns, json.dumps(message).encode(), at_ns, int(row["index"]) & 0xFFFFFFFF)
        writer.finish()


def add_channel(writer: Any, name: str) -> int:
    schema = writer.register_schema(f"edge_dsac.{name}", "jsonschema", json.dumps({"type": "object"}).encode())
    return int(writer.register_channel(f"/{name}", "json", schema))


def plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: a missing reading and a policy's bad number are null."""
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, list):
        return [plain(item) for item in listed]
    return None if isinstance(listed, float) and not math.isfinite(listed) else listed
