"""`edge-dsac spec` and `edge-dsac new-robot`: look at a robot file, check it, make its C header, begin a new one."""

from __future__ import annotations

import argparse
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_dsac.spec.layout import TERMS, ObservationLayout
from edge_dsac.spec.new_robot import free_paths, make_files, write_files
from edge_dsac.spec.robot import RobotSpec, load_robot, shipped_robots


def add(verbs: Any) -> None:
    spec = verbs.add_parser("spec", help="show, check or compile a robot file")
    actions = spec.add_subparsers(dest="action", metavar="ACTION", required=True)
    look = actions.add_parser("show", help="joints, rates, where each observation sits, both fingerprints")
    look.add_argument("robot", help=f"a shipped model ({', '.join(shipped_robots())}) or the path of a robot file")
    look.add_argument("--json", action="store_true")
    look.set_defaults(run=show)
    check = actions.add_parser("check", help="every check there is, the MuJoCo model included; exit 1 at the first failure")
    check.add_argument("robots", nargs="+", metavar="ROBOT")
    check.set_defaults(run=check_robots)
    header = actions.add_parser("header", help="the C header of the firmware")
    header.add_argument("robot")
    header.add_argument("-o", "--out", type=Path, help="write it there instead of printing it")
    header.set_defaults(run=write_header)
    new = verbs.add_parser("new-robot", help="write a commented robot file and MJCF to start from")
    new.add_argument("name", help="letters, digits and _, at most 15")
    new.add_argument("--folder", type=Path, default=Path(), help="where to (default: here)")
    new.add_argument("--dry-run", action="store_true", help="say what would be written")
    new.set_defaults(run=begin)


def show(args: argparse.Namespace) -> int:
    spec = load_robot(args.robot)
    layout = ObservationLayout(spec)
    if args.json:
        facts = {key: value for key, value in asdict(spec).items() if key not in ("text", "folder")}
        print(
            json.dumps(
                {
                    **facts,
                    "firmware_fingerprint": spec.firmware_fingerprint,
                    "policy_fingerprint": spec.policy_fingerprint,
                    "observation_size": layout.size,
                }
            )
        )
        return 0
    rates = spec.rates
    print(f"{spec.model}: {spec.description}")
    print(f"  firmware {spec.firmware_fingerprint}   policy {spec.policy_fingerprint}")
    print(
        f"  control {rates.control_hz} Hz, sensors {rates.sensor_hz} Hz, board {rates.board_hz} Hz, timeout {rates.command_timeout_ms} ms, then {spec.safety.fallback}"
    )
    print("  joints (in order)")
    for joint in spec.joints:
        print(
            f"    {joint.name:<16} sign {joint.sign:+d}  {joint.counts_per_rad:g} counts/rad  +-{joint.command_limit:g} {joint.command_unit}, {joint.command_slew_per_s:g} per s"
        )
    print("  actions")
    for part in spec.actions:
        print(f"    {part.name:<16} " + ", ".join(f"{factor:+g} {joint.name}" for factor, joint in zip(part.mix, spec.joints, strict=True)))
    print(f"  observation ({layout.size} numbers)")
    for entry in spec.observations:
        where = layout.stacked[entry.term]
        print(
            f"    [{where.start:3d}:{where.stop:3d}] {entry.term:<24} scale {entry.scale:g}, clip {entry.clip:g}, history {entry.history}   {TERMS[entry.term].meaning}"
        )
    return 0


def check_robots(args: argparse.Namespace) -> int:
    for name in args.robots:
        spec = load_robot(name)
        print(f"{name}: robot file good, firmware {spec.firmware_fingerprint}, policy {spec.policy_fingerprint}; {check_model(spec)}")
    return 0


def check_model(spec: RobotSpec) -> str:
    from edge_dsac.learn.rewards import Reward

    Reward(spec)
    if importlib.util.find_spec("mujoco") is None:
        return "rewards good; MuJoCo model NOT checked: mujoco is not installed (pip install 'edge_dsac[sim]')"
    from sim.mjcf import find_mjcf, load_model

    load_model(spec)
    return f"rewards good; {find_mjcf(spec).name} agrees"


def write_header(args: argparse.Namespace) -> int:
    from firmware_bridge.header import make_robot_header

    text = make_robot_header(load_robot(args.robot))
    if args.out:
        args.out.write_text(text)
        print(args.out)
    else:
        print(text, end="")
    return 0


def begin(args: argparse.Namespace) -> int:
    files = make_files(args.name)
    if args.dry_run:
        print("would write " + ", ".join(str(path) for path in free_paths(files, args.folder)))
        return 0
    paths = write_files(files, args.folder)
    print(f"wrote {paths[0]} and {paths[1]}\nnext: edge-dsac spec check {paths[0]}; edge-dsac mcu --robot {paths[0]}")
    return 0
