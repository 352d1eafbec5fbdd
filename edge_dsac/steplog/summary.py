"""What a flight came to, in figures: was it really at its rate, how late, in which modes and why, what was limited."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_dsac.records import BoardMode, Event, Fault, Mode, Rule
from edge_dsac.steplog.layout import FRESH
from edge_dsac.steplog.reading import FlightLog


def spread_us(ns: np.ndarray) -> dict[str, float]:
    if not len(ns):
        return {"p50": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0}
    p50, p99, p999 = np.percentile(ns, [50, 99, 99.9])
    return {"p50": round(p50 / 1e3, 1), "p99": round(p99 / 1e3, 1), "p999": round(p999 / 1e3, 1), "max": round(float(ns.max()) / 1e3, 1)}


def summarise(log: FlightLog) -> dict[str, Any]:
    rows = log.columns
    if not len(rows):
        return {"robot": log.spec.model, "ticks": 0, "torn": log.torn, "dropped_bytes": log.dropped_bytes}
    t_s = (rows["t_host_ns"] - rows["t_host_ns"][0]) * 1e-9
    fresh = (rows["flags"] & FRESH) != 0
    aged = rows["frame_age_ns"][fresh & (rows["frame_age_ns"] >= 0)]
    moving = np.isin(rows["mode"], [Mode.RUNNING, Mode.COASTING])
    return {
        "robot": log.spec.model,
        "ticks": len(rows),
        "seconds": round(float(t_s[-1]), 3),
        "hz": round((len(rows) - 1) / float(t_s[-1]), 3) if t_s[-1] > 0 else 0.0,
        "hz_wanted": log.spec.rates.control_hz,
        "late_us": spread_us(rows["late_ns"]),
        "busy_us": spread_us(rows["busy_ns"]),
        "frame_age_us": spread_us(aged),
        "not_fresh": int((moving & ~fresh).sum()),
        "missed": int(np.maximum(np.round(np.diff(rows["t_host_ns"]) * 1e-9 * log.spec.rates.control_hz) - 1, 0).sum()),
        "modes": timeline(rows, t_s),
        "rules": {rule.name: int(((rows["rules"] & rule) != 0).sum()) for rule in Rule if rule and ((rows["rules"] & rule) != 0).any()},
        "faults": fault_edges(rows, t_s),
        "bundles": [f"{int(bundle):016x}" for bundle in dict.fromkeys(rows["bundle_id"].tolist())],
        "gaps": log.gaps,
        "torn": log.torn,
        "dropped_bytes": log.dropped_bytes,
    }


def timeline(rows: np.ndarray, t_s: np.ndarray) -> list[dict[str, Any]]:
    """One entry per stretch in a mode: since when, for how long, what led there, what the board did meanwhile."""
    edges = [0, *(np.flatnonzero(np.diff(rows["mode"])) + 1).tolist(), len(rows)]
    return [
        {
            "mode": Mode(int(rows["mode"][a])).name, "at_s": round(float(t_s[a]), 3), "for_s": round(float(t_s[b - 1] - t_s[a]), 3),
            "because": Event(int(rows["because"][a])).name, "board": BoardMode(int(rows["board"][a])).name,
        }
        for a, b in zip(edges, edges[1:], strict=False)
    ]  # fmt: skip


def fault_names(bits: int) -> str:
    """One by one: Python 3.10 has no name for two bits at once."""
    return "+".join(str(fault.name) for fault in Fault if fault and fault & bits)


def fault_edges(rows: np.ndarray, t_s: np.ndarray) -> list[dict[str, Any]]:
    """When a fault of the board appeared; the two that only describe a command are left out."""
    quiet = np.uint16(~(Fault.LIMITED | Fault.SLEWED) & 0xFFFF)
    faults = rows["faults"] & quiet
    risen = faults & ~np.concatenate([[np.uint16(0)], faults[:-1]])
    return [{"fault": fault_names(int(risen[i])), "at_s": round(float(t_s[i]), 3)} for i in np.flatnonzero(risen)]
