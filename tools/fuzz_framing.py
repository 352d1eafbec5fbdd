"""The long run: random byte streams through the C decoder, Python's and the reference's, which must agree on every one.

    python tools/fuzz_framing.py [1000000] [--seed 1] [--sanitize]

Streams are shared out among the robots that ship and the tests' bench robot, in chunks of 5000 with a seed each; a difference
ends it with the chunk's seed and the stream. Each chunk must reach every verdict, or agreement would mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from firmware.board_in_c import BENCH_BOT
from firmware.compare import compare

from edge_dsac.spec.robot import load_robot

ROBOTS = ("balance_bot", "rover", str(BENCH_BOT))
CHUNK = 5000
SAY_EVERY_S = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", type=int, nargs="?", default=1_000_000, help="of all robots together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first chunk; each chunk takes the next (default: %(default)s)")
    parser.add_argument("--sanitize", action="store_true", help="the C with undefined-behaviour traps")
    args = parser.parse_args()
    specs = [load_robot(robot) for robot in ROBOTS]
    found: Counter[str] = Counter()
    done, chunk, begun = 0, 0, time.monotonic()
    said = begun
    while done < args.streams:
        spec, seed, count = specs[chunk % len(specs)], args.seed + chunk, min(CHUNK, args.streams - done)
        try:
            chunk_found = compare(spec, count, seed, args.sanitize)
        except AssertionError as error:
            print(f"fuzz_framing: {spec.model} DIFFERS: {error}", file=sys.stderr)
            return 1
        if count == CHUNK and min(chunk_found.values()) == 0:
            print(f"fuzz_framing: seed {seed} of {spec.model} never reached a verdict: {chunk_found}", file=sys.stderr)
            return 1
        found.update(chunk_found)
        done, chunk = done + count, chunk + 1
        if time.monotonic() - said >= SAY_EVERY_S and done < args.streams:
            said = time.monotonic()
            left_s = (said - begun) / done * (args.streams - done)
            print(f"{done} of {args.streams} streams agree, about {left_s:.0f} s left", file=sys.stderr, flush=True)
    print(f"{done} streams agree on {', '.join(spec.model for spec in specs)}, seeds {args.seed} to {args.seed + chunk - 1}, "
          f"{time.monotonic() - begun:.1f} s: " + ", ".join(f"{name} {count}" for name, count in found.items()))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
