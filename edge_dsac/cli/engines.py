"""`edge-dsac engines`: which ways to run a policy this machine has, and why it lacks the others."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from edge_dsac.bundle.probes import EngineReport, describe


def add(verbs: Any) -> None:
    parser = verbs.add_parser("engines", help="which engines can run a policy on this machine, and why not the others")
    parser.add_argument("--json", action="store_true", help="as one JSON array, an object for each engine")
    parser.set_defaults(run=show)


def show(args: argparse.Namespace) -> int:
    reports = describe()
    if args.json:
        print(json.dumps([asdict(report) for report in reports]))
        return 0
    for report in reports:
        print(line_of(report))
    return 0


def line_of(report: EngineReport) -> str:
    verdict = f"runs on {report.device}" if report.runs_here else f"cannot run here: {report.reason}"
    caution = f"\n{'':<16}{report.caution}" if report.caution else ""
    return f"{report.kind:<15} {report.version or '-':<12} {verdict}{caution}"
