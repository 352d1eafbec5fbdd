"""Makes the firmware's two headers: `messages.h` from the wire's table, `robot_spec.h` from a robot file.

Both are generated, committed and compared: `python -m firmware_bridge.header --check` exits 1 when one is stale.
Rule that must stay true: no number of a robot or of the wire is typed in C.
"""

from __future__ import annotations

import argparse
import sys
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

from edge_dsac.records import BoardMode, Fault
from edge_dsac.spec.robot import RobotSpec, load_robot, shipped_robots
from firmware_bridge import messages
from firmware_bridge.messages import (
    HEADER,
    LINK_TABLE,
    MESSAGES,
    OPEN_SEED,
    AckResult,
    Field,
    LinkEvent,
    LinkState,
    MessageId,
    Role,
    closed_seed,
    make_dtype,
)
from firmware_bridge.session import facts_text

FIRMWARE = Path(__file__).parent / "firmware"
C_TYPES = {"u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "i16": "int16_t", "i32": "int32_t", "f32": "float"}
CONSTANTS = (
    "PROTOCOL_MAJOR", "PROTOCOL_MINOR", "MAX_PACKET_BYTES", "SPEC_CHUNK_BYTES", "HELLO_RETRY_MS", "SILENCE_MS", "NO_READING_I16",
    "HEADER_BYTES", "CRC_BYTES",
)  # fmt: skip
BALANCE_GAINS = ("pitch_kp", "pitch_kd", "speed_kp", "speed_ki", "lean_limit_rad", "yaw_kp", "balance_rad")


def make_messages_header() -> str:
    """Sizes depend on JOINTS and EXTRAS, which robot_spec.h defines before this is included."""
    lines = ["/* Generated from firmware_bridge/messages.py by firmware_bridge/header.py. Do not edit. */", "#ifndef MESSAGES_H", "#define MESSAGES_H", "", "#include <stdint.h>", ""]
    lines += [f"#define {name} {getattr(messages, name)}" for name in CONSTANTS]
    lines += [f"#define OPEN_SEED 0x{OPEN_SEED:08x}u", ""]
    for kind, prefix in ((MessageId, "MSG"), (Role, "ROLE"), (AckResult, "ACK"), (BoardMode, "BOARD"), (LinkState, "LINK"), (LinkEvent, "EVENT")):
        lines += make_enum(kind, prefix)
    lines += make_enum(Fault, "FAULT")
    lines += ["#pragma pack(push, 1)", *make_struct("header", HEADER)]
    for message, table in MESSAGES.items():
        lines += make_struct(f"msg_{message.name.lower()}", table)
    lines += ["#pragma pack(pop)", ""]
    lines += ["/* LINK_NEXT[state][event]; role-blind, a pair that is not in the table stays. */"]
    rows = ["{" + ", ".join(f"LINK_{LINK_TABLE.get((state, event), state).name}" for event in LinkEvent) + "}" for state in LinkState]
    lines += [f"static const uint8_t LINK_NEXT[{len(LinkState)}][{len(LinkEvent)}] = {{", *(f"    {row}," for row in rows), "};", "", "#endif", ""]
    return "\n".join(lines)


def make_enum(kind: type[IntEnum] | type[IntFlag], prefix: str) -> list[str]:
    members = [(member.name, int(member)) for member in kind] if not issubclass(kind, IntFlag) else [(m.name, int(m)) for m in kind.__members__.values()]
    return ["enum {", *(f"    {prefix}_{name} = {value}," for name, value in members), "};", ""]


def make_struct(name: str, table: tuple[Field, ...]) -> list[str]:
    if not table:
        return []
    lines = [f"struct {name} {{"]
    for field in table:
        comment = f" /* {field.meaning} */" if field.meaning else ""
        count = {"joints": "[JOINTS]", "extras": "[EXTRAS]"}.get(str(field.count), f"[{field.count}]" if field.count != 1 else "")
        line = f"    {C_TYPES[field.type]} {field.name}{count};{comment}"
        lines += ["#if EXTRAS > 0", line, "#endif"] if field.count == "extras" else [line]
    fixed = make_dtype(table, 0, 0).itemsize
    per_joint = make_dtype(table, 1, 0).itemsize - fixed
    per_extra = make_dtype(table, 0, 1).itemsize - fixed
    size = f"{fixed}" + (f" + {per_joint} * JOINTS" if per_joint else "") + (f" + {per_extra} * EXTRAS" if per_extra else "")
    return [*lines, "};", f'_Static_assert(sizeof(struct {name}) == {size}, "{name}");', ""]


def make_robot_header(spec: RobotSpec) -> str:
    rates, joints = spec.rates, spec.joints
    numbers: dict[str, Any] = {
        "JOINTS": len(joints), "EXTRAS": len(spec.extras), "SENSOR_HZ": rates.sensor_hz, "BOARD_HZ": rates.board_hz,
        "TICKS_PER_SENSOR": rates.board_hz // rates.sensor_hz, "COMMAND_TIMEOUT_US": rates.command_timeout_ms * 1000, "BAUD": spec.link.baud,
        "BATTERY_CUTOFF_RAW": round(spec.battery.cutoff_v * spec.battery.lsb_per_v),
        "BAD_SENSOR_TICKS": max(1, spec.safety.bad_sensor_ms * rates.board_hz // 1000),
        "FALLBACK_BALANCE_PD": int(spec.safety.fallback == "balance_pd"), "HAS_IMU": int(spec.imu is not None),
    }  # fmt: skip
    floats: dict[str, float] = {"TILT_LIMIT_RAD": spec.safety.tilt_limit_rad, "TILT_ARM_RAD": spec.safety.tilt_arm_rad}
    tables: dict[str, list[float]] = {
        "JOINT_SIGN": [float(joint.sign) for joint in joints],
        "RAD_PER_COUNT": [1.0 / joint.counts_per_rad for joint in joints],
        "COMMAND_LIMIT": [joint.command_limit for joint in joints],
        "COMMAND_SLEW_PER_S": [joint.command_slew_per_s for joint in joints],
        "OVERSPEED_RAD_S": [joint.overspeed_rad_s for joint in joints],
    }
    if spec.imu:
        floats |= {"GYRO_RAD_S_PER_LSB": 1.0 / spec.imu.gyro_lsb_per_rad_s, "ACCEL_M_S2_PER_LSB": 1.0 / spec.imu.accel_lsb_per_m_s2, "FILTER_S": spec.imu.filter_s}
        tables["IMU_SIGN"] = [1.0 if axis[0] == "+" else -1.0 for axis in spec.imu.axes]
    if spec.safety.fallback == "balance_pd" and spec.balance_pd and spec.drive:
        floats |= {name.upper(): getattr(spec.balance_pd, name) for name in BALANCE_GAINS}
        floats |= {"WHEEL_RADIUS_M": spec.drive.wheel_radius_m, "WHEELS_TILT_WITH_BODY": float(spec.drive.wheels_tilt_with_body)}
    seed = closed_seed(spec.firmware_fingerprint)
    digits = bytes.fromhex(spec.firmware_fingerprint)
    lines = [f"/* Generated from the robot file of {spec.model} by firmware_bridge/header.py. Do not edit. */", "#ifndef ROBOT_SPEC_H", "#define ROBOT_SPEC_H", "", "#include <stdint.h>", ""]
    lines += [f'#define ROBOT_MODEL "{spec.model}"', *(f"#define {name} {value}" for name, value in numbers.items())]
    lines += [f"#define {name} {c_float(value)}" for name, value in floats.items()]
    lines += [f"#define CLOSED_SEED 0x{seed:08x}u", ""]
    lines += [f"static const float {name}[{len(values)}] = {{{', '.join(c_float(v) for v in values)}}};" for name, values in tables.items()]
    if spec.imu:
        lines += [f"static const uint8_t IMU_AXIS[3] = {{{', '.join(str('xyz'.index(axis[1])) for axis in spec.imu.axes)}}};"]
    lines += [f"static const uint8_t FIRMWARE_FINGERPRINT[8] = {{{', '.join(f'0x{byte:02x}' for byte in digits)}}};", ""]
    lines += ["/* What this firmware was built from, for a host that was built from something else. */"]
    text = facts_text(spec.firmware_facts).decode()
    lines += ["static const char SPEC_TEXT[] =", *(f"    {c_string(line)}" for line in text.splitlines(keepends=True)), "    ;", "", "#endif", ""]
    return "\n".join(lines)


def c_float(value: float) -> str:
    """Nine digits: every float32 exactly."""
    text = f"{value:.9g}"
    return text + ("f" if any(c in text for c in ".en") else ".0f")


def c_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def generated_files() -> dict[Path, str]:
    """Everything that is committed, with what it should hold."""
    files = {FIRMWARE / "generated" / "messages.h": make_messages_header()}
    for model in shipped_robots():
        files[FIRMWARE / "robots" / model / "robot_spec.h"] = make_robot_header(load_robot(model))
    return files


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m firmware_bridge.header", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write every generated header")
    what.add_argument("--check", action="store_true", help="exit 1 and name the stale ones")
    args = parser.parse_args()
    stale = [path for path, text in generated_files().items() if not path.exists() or path.read_text() != text]
    if args.write:
        for path, text in generated_files().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    verb = "written" if args.write else "stale"
    sys.stdout.write("".join(f"{verb}: {path.relative_to(FIRMWARE.parent.parent)}\n" for path in stale) or "all headers are fresh\n")
    return 1 if stale and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
