"""Steps whose every number says where it belongs: step 3 holds 3.0, its second joint 3.125, its velocity 103.0.

For tests of what carries steps (ring, segment, export, live line, picture). No board, no loop, no clock.
"""

import os

import numpy as np

from edge_dsac.records import BoardMode, Event, Fault, Mode, Rule
from edge_dsac.steplog.layout import FRESH, OBS_OK, RecordLayout
from edge_dsac.steplog.recorder import Recorder
from edge_dsac.steplog.ring import Ring

# Each field begins at a hundred of its own; eighths tell the entries of an array apart and are exact in float32.
HUNDREDS = {
    "position_rad": 0, "velocity_rad_s": 100, "applied": 200, "gyro_rad_s": 300, "accel_m_s2": 400, "extra": 500, "obs": 600,
    "action": 700, "applied_action": 800, "command": 900, "battery_v": 1000,
}  # fmt: skip
FIRST_NS, TICK_NS = 5_000_000_000, 10_000_000  # 100 Hz


def made_up_row(layout, index, **changes):
    row = np.zeros((), layout.dtype)
    row["index"], row["t_host_ns"], row["t_mcu_us"] = index, FIRST_NS + index * TICK_NS, 7_000_000 + index * 10_000
    row["late_ns"], row["busy_ns"], row["frame_age_ns"] = 1000 + index, 2000 + index, 3000 + index
    row["bundle_id"], row["seq"], row["answered_seq"], row["answers_seq"] = (
        (1 << 63) + 5,
        index & 0xFFFF,
        (index + 1) & 0xFFFF,
        (index + 2) & 0xFFFF,
    )
    row["faults"], row["rules"] = Fault.TILT | Fault.LIMITED, Rule.SLEW | Rule.BLEND
    row["mode"], row["because"], row["board"], row["flags"] = Mode.RUNNING, Event.FRAME_FRESH, BoardMode.ARMED, FRESH | OBS_OK
    for name, hundred in HUNDREDS.items():
        shape = layout.dtype[name].shape
        row[name] = hundred + index + np.arange(shape[0]) / 8 if shape else hundred + index
    for name, value in changes.items():
        row[name] = value
    return row[()]


def made_up_step(layout, index, **changes):
    return layout.step(made_up_row(layout, index, **changes))


def made_up_rows(spec, count, **changes):
    """What a log of `count` steps holds, less the checksums."""
    layout = RecordLayout(spec)
    return np.array([made_up_row(layout, index, **changes) for index in range(count)], layout.dtype)


def same(rows, expected):
    """Record for record, bit for bit, less the checksums; NaN equals NaN."""
    names = [name for name in expected.dtype.names if name != "crc"]
    return len(rows) == len(expected) and all(rows[name].tobytes() == expected[name].tobytes() for name in names)


def filled_ring(path, spec, count, capacity=64, **changes):
    """The steps `count` of the made-up flight, appended as the loop does it. A change may be a list: one value per step."""
    ring = Ring(path, spec, capacity)
    for index in range(count):
        ring.append(made_up_step(ring.layout, index, **{k: v[index] if isinstance(v, list) else v for k, v in changes.items()}))
    return ring


def flight_folder(folder, spec, count, **changes):
    """A finished flight on disk: one segment, no ring."""
    folder.mkdir(exist_ok=True)
    filled_ring(folder / "ring", spec, count, capacity=max(count, 1), **changes).close()
    recorder = Recorder(folder / "ring", folder)
    recorder.drain()
    recorder.finish()
    return folder


def in_a_child(work):
    """Runs `work()` in a forked process and returns its id; the caller waits for it or kills it."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"child: {error!r}\n".encode())
        os._exit(1)
