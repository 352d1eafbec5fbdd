"""`edge-dsac import`: take over a policy that another trainer exported, or learn what is still unknown about it."""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_dsac.bundle.foreign import Imported, import_policy
from edge_dsac.bundle.foreign_answers import load_answers, make_template
from edge_dsac.spec.robot import load_robot, shipped_robots

EPILOG = """What the files leave out is missing, not guessed: --write-answers FILE.toml lists it with reasons, you fill in what the
policy was trained with, --answers FILE.toml gives it back. Exit 3 until nothing is missing."""


def add(verbs: Any) -> None:
    verb = verbs.add_parser(
        "import", help="take over an ONNX policy of mjlab, BeyondMimic, rl_sar, unitree_rl_lab or unitree_rl_gym", epilog=EPILOG
    )
    verb.add_argument("policy", type=Path, metavar="FILE.onnx")
    verb.add_argument(
        "--metadata",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.yaml",
        help="what lies beside it; again for base.yaml and config.yaml, the later one wins",
    )
    verb.add_argument("--robot", required=True, help=f"a shipped model ({', '.join(shipped_robots())}) or the path of a robot file")
    verb.add_argument("--answers", type=Path, metavar="FILE.toml", help="what the files leave out")
    verb.add_argument("--write-answers", type=Path, metavar="FILE.toml", help="write a commented file with what is missing")
    verb.add_argument("--out", type=Path, metavar="NAME.npz", help="write the weights there; without it only say what is known")
    verb.add_argument("--json", action="store_true")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    spec = load_robot(args.robot)
    answers = load_answers(args.answers) if args.answers else None
    imported = import_policy(args.policy, args.metadata, spec, answers)
    wrote = None
    if imported.missing and args.write_answers:
        wrote = write_new(args.write_answers, make_template(imported.missing, spec).encode())
    if not imported.missing and args.out:
        wrote = write_weights(args.out, imported.file)
    if args.json:
        print(json.dumps(as_json(imported, wrote), allow_nan=False))
    else:
        tell(imported, args, spec.model, wrote)
    return 3 if imported.missing else 0


def write_new(path: Path, data: bytes) -> Path:
    with path.open("xb") as file:  # answers are somebody's work
        file.write(data)
    return path


def write_weights(path: Path, data: bytes) -> Path:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
    return path


def as_json(imported: Imported, wrote: Path | None) -> dict[str, Any]:
    return {
        "known": {name: {"value": finite(entry.value), "source": entry.source} for name, entry in imported.known.items()},
        "missing": [asdict(entry) for entry in imported.missing],
        "assumed": imported.assumed,
        "largest_error": imported.largest_error,
        "actor": f"{imported.actor.identity:016x}" if imported.actor else None,
        "wrote": str(wrote) if wrote else None,
    }


def finite(value: Any) -> Any:
    """A clip that is not there is infinite, which JSON cannot say: null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tell(imported: Imported, args: argparse.Namespace, model: str, wrote: Path | None) -> None:
    print(f"{args.policy} for {model}")
    print("known, and the same in the robot file where it has it")
    for name, entry in imported.known.items():
        print(f"  {name:<22} {shortened(entry.value):<60} {Path(entry.source).name}")
    if imported.missing:
        print("missing: no weights are written until these are given")
        for gap in imported.missing:
            print(f"  {gap.what:<22} {gap.why}\n  {'':<22} -> {gap.how}")
    if imported.assumed:
        print("assumed: goes with the policy; check it before it moves anything")
        for line in imported.assumed:
            print(f"  - {line}")
    if imported.actor:
        print(f"actor {imported.actor.identity:016x}: differs from the ONNX graph by at most {imported.largest_error:.1e} of an action")
    if wrote:
        print(f"wrote {wrote}" + ("; fill it in and give it as --answers" if imported.missing else ""))
    elif imported.missing:
        print("next: --write-answers FILE.toml")
    else:
        print("nothing was written: give --out NAME.npz")


def shortened(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."
