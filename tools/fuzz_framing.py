"""The long run: random byte streams through the C decoder, Python's and the reference's, which must agree on every one.

    python tools/fuzz_framing.py [1000000] [--seed 1] [--sanitize]

Streams are shared out among the robots that ship and the tests' bench robot, in chunks with a seed each, each in a process of its
own (a sanitizer ends it); a difference ends the run with the chunk's seed and the stream. Each chunk must reach every verdict, or
agreement would mean nothing.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPARE = ROOT / "tests" / "firmware" / "compare.py"
ROBOTS = ("balance_bot", "rover", str(COMPARE.with_name("bench_bot.toml")))
CHUNK = 20_000


def compare(robot: str, streams: int, seed: int, sanitize: bool) -> dict[str, int]:
    """What one chunk found; a difference ends the run."""
    command = [sys.executable, str(COMPARE), "--robot", robot, "--streams", str(streams), "--seed", str(seed), *["--sanitize"] * sanitize]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"fuzz_framing: seed {seed} of {robot} DIFFERS or died ({done.returncode}):\n{done.stderr[-3000:]}")
    return dict(ast.literal_eval(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", type=int, nargs="?", default=1_000_000, help="of all robots together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first chunk; each chunk takes the next (default: %(default)s)")
    parser.add_argument("--sanitize", action="store_true", help="the C with undefined-behaviour traps")
    args = parser.parse_args()
    found: Counter[str] = Counter()
    done, chunk, begun = 0, 0, time.monotonic()
    while done < args.streams:
        robot, seed, count = ROBOTS[chunk % len(ROBOTS)], args.seed + chunk, min(CHUNK, args.streams - done)
        chunk_found = compare(robot, count, seed, args.sanitize)
        if count == CHUNK and min(chunk_found.values()) == 0:
            print(f"fuzz_framing: seed {seed} of {robot} never reached a verdict: {chunk_found}", file=sys.stderr)
            return 1
        found.update(chunk_found)
        done, chunk = done + count, chunk + 1
        left_s = (time.monotonic() - begun) / done * (args.streams - done)
        print(f"{done} of {args.streams} streams agree, about {left_s:.0f} s left", file=sys.stderr, flush=True)
    print(f"{done} streams agree on {', '.join(Path(robot).stem for robot in ROBOTS)}, seeds {args.seed} to {args.seed + chunk - 1}, "
          f"{time.monotonic() - begun:.1f} s: " + ", ".join(f"{name} {count}" for name, count in found.items()))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
