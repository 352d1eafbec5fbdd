"""`edge-dsac VERB`: parses the command line, runs the verb, turns named errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import select
import sys
from collections.abc import Sequence

from edge_dsac import __version__

# Before numpy is imported: its matrix products here are tiny, and two threads that wait for each other made a compile 1.6 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Each group is imported only when its verb is asked for: a robot has neither mujoco nor torch.
GROUPS = {
    "spec": ("edge_dsac.cli.spec", "show, check or compile a robot file"),
    "new-robot": ("edge_dsac.cli.spec", "write a commented robot file and MJCF to start from"),
    "mcu": ("edge_dsac.cli.mcu", "a virtual motor board on a pty: the real firmware against a simulated robot"),
    "run": ("edge_dsac.cli.run", "the control loop: sensors in, policy, motor commands out"),
    "takeover": ("edge_dsac.cli.takeover", "drive a running robot by hand: actions, or what the policy is asked for"),
    "train": ("edge_dsac.cli.train", "learn a policy in simulation: DSAC-T for a robot or any Gymnasium id"),
    "compile": ("edge_dsac.cli.compile", "turn a training run into one signed policy file: judged, compiled for every board"),
    "inspect": ("edge_dsac.cli.bundle", "what a policy file is: robot, precision, training, signature"),
    "diff": ("edge_dsac.cli.bundle", "what changes on the robot from one policy file to another"),
    "verify": ("edge_dsac.cli.bundle", "check a policy file: signature, hashes, robot, golden vectors"),
    "profile": ("edge_dsac.cli.profile", "how long every engine takes with a policy on this board; picks one"),
    "keys": ("edge_dsac.cli.keys", "keys that sign policies, and keys that are trusted"),
    "tune": ("edge_dsac.cli.tune", "fine-tune the policy that drives, beside the loop; undo it"),
    "slots": ("edge_dsac.cli.slots", "the folder of policies that a robot runs, tries and goes back to"),
    "import": ("edge_dsac.cli.importing", "take over an ONNX policy that another trainer exported"),
    "log": ("edge_dsac.cli.log", "look into a flight log, or export it"),
    "watch": ("edge_dsac.cli.log", "follow a running loop from its ring"),
    "engines": ("edge_dsac.cli.engines", "which engines can run a policy on this machine, and why not the others"),
    "demo": ("edge_dsac.cli.demo", "the whole story without hardware: train, compile, fly, change the robot, tune, undo; with pictures"),
}
# Where a package comes from that not every installation has.
EXTRAS = {
    "mujoco": "sim", "gymnasium": "sim", "ziglang": "sim", "matplotlib": "sim", "PIL": "sim", "torch": "train", "tyro": "train", "onnx": "compile",
    "onnxruntime": "compile", "yaml": "compile", "mcap": "log",
}  # fmt: skip
EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = "exit codes: 0 done; 1 failed, the last line says why; 2 wrong arguments; 3 refused for safety; 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="edge-dsac", description="Train, compile, run and fine-tune policies on robots.", epilog=EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"edge-dsac {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    asked = words[0] if words else ""
    if asked in GROUPS:
        importlib.import_module(GROUPS[asked][0]).add(verbs)
    for verb, (_, summary) in GROUPS.items():
        if verb not in verbs.choices:
            verbs.add_parser(verb, help=summary)
    args = parser.parse_args(words)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in EXTRAS:
            raise
        print(f"edge-dsac {asked}: needs the package {package}: pip install 'edge_dsac[{EXTRAS[package]}]'", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError as error:
        return reader_gone(asked, error)
    except (ValueError, OSError) as error:  # the named errors of every package are one of the two
        print(f"edge-dsac {asked}: {error}", file=sys.stderr)
        return EXIT_REFUSED if getattr(error, "refused", False) else EXIT_FAILED


def reader_gone(asked: str, error: BrokenPipeError) -> int:
    """`| head` has read what it wanted: nothing to tell anybody. Any other pipe is an error like others."""
    out = select.poll()
    out.register(sys.stdout.fileno(), 0)
    if out.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
    else:
        print(f"edge-dsac {asked}: {error}", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
