"""`edge-dsac compile RUN --out NAME.policy`: from a training run to the one signed file a robot needs."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from calibration.activations import CalibrationSet, load_set
from edge_dsac.bundle.actor import Actor, actor_from_bytes
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.engines import judge
from edge_dsac.bundle.export import Agreement, agreement, make_onnx
from edge_dsac.bundle.golden import make_golden
from edge_dsac.bundle.keyring import key_folder, secret_key, secret_names, trusted_keys
from edge_dsac.bundle.manifest import BundleError, Precision, make_manifest
from edge_dsac.bundle.onnx_check import check_onnx
from edge_dsac.bundle.package import Bundle, make_bundle, read_bundle
from edge_dsac.bundle.signing import SecretKey
from edge_dsac.bundle.targets import compile_for_all
from edge_dsac.cli.distilling import LOSS, Distillery, Judged, Sized, Wish, Within, lines_of, smaller, widths_of
from edge_dsac.cli.judging import Judgement, JudgingOptions, calibrated_integer, calibrated_onnx, judge_actor, write_report
from edge_dsac.cli.parent import Lineage, lineage_of
from edge_dsac.cli.source import Source, source_of, with_student
from edge_dsac.learn.checkpoint import write
from edge_dsac.learn.distill import Distilling
from edge_dsac.records import Float
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec

GOLDEN_ROWS = 256
PASSED, REFUSED = 0, 3

EPILOG = """\
examples:
  edge-dsac keys new me                                         once: the key that signs
  edge-dsac compile runs/balance_bot-0 --out balance.policy     export, quantise, judge, compile for every board, sign
  edge-dsac compile runs/balance_bot-0 --out b.policy --precision float32 --unsigned
  edge-dsac compile runs/balance_bot-0 --out s.policy --size 32x32      a smaller actor, distilled from the run's
  edge-dsac compile runs/balance_bot-0 --out s.policy --budget-us 12    the largest whose p99 on this machine is within 12 us
  edge-dsac compile runs/home --out next.policy --parent balance.policy   learnt from its robots' logs: a candidate to be tried
  edge-dsac verify balance.policy                               then, on the robot: edge-dsac run --policy balance.policy

Beside NAME.policy: NAME.report.png and NAME.report.json, the evidence for the precision that was chosen.
exit codes: 0 written; 1 failed, the last line says why; 2 wrong arguments; 3 refused
"""


def add(verbs: Any) -> None:
    parser = verbs.add_parser(
        "compile",
        help="turn a training run into one signed policy file",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="a run's folder, or an actor file (.npz) of `train` or `import`")
    parser.add_argument("--out", type=Path, required=True, metavar="NAME.policy")
    parser.add_argument("--robot", help="model name or robot file (default: the run's own)")
    parser.add_argument("--name", help="what the policy is called (default: from --out)")
    parser.add_argument(
        "--version", type=int, help="counts up; a robot takes no older one than it runs (default: 1, or the parent's and 1)"
    )
    parser.add_argument("--parent", type=Path, metavar="NAME.policy", help="what the run went on from; it must drive the same robot")
    parser.add_argument("--key", metavar="NAME", help="secret key to sign with (default: the only one there is)")
    parser.add_argument("--unsigned", action="store_true", help="do not sign; robots then need --allow-unsigned")
    parser.add_argument(
        "--precision", choices=("auto", "int8", "int16", "float16", "float32"), default="auto",
        help="auto: the smallest that the gate lets pass; any other must pass it too (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--observations", type=Path, metavar="FILE", help="recorded ones to calibrate with, rather than simulated flights")
    parser.add_argument("--episodes", type=int, default=JudgingOptions().episodes, help="flown by each precision (default: %(default)s)")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--size", metavar="WxW", help="distil the actor into one with hidden layers of these widths, as 32x32")
    smaller.add_argument(
        "--budget-us",
        type=float,
        metavar="US",
        help="distil into the largest actor whose call has a p99 within this, here, alone, at 1 kHz",
    )
    parser.add_argument(
        "--accept-loss", type=float, metavar="SHARE",
        help=f"of the return, that a distilled actor may lose (default: {LOSS:g}, and no more falls than the run's own)",
    )  # fmt: skip
    parser.add_argument(
        "--distil-rounds", type=int, default=Distilling().rounds, metavar="N",
        help="flights that a distilled actor learns from, its teacher's first (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace NAME.policy if it is there")
    parser.add_argument("--json", action="store_true", help="print what was made as one JSON object, and nothing else")
    parser.set_defaults(run=compile_policy)


class Steps:
    """Says what is being done and how long it took."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.begun = say, time.monotonic()

    def done(self, text: str) -> None:
        now = time.monotonic()
        self.say(f"  {now - self.begun:5.1f} s  {text}")
        self.begun = now


def compile_policy(args: argparse.Namespace) -> int:
    if args.out.exists() and not args.overwrite:
        raise BundleError(f"{args.out} is there already; --overwrite replaces it")
    wish = wish_of(args)
    say = (lambda text: None) if args.json else tell
    key = None if args.unsigned else signing_key(args.key)
    source = source_of(args.run_folder, args.robot)
    actor = actor_from_bytes(source.actor_file, str(args.run_folder), source.spec)
    say(f"{args.run_folder}: {source.spec.model}, {'-'.join(map(str, actor.sizes))}, {actor.activation}")
    # Before minutes are spent; with --unsigned, of an unsigned parent too.
    trusted = (*trusted_keys(key_folder(os.environ)), *(() if key is None else (key.public,)))
    lineage = lineage_of(args.parent, args.version, trusted, args.unsigned, source.spec, actor, source.provenance.get("home"))
    steps = Steps(say)
    found = chosen(args, wish, source, actor, say)
    if found.words is not None:
        source, actor = with_student(source, found.actor, found.file, found.words), found.actor
    judgement, precision = found.judgement, found.precision
    steps.done(f"judged on {len(judgement.observations.held_out)} observations and {args.episodes} episodes: {precision.chosen}")
    for line in [precision.because, *judgement.warnings, *lines_of(found.words)]:
        say(f"           {line}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=".report-") as folder, ThreadPoolExecutor(1, "picture") as drawing:
        # Drawn while the compilers run; it comes beside the policy only once the engines have agreed.
        drawn = drawing.submit(write_report, judgement, source.spec, Path(folder), {"distilled": found.words} if found.words else {})
        data, bundle = sealed(args, source, actor, judgement, precision, lineage, key, steps)
        pictures = drawn.result()
        steps.done("report")
        write(args.out, data)
        reports = [path.replace(args.out.with_suffix(f".report{path.suffix}")) for path in pictures]
    summary = {
        "policy": str(args.out), "bytes": len(data), "identity": f"{bundle.identity:016x}", "precision": precision.chosen,
        "because": precision.because, "version": lineage.version, "parent": lineage.parent, "signature": bundle.signature, "report": [str(path) for path in reports],
        **({"distilled": found.words} if found.words else {}),
    }  # fmt: skip
    child = f", version {lineage.version}, child of {lineage.parent[:16]}" if lineage.parent else ""
    say(f"{args.out}: {len(data) / 1e6:.1f} MB, {precision.chosen}{child}, {bundle.signature}\n  report   {reports[0]}")
    if args.json:
        print(json.dumps(summary))
    return PASSED


def chosen(args: argparse.Namespace, wish: Wish | None, source: Source, actor: Actor, say: Callable[[str], None]) -> Judged:
    """The run's own actor, or a smaller one, with its verdict."""
    recorded = load_set(args.observations, source.spec) if args.observations else None
    judging = JudgingOptions(episodes=args.episodes, asked=args.precision)
    if wish is not None:
        decide, distilling = partial(decided, asked=args.precision), Distilling(rounds=args.distil_rounds)
        found = smaller(Distillery(actor, source.spec, judging, recorded, decide, args.accept_loss, say, distilling), wish)
        if found is not None:
            return found
    judgement = judge_actor(actor, source.spec, judging, recorded)
    return Judged(actor, source.actor_file, judgement, decided(judgement, args.precision), None)


def sealed(
    args: argparse.Namespace, source: Source, actor: Actor, judgement: Judgement, precision: Precision, lineage: Lineage,
    key: SecretKey | None, steps: Steps,
) -> tuple[bytes, Bundle]:  # fmt: skip
    """The policy file, once every engine that is here has passed its golden vectors."""
    form = "int8" if precision.chosen == "int8" else "int16"  # a microcontroller needs whole numbers whatever the host runs
    files, agreed = make_files(source, actor, form, judgement.observations, steps)
    manifest = make_manifest(
        source.spec, actor, files, name=args.name or args.out.stem, version=lineage.version, precision=precision, parent=lineage.parent,
        training={**source.provenance, "agreement": agreement_words(agreed)}, assumed=actor.assumed,
    )  # fmt: skip
    data = make_bundle(manifest, files, key)
    bundle = read_bundle(data, () if key is None else (key.public,), allow_unsigned=key is None)
    verdicts = judge(bundle)
    failed = [f"{one.engine}: {one.why}" for one in verdicts if one.result == "failed"]
    if failed:
        raise BundleError("an engine does not act as the policy says; nothing was written: " + "; ".join(failed))
    steps.done("golden vectors: " + ", ".join(one.engine for one in verdicts if one.result == "passed"))
    return data, bundle


def wish_of(args: argparse.Namespace) -> Wish | None:
    if args.accept_loss is not None and args.size is None and args.budget_us is None:
        raise BundleError("--accept-loss is of a distilled actor: it needs --size or --budget-us")
    if args.accept_loss is not None and not 0.0 <= args.accept_loss <= 1.0:
        raise BundleError(f"--accept-loss {args.accept_loss:g}: expected a share of the return, 0 to 1")
    if args.distil_rounds < 1:
        raise BundleError(f"--distil-rounds {args.distil_rounds}: expected 1 or more; the first is the teacher's own flight")
    if args.budget_us is not None:
        if not args.budget_us > 0.0:
            raise BundleError(f"--budget-us {args.budget_us:g}: expected microseconds above 0")
        return Within(args.budget_us)
    return None if args.size is None else Sized(widths_of(args.size))


def tell(text: str) -> None:
    print(text, flush=True)


def signing_key(name: str | None) -> SecretKey:
    folder = key_folder(os.environ)
    names = secret_names(folder)
    if name is None and len(names) != 1:
        there = f"which of {', '.join(names)}? --key NAME" if names else "there is none: edge-dsac keys new NAME, or --unsigned"
        raise BundleError(f"a policy is signed with a key: {there}")
    return secret_key(folder, name or names[0], os.environ.get("EDGE_DSAC_PASSPHRASE", ""))


def decided(judgement: Judgement, asked: str) -> Precision:
    verdict = judgement.verdict
    if asked == "auto":
        chosen, because = verdict.chosen, verdict.because
    elif asked in verdict.refused:
        raise BundleError(f"--precision {asked}: the gate refuses it: {', '.join(verdict.refused[asked])}; auto takes {verdict.chosen}")
    else:
        chosen, because = asked, f"asked for; auto would take {verdict.chosen}"
    return Precision(chosen, because, verdict.as_json())  # type: ignore[arg-type]


def make_files(source: Source, actor: Actor, form: str, observations: CalibrationSet, steps: Steps) -> tuple[dict[str, bytes], Agreement]:
    spec, calibration = source.spec, observations.calibration
    model = make_onnx(actor, spec)
    check_onnx(model, actor, spec)
    agreed = agreement(model, actor, spec, observations.held_out[:GOLDEN_ROWS])
    half = make_onnx(actor, spec, "float16")
    steps.done(f"ONNX: PyTorch, onnxruntime and numpy within {max(agreed.torch, agreed.onnxruntime, agreed.numpy):.1g}")
    integer = calibrated_integer(actor, spec, calibration, form)
    c_file = make_c(actor, integer)
    native = compile_for_all(c_file)
    steps.done(f"C: {len(native)} targets")
    golden = make_golden(actor, integer, golden_rows(observations.held_out, spec))
    files = {
        "actor.npz": source.actor_file, "actor.onnx": model, "actor_float16.onnx": half,
        "actor_int8.onnx": calibrated_onnx(actor, spec, calibration), "actor.c": c_file.encode(), "golden.npz": golden,
        **native, **source.carried,
    }  # fmt: skip
    return files, agreed


def golden_rows(held_out: Float, spec: RobotSpec) -> Float:
    """From flights, and the ends of every observation's range, where saturation must be the same everywhere."""
    clip = ObservationLayout(spec).clip
    return np.concatenate([held_out[: GOLDEN_ROWS - 3], clip[None], -clip[None], np.zeros_like(clip)[None]])


def agreement_words(agreed: Agreement) -> dict[str, float]:
    return {name: getattr(agreed, name) for name in ("torch", "onnxruntime", "numpy", "command", "limit")}
