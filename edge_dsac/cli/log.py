"""`edge-dsac log` and `edge-dsac watch`: look into a flight, export it, draw it, follow one that is in the air."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge_dsac.steplog import open_log, summarise


def add(verbs: Any) -> None:
    log = verbs.add_parser("log", help="look into a flight log, or export it")
    actions = log.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = actions.add_parser("info", help="what the flight came to: rate, lateness, modes and why, rules, faults")
    info.add_argument("path", type=Path, help="a run's folder, a .edsl segment or a ring")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=show)
    out = actions.add_parser("export", help="as CSV, npz or MCAP (Foxglove)")
    out.add_argument("path", type=Path)
    out.add_argument("--format", choices=("csv", "npz", "mcap"), required=True)
    out.add_argument("-o", "--out", type=Path, required=True)
    out.set_defaults(run=write)
    plot = actions.add_parser("plot", help="the picture of the run")
    plot.add_argument("path", type=Path)
    plot.add_argument("-o", "--out", type=Path, required=True)
    plot.set_defaults(run=draw)
    watch = verbs.add_parser("watch", help="follow a running loop from its ring")
    watch.add_argument("ring", type=Path, help="the file `ring` in the run's folder")
    watch.add_argument("--once", action="store_true", help="one status and no more")
    watch.add_argument("--json", action="store_true", help="with --once: the status as one JSON object")
    watch.set_defaults(run=follow)


def show(args: argparse.Namespace) -> int:
    summary = summarise(open_log(args.path))
    if args.json:
        print(json.dumps(summary))
        return 0
    if not summary["ticks"]:
        print(f"{summary['robot']}: no whole step; {summary['torn']} torn, {summary['dropped_bytes']} bytes cut off")
        return 0
    late, busy, age = summary["late_us"], summary["busy_us"], summary["frame_age_us"]
    print(
        f"{summary['robot']}: {summary['ticks']} ticks in {summary['seconds']} s: {summary['hz']} Hz of {summary['hz_wanted']}; {summary['missed']} missed"
    )
    for name, figures in (("lateness", late), ("own work", busy), ("frame age", age)):
        print(
            f"  {name:<10} p50 {figures['p50']:8.1f}  p99 {figures['p99']:8.1f}  p99.9 {figures['p999']:8.1f}  max {figures['max']:9.1f} us"
        )
    print(f"  without a fresh frame while moving: {summary['not_fresh']}")
    for stretch in summary["modes"]:
        print(
            f"  {stretch['at_s']:9.3f} s  {stretch['mode']:<9} for {stretch['for_s']:8.3f} s  because {stretch['because']}, board {stretch['board']}"
        )
    for fault in summary["faults"]:
        print(f"  {fault['at_s']:9.3f} s  board fault {fault['fault']}")
    if summary["rules"]:
        print("  limiter: " + ", ".join(f"{name} {count}" for name, count in summary["rules"].items()))
    print(f"  policies: {', '.join(summary['bundles'])}")
    if summary["gaps"] or summary["torn"] or summary["dropped_bytes"]:
        print(f"  damage: {summary['gaps']} steps missing, {summary['torn']} torn, {summary['dropped_bytes']} bytes cut off at the end")
    return 0


def write(args: argparse.Namespace) -> int:
    from edge_dsac.steplog.export import export

    log = open_log(args.path)
    export(log, args.format, args.out)
    print(f"{len(log.columns)} steps in {args.out}")
    return 0


def draw(args: argparse.Namespace) -> int:
    from edge_dsac.watch.picture import draw as draw_picture

    draw_picture(open_log(args.path), args.out)
    print(args.out)
    return 0


def follow(args: argparse.Namespace) -> int:
    from edge_dsac.watch.line import Watcher, line_of
    from edge_dsac.watch.line import follow as follow_ring

    if not args.once:
        follow_ring(args.ring, sys.stdout)
        return 0
    status = Watcher(args.ring).look()
    if status is None:
        print("no step yet")
        return 1
    print(json.dumps(status) if args.json else line_of(status))
    return 0
