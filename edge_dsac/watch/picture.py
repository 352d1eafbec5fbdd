"""The picture of a run: what the robot did, what was asked of it, what drove it, how late, and in which mode, on one sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.records import Mode
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog.layout import FRESH
from edge_dsac.steplog.reading import FlightLog
from edge_dsac.steplog.summary import summarise

MODE_COLOUR = {
    "BOOT": "#d9d9d9", "IDLE": "#bfc9d6", "ARMED": "#cfe8cf", "RUNNING": "#e9f6e9", "COASTING": "#fde9b8", "DAMPED": "#f6cfa8",
    "FAULT": "#f2b4b4", "ESTOP": "#d98a8a",
}  # fmt: skip
BLUE, ORANGE, GREEN, GREY, RED = "#1f5fa8", "#e07b1a", "#2b8a3e", "#7a7f87", "#b3262a"


def draw(log: FlightLog, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    summary = summarise(log)
    if not summary["ticks"]:
        raise ValueError(f"{log.source}: holds no steps; there is nothing to draw")
    rows, t_s = log.columns, (log.columns["t_host_ns"] - log.columns["t_host_ns"][0]) * 1e-9
    panels = [panel for panel in (tilt_panel, path_panel, speed_panel, yaw_panel, command_panel, time_panel) if panel(log, rows, t_s, None)]
    figure, axes = plt.subplots(len(panels), 1, sharex=True, figsize=(11, 1.9 * len(panels) + 1.2), layout="constrained")
    for axis, panel in zip(np.atleast_1d(axes), panels, strict=True):
        panel(log, rows, t_s, axis)
        decorate(axis, summary)
    top = np.atleast_1d(axes)[0]
    name_modes(top, summary)
    np.atleast_1d(axes)[-1].set_xlabel("seconds")
    late = summary["late_us"]
    rate = f"{summary['ticks']} ticks at {summary['hz']:.2f} Hz of {summary['hz_wanted']}"
    figure.suptitle(f"{log.spec.model}: {rate}, lateness p50 {late['p50']:.0f} / p99 {late['p99']:.0f} us", fontsize=12)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def decorate(axis: Any, summary: dict[str, Any]) -> None:
    for stretch in summary["modes"]:
        axis.axvspan(stretch["at_s"], stretch["at_s"] + stretch["for_s"], color=MODE_COLOUR[stretch["mode"]], alpha=0.7, lw=0, zorder=0)
    for fault in summary["faults"]:
        axis.axvline(fault["at_s"], color=RED, lw=1, ls="--")
    axis.grid(True, color="white", lw=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="upper right", ncols=3, fontsize=8, framealpha=0.85)


def legend_above(axis: Any) -> None:
    """Between the title and the curves, where it covers nothing."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.1, ncols=3, frameon=False)
        axis.set_title(axis.get_title(), pad=20)


def name_modes(axis: Any, summary: dict[str, Any]) -> None:
    """Mode names over the top panel, where there is room for them; and why motion ended."""
    end, row = summary["seconds"], 0
    for stretch in summary["modes"]:
        moving = stretch["mode"] in (Mode.RUNNING.name, Mode.COASTING.name)
        text = stretch["mode"] if moving else f"{stretch['mode']}: {stretch['because']}"
        if stretch["for_s"] > 0.04 * end:
            axis.annotate(text, (stretch["at_s"], 1.02 + 0.07 * row), xycoords=("data", "axes fraction"), fontsize=7, color="#444")
            row = 1 - row  # neighbours do not write over one another
    for fault in summary["faults"]:
        axis.annotate(
            fault["fault"], (fault["at_s"], 0.04), xycoords=("data", "axes fraction"), fontsize=7, color=RED, rotation=90, ha="right"
        )


def column(log: FlightLog, rows: np.ndarray, term: str) -> np.ndarray | None:
    newest = ObservationLayout(log.spec).newest
    return rows["obs"][:, newest[term].start] if term in newest else None


def tilt_panel(log: FlightLog, rows: np.ndarray, t_s: np.ndarray, axis: Any) -> bool:
    tilt = column(log, rows, "pitch_rad")
    if tilt is None or axis is None:
        return tilt is not None
    limit = np.degrees(log.spec.safety.tilt_limit_rad)
    degrees = np.degrees(tilt)
    axis.plot(t_s, degrees, color=BLUE, lw=1.2, label="tilt")
    if np.abs(degrees).max() > 0.5 * limit:
        for side in (-limit, limit):
            axis.axhline(side, color=RED, lw=1, ls=":", label=f"the board cuts at {limit:.0f} deg" if side > 0 else None)
    axis.set_ylabel("tilt, deg")
    return True


def path_panel(log: FlightLog, rows: np.ndarray, t_s: np.ndarray, axis: Any) -> bool:
    off = column(log, rows, "cross_track_m")
    if off is None or axis is None:
        return off is not None
    axis.plot(t_s, off, color=BLUE, lw=1.2, label="off the path")
    seen = rows["obs"][:, ObservationLayout(log.spec).newest["obstacle"]] if "obstacle" in ObservationLayout(log.spec).newest else None
    if seen is not None:
        distance = np.where(seen[:, 3] > 0.5, np.hypot(seen[:, 0], seen[:, 1]), np.nan)
        axis.plot(t_s, distance, color=RED, lw=1, label="obstacle, distance")
    axis.set_ylabel("m")
    return True


def speed_panel(log: FlightLog, rows: np.ndarray, t_s: np.ndarray, axis: Any) -> bool:
    return measured_and_wanted(log, rows, t_s, axis, "speed_m_s", "speed_target_m_s", "speed, m/s")


def yaw_panel(log: FlightLog, rows: np.ndarray, t_s: np.ndarray, axis: Any) -> bool:
    return measured_and_wanted(log, rows, t_s, axis, "yaw_rate_rad_s", "yaw_rate_target_rad_s", "yaw rate, rad/s")


def measured_and_wanted(log: FlightLog, rows: np.ndarray, t_s: np.ndarray, axis: Any, term: str, target: str, label: str) -> bool:
    measured, wanted = column(log, rows, term), column(log, rows, target)
    if measured is None or axis is None:
        return measured is not None
    axis.plot(t_s, measured, color=BLUE, lw=1, label="measured")
    if wanted is not None:
        axis.plot(t_s, wanted, color=GREY, lw=1.2, ls="--", label="asked for")
    axis.set_ylabel(label)
    return True


def command_panel(log: FlightLog, rows: np.ndarray, t_s: np.ndarray, axis: Any) -> bool:
    if axis is None:
        return True
    for i, (joint, colour) in enumerate(zip(log.spec.joints, (BLUE, ORANGE, GREEN, GREY), strict=False)):
        axis.plot(t_s, rows["applied"][:, i], color=colour, lw=1, label=f"{joint.name}, driven")
    axis.set_ylabel(log.spec.joints[0].command_unit)
    return True


def time_panel(log: FlightLog, rows: np.ndarray, t_s: np.ndarray, axis: Any) -> bool:
    if axis is None:
        return True
    axis.semilogy(t_s, np.maximum(rows["late_ns"] / 1e3, 0.1), color=BLUE, lw=0.6, label="lateness")
    axis.semilogy(t_s, np.maximum(rows["busy_ns"] / 1e3, 0.1), color=GREEN, lw=0.6, label="own work")
    age = np.where((rows["frame_age_ns"] >= 0) & ((rows["flags"] & FRESH) != 0), rows["frame_age_ns"] / 1e3, np.nan)
    axis.semilogy(t_s, age, color=ORANGE, lw=0.6, label="age of the frame")
    axis.set_ylabel("us")
    return True
