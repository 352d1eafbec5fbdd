"""`edge-dsac profile`: how long every engine takes with a policy on this board, and which one the robot should use."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from edge_dsac.bundle.engines import ENGINES, judge_one
from edge_dsac.bundle.keyring import key_folder, trusted_keys
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.package import read_bundle
from edge_dsac.loop.realtime import ask_for_realtime, release_realtime
from edge_dsac.profile.choose import choose, machine_name, save_choice
from edge_dsac.profile.measure import CONDITIONS, Plan, measure

EPILOG = """\
Every engine that passes the golden vectors is called as a loop calls it: with a pause before each call, alone, then beside one
memory-copying neighbour per core, then after 10 s of nothing. A tight loop would flatter: a robot's caches go cold between ticks.

examples:
  edge-dsac profile balance.policy                 the table
  edge-dsac profile balance.policy --choose        and writes balance.policy.engine.json, which `run` follows on this board
exit codes: 0 measured; 1 failed; 2 wrong arguments; 3 the policy file is refused
"""


def add(verbs: Any) -> None:
    parser = verbs.add_parser(
        "profile",
        help="how long every engine takes with a policy on this board",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("policy", type=Path, help="a .policy file")
    parser.add_argument("--choose", action="store_true", help="write down the engine with the smallest worst p99.9, for `run` to use here")
    parser.add_argument("--engines", nargs="+", choices=[kind.name for kind in ENGINES], help="only these")
    parser.add_argument("--seconds", type=float, default=Plan().seconds, help="of calls, per engine and condition (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=Plan().idle_s, help="seconds of nothing before a cold call (default: %(default)s)")
    parser.add_argument("--idle-calls", type=int, default=Plan().idle_calls, help="such calls per engine (default: %(default)s)")
    parser.add_argument("--allow-unsigned", action="store_true")
    parser.add_argument("--no-rt", action="store_true", help="do not ask for SCHED_FIFO and locked memory")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=profile)


def profile(args: argparse.Namespace) -> int:
    bundle = read_bundle(args.policy, trusted_keys(key_folder(os.environ)), allow_unsigned=args.allow_unsigned)
    engines, skipped = {}, {}
    for kind in ENGINES:
        if args.engines and kind.name not in args.engines:
            continue
        verdict = judge_one(bundle, kind)
        if verdict.result == "passed":
            engines[kind.name] = kind.load(bundle)
        else:
            skipped[kind.name] = f"{verdict.result}: {verdict.why}"
    if not engines:
        raise BundleError("no engine can run this policy here: " + "; ".join(f"{name}: {why}" for name, why in skipped.items()))
    grants = [] if args.no_rt else ask_for_realtime()
    try:
        found = measure(engines, bundle.golden.obs, Plan(seconds=args.seconds, idle_s=args.idle, idle_calls=args.idle_calls), progress)
    finally:
        release_realtime()
    choice = choose(found, tuple(kind.name for kind in ENGINES))
    path = save_choice(choice, args.policy, bundle.identity) if args.choose else None
    if args.json:
        print(json.dumps({
            "policy": f"{bundle.identity:016x}", "machine": machine_name(), "realtime": {grant.what: grant.granted for grant in grants},
            "engines": choice.figures, "skipped": skipped, "best": choice.engine, "because": choice.because, "written": path and str(path),
        }))  # fmt: skip
        return 0
    print(f"{bundle.manifest.name} on {machine_name()}")
    print("  " + ", ".join(f"{grant.what} {'granted' if grant.granted else 'NOT granted'}" for grant in grants))
    print(f"  {'us':16}" + "".join(f" | {condition:>8} p50 {'p99':>8} {'p99.9':>8} {'max':>8}" for condition in CONDITIONS))
    for name, by in choice.figures.items():
        cells = (f" | {by[c]['p50_us']:12.1f} {by[c]['p99_us']:8.1f} {by[c]['p999_us']:8.1f} {by[c]['max_us']:8.1f}" for c in CONDITIONS)
        print(f"  {name:16}" + "".join(cells))
    for name, why in skipped.items():
        print(f"  {name:16} {why}")
    print(f"best: {choice.engine}, {choice.because}" + (f"\nwritten to {path}" if path else "; --choose writes it down"))
    return 0


def progress(text: str) -> None:
    end = "\r" if sys.stderr.isatty() else "\n"
    if end == "\r" or text.startswith("after") or "turn 1 " in text:
        print(f"  {text:70}", end=end, file=sys.stderr, flush=True)
