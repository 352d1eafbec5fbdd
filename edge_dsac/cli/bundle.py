"""`edge-dsac inspect`, `diff` and `verify`: look at a policy file, compare two, and decide whether one may drive a robot."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from edge_dsac.bundle.describe import describe, plain, signature_facts, summary_lines
from edge_dsac.bundle.diff import compare, comparison_lines
from edge_dsac.bundle.engines import judge
from edge_dsac.bundle.keyring import key_folder, trusted_keys
from edge_dsac.bundle.package import Bundle, check_for_robot, read_bundle
from edge_dsac.spec.robot import load_robot

PASSED, REFUSED = 0, 3  # as cli/main.py has them


def add(verbs: Any) -> None:
    inspect = verbs.add_parser("inspect", help="what a policy file is: robot, network, precision and why, training, signature")
    inspect.add_argument("file", type=Path, help="a .policy file")
    inspect.add_argument("--json", action="store_true")
    inspect.set_defaults(run=show)
    diff = verbs.add_parser("diff", help="what changes on the robot if policy file B takes the place of A")
    diff.add_argument("a", type=Path, metavar="A")
    diff.add_argument("b", type=Path, metavar="B")
    diff.add_argument("--all", action="store_true", help="the measurements behind the precision and every hash too")
    diff.add_argument("--json", action="store_true", help="everything, every digit, as one JSON object")
    diff.set_defaults(run=show_difference)
    verify = verbs.add_parser("verify", help="check a policy file: signature, hashes, robot, golden vectors on every engine here")
    verify.add_argument("file", type=Path, help="a .policy file")
    verify.add_argument("--robot", help="model name or robot file it has to fit")
    verify.add_argument("--allow-unsigned", action="store_true", help="go on without a trusted signature; said in every status line")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(run=check)


def opened(path: Path, allow_unsigned: bool) -> Bundle:
    return read_bundle(path, trusted_keys(key_folder(os.environ)), allow_unsigned=allow_unsigned)


def show(args: argparse.Namespace) -> int:
    """Only looks, so it takes unsigned files; the signature's state is among what is shown."""
    bundle = opened(args.file, allow_unsigned=True)
    if args.json:
        print(json.dumps(describe(bundle)))
    else:
        print("\n".join(summary_lines(bundle)))
    return PASSED


def show_difference(args: argparse.Namespace) -> int:
    comparison = compare(opened(args.a, allow_unsigned=True), opened(args.b, allow_unsigned=True))
    if args.json:
        print(json.dumps({**dataclasses.asdict(comparison), "same": comparison.same}))
    else:
        print("\n".join(comparison_lines(comparison, args.all)))
    return PASSED


def check(args: argparse.Namespace) -> int:
    bundle = opened(args.file, args.allow_unsigned)
    robot = load_robot(args.robot) if args.robot else None
    if robot is not None:
        check_for_robot(bundle, robot)
    verdicts = judge(bundle)
    failed = [verdict for verdict in verdicts if verdict.result == "failed"]
    fits = f"fits {robot.model}" if robot is not None else f"made for {bundle.spec.model}; not compared with a robot file (--robot)"
    if args.json:
        print(json.dumps({
            "file": str(args.file), "ok": not failed, "identity": f"{bundle.identity:016x}", "signature": signature_facts(bundle),
            "robot": {"model": bundle.spec.model, "compared_with": args.robot}, "engines": [dataclasses.asdict(one) for one in verdicts],
        }))  # fmt: skip
        return REFUSED if failed else PASSED
    lines = [f"signature   {bundle.signature}", f"files       {len(bundle.manifest.files)} as signed", f"robot       {fits}"]
    lines += [f"{verdict.result:<11} {verdict.engine}: {verdict.why}" for verdict in verdicts]
    name = f"{bundle.manifest.name} version {bundle.manifest.version} ({bundle.identity:016x})"
    lines.append(f"REFUSED     {name}: an engine does not act as the policy says" if failed else f"good        {name}, {bundle.signature}")
    print("\n".join(plain(line) for line in lines))
    return REFUSED if failed else PASSED
