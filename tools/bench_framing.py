"""What a frame costs in Python: encoding and decoding 64 bytes on the wire, hot, in microseconds.

    python tools/bench_framing.py [--repeats 2000] [--json]

Each repeat times a run of 100 frames and divides; p50 is what to expect, the minimum what the code itself costs. The frame is
a closed message of random bytes, CRC seeded as between a robot and its host, its COBS code and delimiter
included in the 64. Nothing is allocated between repeats but what the codec itself allocates; the collector is off.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_dsac.spec.robot import RobotSpec, load_robot
from firmware_bridge.framing import CRC_BYTES, HEADER_BYTES, Deframer, Framer
from firmware_bridge.messages import MessageId

FRAME_BYTES = 64
CODE_BYTES = 2  # one COBS code byte and the delimiter
FRAMES = 100  # per repeat: the clock's own 50 ns then vanish


def time_us(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    clock = time.perf_counter_ns
    for _ in range(20):
        call()
    spent = np.zeros(repeats)
    for repeat in range(repeats):
        begin = clock()
        call()
        spent[repeat] = (clock() - begin) / FRAMES / 1000
    return {"p50_us": round(float(np.median(spent)), 3), "min_us": round(float(spent.min()), 3)}


def bench(spec: RobotSpec, repeats: int) -> dict[str, dict[str, float]]:
    payload = np.random.default_rng(1).bytes(FRAME_BYTES - CODE_BYTES - HEADER_BYTES - CRC_BYTES)
    framer, deframer = Framer(spec), Deframer(spec)
    message = int(MessageId.TELEMETRY)
    deframer.sizes[message] = len(payload)  # a robot whose telemetry makes just this frame
    frames = [framer.frame(message, payload, 1) for _ in range(FRAMES)]
    if {len(frame) for frame in frames} != {FRAME_BYTES} or len(deframer.feed(b"".join(frames))) != FRAMES:
        raise SystemExit(f"bench_framing: the frames are not {FRAME_BYTES} bytes or do not decode; adapt this benchmark")

    def encode() -> None:
        for _ in range(FRAMES):
            framer.frame(message, payload, 1)

    def decode() -> None:
        for frame in frames:
            deframer.feed(frame)

    def both() -> None:
        for _ in range(FRAMES):
            deframer.feed(framer.frame(message, payload, 1))

    gc.collect()
    gc.disable()
    try:
        return {name: time_us(call, repeats) for name, call in (("encode", encode), ("decode", decode), ("both", both))}
    finally:
        gc.enable()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="balance_bot", help="whose fingerprint seeds the CRC (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2000, help=f"runs of {FRAMES} frames (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args()
    result = bench(load_robot(args.robot), args.repeats)
    if args.json:
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        print(json.dumps({"frame_bytes": FRAME_BYTES, "repeats": args.repeats, **result, **machine}))
    else:
        for name, row in result.items():
            print(f"{name:<7} p50 {row['p50_us']:6.2f} us   min {row['min_us']:6.2f} us   ({FRAME_BYTES}-byte frame)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
