"""Observations that int8 ranges are taken from: chosen, described, stored with where they come from. numpy alone.

Who records them does not matter here (sim/recording.py, or a flight log). Knows no policy and no simulator. Rule that must stay
true: what errors are measured on (`held_out`) is neither what ranges were taken from nor its neighbour in time.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

BLOCK = 100  # rows that stay together: a second at 100 Hz, past which a balancing robot's state has forgotten itself
HELD_OUT = 0.4  # share of the blocks; a 99th percentile wants thousands of rows, a minimum and a maximum do not
GRID = 128  # steps of a clip within which two observations count as the same; int8 sees no more of them
MOST = 4000  # rows to calibrate on: extremes of the observations are always among them, those of hidden units only likely so
MARGIN = 1.5  # how far `widened` reaches: unseen rows then stayed within .13 of an action; at 1.0 single ones were off by .4 and more
LITTLE = 0.02  # of the clip range: a term that moved less was not exercised


class CalibrationError(ValueError):
    """Observations that no range may be taken from, and why."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Enough to record the same again."""

    robot: str
    policy_fingerprint: str
    policy: str  # identity of the weights that drove, 16 hex digits
    source: str  # "simulation", or the flight log's name
    seeds: tuple[int, ...]
    randomization: str
    seconds: float
    robots: int


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Both in SI, float32 [rows, n]."""

    calibration: Float
    held_out: Float
    provenance: Provenance


def make_set(obs: Float, spec: RobotSpec, provenance: Provenance, seed: int) -> CalibrationSet:
    """`obs[rows, n]` in SI, robot after robot in the order of time."""
    obs = checked(obs, spec)
    calibration, held_out = split(obs, seed)
    return CalibrationSet(choose(calibration, ObservationLayout(spec).clip, seed), held_out, provenance)


def checked(obs: Float, spec: RobotSpec) -> Float:
    size = ObservationLayout(spec).size
    if obs.ndim != 2 or obs.shape[1] != size:
        raise CalibrationError(f"{spec.model}: expected observations [rows, {size}], got {obs.shape}")
    bad = int((~np.isfinite(obs)).any(axis=1).sum())
    if bad:
        raise CalibrationError(f"{spec.model}: {bad} of {len(obs)} observations hold NaN or infinity; record them again")
    return np.asarray(obs, np.float32)


def split(obs: Float, seed: int) -> tuple[Float, Float]:
    """(calibration, held out), by whole blocks: consecutive ticks are nearly the same row."""
    blocks = [obs[at : at + BLOCK] for at in range(0, len(obs), BLOCK)]
    if len(blocks) < 5:
        raise CalibrationError(f"{len(obs)} observations are {len(blocks)} blocks of {BLOCK}; at least 5 are needed: record for longer")
    order = np.random.default_rng(seed).permutation(len(blocks))
    cut = round(len(blocks) * (1.0 - HELD_OUT))
    first, second = (np.concatenate([blocks[i] for i in sorted(part)]) for part in (order[:cut], order[cut:]))
    return first, second


def choose(obs: Float, clip: Float, seed: int, most: int = MOST) -> Float:
    """At most `most` rows: each term's lowest and highest, then a random choice of rows that differ."""
    _, different = np.unique(np.rint(obs / clip * GRID).astype(np.int32), axis=0, return_index=True)
    extremes = np.unique(np.concatenate([obs.argmin(axis=0), obs.argmax(axis=0)]))
    others = np.setdiff1d(different, extremes)
    room = max(0, min(most - len(extremes), len(others)))
    picked = np.random.default_rng(seed).choice(others, room, replace=False)
    return np.asarray(obs[np.sort(np.concatenate([extremes, picked]))])


def widened(obs: Float, clip: Float, margin: float = MARGIN) -> Float:
    """The rows, and the same further from rest: a range with a unit of its own per neuron has no neighbours to borrow room from."""
    return np.concatenate([obs, np.clip(margin * obs, -clip, clip)]).astype(np.float32)


# ---- what was seen of what there is


@dataclass(frozen=True, slots=True)
class TermCoverage:
    label: str
    low: float  # SI
    high: float
    share: float  # of the range from -clip to clip
    at_clip: float  # share of the rows that lie at the clip

    @property
    def warning(self) -> str:
        """Empty if there is nothing to say."""
        if self.high == self.low:
            return f"{self.label} never moved: it was {self.low:g} in every row; its range in int8 is a guess"
        if self.share < LITTLE:
            return f"{self.label} moved over {self.share:.1%} of its range only"
        if self.at_clip > 0.05:
            return f"{self.label} lies at its clip in {self.at_clip:.0%} of the rows; is the clip of the robot file too narrow?"
        return ""


def coverage(obs: Float, spec: RobotSpec) -> list[TermCoverage]:
    layout = ObservationLayout(spec)
    low, high = obs.min(axis=0), obs.max(axis=0)
    share = (high - low) / (2.0 * layout.clip)
    at_clip = (np.abs(obs) >= layout.clip * (1.0 - 1e-6)).mean(axis=0)
    columns = zip(layout.labels, low.tolist(), high.tolist(), share.tolist(), at_clip.tolist(), strict=True)
    return [TermCoverage(*column) for column in columns]


def warnings(obs: Float, spec: RobotSpec) -> list[str]:
    return [term.warning for term in coverage(obs, spec) if term.warning]


# ---- as a file


def make_set_file(chosen: CalibrationSet) -> bytes:
    out = io.BytesIO()
    words = json.dumps(asdict(chosen.provenance), sort_keys=True)
    np.savez_compressed(out, calibration=chosen.calibration, held_out=chosen.held_out, provenance=np.array(words))
    return out.getvalue()


def load_set(path: str | Path, spec: RobotSpec) -> CalibrationSet:
    try:
        with np.load(path, allow_pickle=False) as file:
            calibration, held_out, words = file["calibration"], file["held_out"], str(file["provenance"])
        provenance = json.loads(words)
        made = Provenance(**{**provenance, "seeds": tuple(provenance["seeds"])})
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error}") from None
    except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CalibrationError(f"{path}: not a set of calibration observations: {error}") from None
    if made.policy_fingerprint != spec.policy_fingerprint:
        raise CalibrationError(
            f"{path}: recorded for policy {made.policy_fingerprint}, {spec.model} has {spec.policy_fingerprint}; record it again"
        )
    return CalibrationSet(checked(calibration, spec), checked(held_out, spec), made)
