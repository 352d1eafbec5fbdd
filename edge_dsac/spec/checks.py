"""What one key cannot say about itself: the checks across a robot file. Each failure names the keys on both sides."""

from __future__ import annotations

import difflib
from collections import Counter

import numpy as np

from edge_dsac.spec.layout import TERMS
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.spec.schema import Reader

SMALLEST_TIMEOUT_PERIODS = 2.0  # one late command must not stop a healthy robot
BITS_PER_BYTE_ON_UART = 10
FRAME_OVERHEAD_BYTES = 10 + 4 + 2  # header, CRC, COBS and delimiter
MAX_JOINTS = 12  # the firmware's fixed buffers


def check_robot(spec: RobotSpec, reader: Reader) -> None:
    check_names(spec, reader)
    check_rates(spec, reader)
    check_joints(spec, reader)
    check_actions(spec, reader)
    check_observations(spec, reader)
    check_safety(spec, reader)
    check_bandwidth(spec, reader)


def check_names(spec: RobotSpec, reader: Reader) -> None:
    if not spec.model.isidentifier() or len(spec.model) > 15:
        raise reader.error("model", "a name of letters, digits and _ of at most 15 characters", repr(spec.model))
    if not 1 <= len(spec.joints) <= MAX_JOINTS:
        raise reader.error("joints", f"1 to {MAX_JOINTS} joints", str(len(spec.joints)))
    lists = {
        "joints": [joint.name for joint in spec.joints],
        "actions": [part.name for part in spec.actions],
        "extras": [extra.name for extra in spec.extras],
        "observations": [entry.term for entry in spec.observations],
        "rewards": [entry.term for entry in spec.rewards],
    }
    for table, names in lists.items():
        for name, count in Counter(names).items():
            if count > 1:
                second = [i for i, other in enumerate(names) if other == name][1]
                key = "term" if table in ("observations", "rewards") else "name"
                raise reader.error(f"{table}[{second}].{key}", "a name used once", f"{name!r} a second time", "rename or remove one")


def check_rates(spec: RobotSpec, reader: Reader) -> None:
    rates = spec.rates
    for fast, slow in (("sensor_hz", "control_hz"), ("board_hz", "sensor_hz")):
        if getattr(rates, fast) % getattr(rates, slow):
            raise reader.error(
                f"rates.{fast}", f"a multiple of {slow} ({getattr(rates, slow)})", str(getattr(rates, fast)), "choose rates that divide"
            )
    shortest = SMALLEST_TIMEOUT_PERIODS * 1000 / rates.control_hz
    if rates.command_timeout_ms < shortest:
        raise reader.error(
            "rates.command_timeout_ms", f"at least {shortest:g} (two control periods)", str(rates.command_timeout_ms),
            "one late command must not stop the robot",
        )  # fmt: skip
    longest = rates.command_timeout_ms * rates.control_hz / 1000
    if rates.max_coast_ticks > longest:
        raise reader.error(
            "rates.max_coast_ticks", f"at most {longest:g} (rates.command_timeout_ms)", str(rates.max_coast_ticks),
            "the host may not coast for longer than the board would wait for it",
        )  # fmt: skip


def check_joints(spec: RobotSpec, reader: Reader) -> None:
    for i, joint in enumerate(spec.joints):
        if joint.command_unit == "duty" and joint.command_limit > 1.0:
            raise reader.error(f"joints[{i}].command_limit", "at most 1 for command_unit duty", f"{joint.command_limit:g}")
        if joint.overspeed_rad_s <= joint.velocity_limit_rad_s:
            raise reader.error(
                f"joints[{i}].overspeed_rad_s", f"more than velocity_limit_rad_s ({joint.velocity_limit_rad_s:g})",
                f"{joint.overspeed_rad_s:g}", "a speed the limiter allows must not be a fault",
            )  # fmt: skip


def check_actions(spec: RobotSpec, reader: Reader) -> None:
    for i, part in enumerate(spec.actions):
        if len(part.mix) != len(spec.joints):
            raise reader.error(f"actions[{i}].mix", f"{len(spec.joints)} factors, one per joint", str(len(part.mix)))
    matrix = np.array([part.mix for part in spec.actions])
    if not spec.actions or np.linalg.matrix_rank(matrix) < len(spec.actions):
        raise reader.error(
            "actions", "independent parts", "a mix that maps different actions to the same command",
            "the applied action could not be recovered from the command",
        )  # fmt: skip


def check_observations(spec: RobotSpec, reader: Reader) -> None:
    present = {name for name in ("drive", "imu") if getattr(spec, name)} | {f"extras.{extra.name}" for extra in spec.extras}
    for i, entry in enumerate(spec.observations):
        if entry.term not in TERMS:
            guess = difflib.get_close_matches(entry.term, TERMS, 1)
            advice = f"did you mean {guess[0]!r}?" if guess else f"known terms: {', '.join(TERMS)}"
            raise reader.error(f"observations[{i}].term", "a known term", repr(entry.term), advice)
        missing = [need for need in TERMS[entry.term].needs if need not in present]
        if missing:
            raise reader.error(f"observations[{i}].term", f"{missing[0]} in the robot file", "nothing", f"{entry.term} needs it")
    if not spec.observations:
        raise reader.error("observations", "at least one term", "none")


def check_safety(spec: RobotSpec, reader: Reader) -> None:
    safety = spec.safety
    if safety.tilt_arm_rad >= safety.tilt_limit_rad:
        raise reader.error("safety.tilt_arm_rad", f"less than tilt_limit_rad ({safety.tilt_limit_rad:g})", f"{safety.tilt_arm_rad:g}")
    if spec.battery.cutoff_v >= spec.battery.nominal_v:
        raise reader.error("battery.cutoff_v", f"less than nominal_v ({spec.battery.nominal_v:g})", f"{spec.battery.cutoff_v:g}")
    if safety.fallback == "balance_pd" and not (spec.balance_pd and spec.drive and spec.imu and len(spec.joints) == 2):
        raise reader.error(
            "safety.fallback", "the tables balance_pd, drive and imu and two joints", "a robot without them",
            'add them or set fallback = "damp"',
        )  # fmt: skip
    if spec.imu and len({axis[1] for axis in spec.imu.axes}) != 3:
        raise reader.error("imu.axes", "x, y and z once each", repr(list(spec.imu.axes)))


def telemetry_bytes(spec: RobotSpec) -> int:
    """Payload of one telemetry frame; tests hold it against the wire's own table."""
    joints = len(spec.joints)
    return 6 + joints * (4 + 4 + 2) + 6 + 6 + 2 + 2 * len(spec.extras)


def check_bandwidth(spec: RobotSpec, reader: Reader) -> None:
    wanted = (telemetry_bytes(spec) + FRAME_OVERHEAD_BYTES) * spec.rates.sensor_hz * BITS_PER_BYTE_ON_UART
    if wanted > 0.9 * spec.link.baud:
        raise reader.error(
            "link.baud", f"at least {wanted / 0.9:.0f} for {spec.rates.sensor_hz} telemetry frames a second", str(spec.link.baud),
            "raise the baud rate or lower sensor_hz",
        )  # fmt: skip
