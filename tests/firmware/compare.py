"""Random streams through the C decoder, firmware_bridge's and the reference's: all three must agree on every one.

Run by path, in a process of its own, because the sanitized library ends the process:
    python tests/firmware/compare.py --streams 1000000 --seed 7 [--sanitize] [--robot rover]
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from firmware import reference
from firmware.board_in_c import BENCH_BOT, deframe, load_core
from firmware.streams import StreamMaker

from edge_dsac.spec.robot import RobotSpec, load_robot
from firmware_bridge.build import build_host_library
from firmware_bridge.framing import Deframer


def compare(spec: RobotSpec, streams: int, seed: int, sanitize: bool = False) -> dict[str, int]:
    """What was found, so that nobody takes a corpus in which nothing decodes for agreement. Raises at the first difference."""
    core = load_core(build_host_library(spec, sanitize=sanitize))
    maker = StreamMaker(len(spec.joints), len(spec.extras), spec.firmware_fingerprint, np.random.default_rng(seed))
    found = dict.fromkeys(("packets", *reference.ERRORS), 0)
    for number in range(streams):
        stream = maker.stream()
        expected, errors = reference.decode(stream, maker.sizes, maker.seed)
        ours = Deframer(spec)
        python = [tuple(packet) for packet in ours.feed(stream)]
        in_c = deframe(core, stream)
        if in_c != (expected, errors) or (python, asdict(ours.errors)) != ([tuple(packet) for packet in expected], errors):
            raise AssertionError(
                f"stream {number} of seed {seed}: {stream.hex()}\nreference {expected, errors}\nC {in_c}\nPython {python, ours.errors}"
            )
        found["packets"] += len(expected)
        for name, count in errors.items():
            found[name] += count
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--robot", default=str(BENCH_BOT))
    parser.add_argument("--sanitize", action="store_true")
    args = parser.parse_args()
    print(compare(load_robot(args.robot), args.streams, args.seed, args.sanitize))
    return 0


if __name__ == "__main__":
    sys.exit(main())
