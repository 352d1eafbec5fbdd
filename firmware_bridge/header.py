"""Makes the firmware's two headers: `messages.h` from the wire's table, `robot_spec.h` from a robot file.

Both are generated, committed and compared: `python -m firmware_bridge.header --check` exits 1 when one is stale.
Rule that must stay true: no number of a robot or of the wire is typed in C.
"""

from __future__ import annotations

import argparse
import sys
from enum import IntEnum, IntFlag
from pathlib import Path

from edge_dsac.records import BoardMode, Fault
from edge_dsac.spec.robot import RobotSpec, load_robot, shipped_robots
from firmware_bridge import messages
from firmware_bridge.messages import (
    HEADER,
    LINK_TABLE,
    MESSAGES,
    OPEN_MESSAGES,
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
ENUMS: dict[str, type[IntEnum | IntFlag]] = {
    "MSG": MessageId,
    "ROLE": Role,
    "ACK": AckResult,
    "BOARD": BoardMode,
    "LINK": LinkState,
    "EVENT": LinkEvent,
    "FAULT": Fault,
}
BALANCE_GAINS = ("pitch_kp", "pitch_kd", "speed_kp", "speed_ki", "lean_limit_rad", "yaw_kp", "balance_rad")


def make_messages_header() -> str:
    """Sizes depend on JOINTS and EXTRAS, which robot_spec.h defines before this is included."""
    lines = open_header("MESSAGES_H", "firmware_bridge/messages.py")
    lines += [f"#define {name} {getattr(messages, name)}" for name in CONSTANTS]
    lines += [f"#define OPEN_SEED 0x{OPEN_SEED:08x}u", ""]
    for prefix, kind in ENUMS.items():
        lines += make_enum(prefix, kind)
    lines += ["#pragma pack(push, 1)", *make_struct("header", HEADER)]
    for message, table in MESSAGES.items():
        lines += make_struct(f"msg_{message.name.lower()}", table)
    return "\n".join([*lines, "#pragma pack(pop)", "", *make_payload_table(), "", *make_link_table(), "", "#endif", ""])


def open_header(guard: str, source: str) -> list[str]:
    origin = f"/* Generated from {source} by firmware_bridge/header.py. Do not edit. */"
    return [origin, f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", ""]


def make_enum(prefix: str, kind: type[IntEnum | IntFlag]) -> list[str]:
    # __members__ and not iteration: a flag's 0 is a member that is not iterated over.
    return ["enum {", *(f"    {prefix}_{name} = {int(member)}," for name, member in kind.__members__.items()), "};", ""]


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


def make_payload_table() -> list[str]:
    """What framing.c checks a packet against."""
    sizes = []
    for number in range(max(MESSAGES) + 1):
        table = MESSAGES.get(MessageId(number)) if number in MESSAGES else None
        name = MessageId(number).name.lower() if number in MESSAGES else "no such message"
        sizes.append(f"    -1, /* {name} */" if table is None else f"    sizeof(struct msg_{name})," if table else f"    0, /* {name} */")
    bits = " | ".join(f"1u << MSG_{message.name}" for message in sorted(OPEN_MESSAGES))
    about = "/* Payload of each message id; -1 is no message. Bits of OPEN_MESSAGES: ids whose CRC starts from OPEN_SEED. */"
    return [
        about,
        f"#define MESSAGE_IDS {len(sizes)}",
        f"#define OPEN_MESSAGES ({bits})",
        "static const int16_t PAYLOAD_BYTES[MESSAGE_IDS] = {",
        *sizes,
        "};",
    ]


def make_link_table() -> list[str]:
    rows = []
    for state in LinkState:
        following = (LINK_TABLE.get((state, event), state) for event in LinkEvent)
        rows.append("    {" + ", ".join(f"LINK_{there.name}" for there in following) + "},")
    about = "/* LINK_NEXT[state][event]; role-blind, a pair that is not in the table stays. */"
    return [about, f"static const uint8_t LINK_NEXT[{len(LinkState)}][{len(LinkEvent)}] = {{", *rows, "};"]


def make_robot_header(spec: RobotSpec) -> str:
    lines = open_header("ROBOT_SPEC_H", f"the robot file of {spec.model}")
    lines += [f"#define ROBOT_MODEL {c_string(spec.model)}"]
    lines += [f"#define {name} {value}" for name, value in whole_numbers(spec).items()]
    lines += [f"#define {name} {c_float(value)}" for name, value in real_numbers(spec).items()]
    lines += [f"#define CLOSED_SEED 0x{closed_seed(spec.firmware_fingerprint):08x}u", ""]
    for name, values in tables(spec).items():
        lines += [f"static const float {name}[{len(values)}] = {{{', '.join(c_float(value) for value in values)}}};"]
    if spec.imu:
        axes = ", ".join(str("xyz".index(axis[1])) for axis in spec.imu.axes)
        lines += [f"static const uint8_t IMU_AXIS[3] = {{{axes}}}; /* which sensor axis is body x, y, z */"]
    digits = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(spec.firmware_fingerprint))
    lines += [f"static const uint8_t FIRMWARE_FINGERPRINT[8] = {{{digits}}};", ""]
    lines += ["/* What this firmware was built from, for a host that was built from something else. */", "static const char SPEC_TEXT[] ="]
    text = facts_text(spec.firmware_facts).decode()
    return "\n".join([*lines, *(f"    {c_string(line)}" for line in text.splitlines(keepends=True)), "    ;", "", "#endif", ""])


def whole_numbers(spec: RobotSpec) -> dict[str, int]:
    rates, safety, battery = spec.rates, spec.safety, spec.battery
    return {
        "JOINTS": len(spec.joints),
        "EXTRAS": len(spec.extras),
        "SENSOR_HZ": rates.sensor_hz,
        "BOARD_HZ": rates.board_hz,
        "TICKS_PER_SENSOR": rates.board_hz // rates.sensor_hz,
        "COMMAND_TIMEOUT_US": rates.command_timeout_ms * 1000,
        "BAUD": spec.link.baud,
        "BATTERY_CUTOFF_RAW": round(battery.cutoff_v * battery.lsb_per_v),
        "BAD_SENSOR_TICKS": max(1, safety.bad_sensor_ms * rates.board_hz // 1000),
        "FALLBACK_BALANCE_PD": int(safety.fallback == "balance_pd"),
        "HAS_IMU": int(spec.imu is not None),
    }


def real_numbers(spec: RobotSpec) -> dict[str, float]:
    numbers = {
        "TILT_LIMIT_RAD": spec.safety.tilt_limit_rad,
        "TILT_ARM_RAD": spec.safety.tilt_arm_rad,
        "BATTERY_V_PER_LSB": 1.0 / spec.battery.lsb_per_v,
    }
    if spec.imu:
        numbers["GYRO_RAD_S_PER_LSB"] = 1.0 / spec.imu.gyro_lsb_per_rad_s
        numbers["ACCEL_M_S2_PER_LSB"] = 1.0 / spec.imu.accel_lsb_per_m_s2
        numbers["FILTER_S"] = spec.imu.filter_s
    if spec.safety.fallback == "balance_pd" and spec.balance_pd and spec.drive:
        numbers |= {name.upper(): getattr(spec.balance_pd, name) for name in BALANCE_GAINS}
        numbers["WHEEL_RADIUS_M"] = spec.drive.wheel_radius_m
        numbers["WHEELS_TILT_WITH_BODY"] = float(spec.drive.wheels_tilt_with_body)
    return numbers


def tables(spec: RobotSpec) -> dict[str, list[float]]:
    """One entry per joint, in THE order."""
    joints = spec.joints
    per_joint = {
        "JOINT_SIGN": [float(joint.sign) for joint in joints],
        "RAD_PER_COUNT": [1.0 / joint.counts_per_rad for joint in joints],
        "COMMAND_LIMIT": [joint.command_limit for joint in joints],
        "COMMAND_SLEW_PER_S": [joint.command_slew_per_s for joint in joints],
        "OVERSPEED_RAD_S": [joint.overspeed_rad_s for joint in joints],
    }
    return per_joint | ({"IMU_SIGN": [1.0 if axis[0] == "+" else -1.0 for axis in spec.imu.axes]} if spec.imu else {})


def c_float(value: float) -> str:
    """Nine digits: every float32 exactly."""
    text = f"{value:.9g}"
    return text + ("f" if any(c in text for c in ".en") else ".0f")


def c_string(text: str) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "?": "\\?"}  # \\? because C11 still reads ??/ as a trigraph
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


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
