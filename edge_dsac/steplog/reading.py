"""Opens a flight log whatever form it is in: a run's folder, one segment, a ring that is being written.

Tolerates a tail that was cut off; says how much of it there was. Every record is checked before it is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_dsac.records import Step
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog.layout import (
    HEADER_BYTES,
    HeaderCut,
    LogError,
    RecordLayout,
    check_length,
    check_record_size,
    spec_of,
    unpack_header,
)
from edge_dsac.steplog.ring import RingReader


@dataclass(frozen=True, slots=True)
class FlightLog:
    """`columns` holds one row per whole step, in order; see RecordLayout for its fields."""

    spec: RobotSpec
    columns: np.ndarray
    torn: int  # records that failed their check
    dropped_bytes: int  # after the last whole record
    wall_start_ns: int
    source: str

    def steps(self) -> Iterator[Step]:
        layout = RecordLayout(self.spec)
        return (layout.step(row) for row in self.columns)

    @property
    def gaps(self) -> int:
        """Steps that are missing between the first and the last."""
        index = self.columns["index"].astype(np.int64)
        return int((np.diff(index) - 1).sum()) if len(index) > 1 else 0


def open_log(path: str | Path) -> FlightLog:
    path = Path(path)
    if path.is_dir():
        return open_folder(path)
    if not path.exists():
        raise LogError(f"{path}: does not exist; give the folder of a run, a .edsl file or a ring")
    with open(path, "rb") as file:
        header = unpack_header(file.read(HEADER_BYTES), str(path))
    return read_ring(path) if header.capacity else read_segment(path)


def open_folder(path: Path) -> FlightLog:
    parts: list[FlightLog] = []
    stumps = 0  # bytes of segments that end within their header
    for segment in sorted(path.glob("steps-*.edsl")):
        try:
            parts.append(read_segment(segment))
        except HeaderCut:
            stumps += segment.stat().st_size
    ring = path / "ring"
    if ring.exists():
        parts.append(read_ring(ring))
    if not parts:
        raise LogError(f"{path}: holds no flight log (no whole steps-*.edsl and no ring)")
    log = join(parts, str(path))
    return replace(log, dropped_bytes=log.dropped_bytes + stumps)


def read_ring(path: Path) -> FlightLog:
    reader = RingReader(path)
    columns = reader.take(1 << 40)
    return FlightLog(reader.spec, columns, reader.torn, 0, reader.header.wall_start_ns, str(path))


def read_segment(path: Path) -> FlightLog:
    data = path.read_bytes()
    header = unpack_header(data, str(path))
    check_length(len(data), header.data_at, str(path))
    spec = spec_of(data[HEADER_BYTES : HEADER_BYTES + header.spec_bytes], str(path))
    layout = RecordLayout(spec)
    check_record_size(header, layout, str(path))
    body = memoryview(data)[header.data_at :]
    count = len(body) // layout.bytes
    whole = [i for i in range(count) if layout.good(body[i * layout.bytes : (i + 1) * layout.bytes])]
    rows = np.frombuffer(body[: count * layout.bytes], layout.dtype)[whole]
    return FlightLog(spec, rows, count - len(whole), len(body) - count * layout.bytes, header.wall_start_ns, str(path))


def join(parts: list[FlightLog], source: str) -> FlightLog:
    """In order of index; what stands in two parts (a ring that was half drained) is taken once."""
    prints = {part.spec.firmware_fingerprint + part.spec.policy_fingerprint for part in parts}
    if len(prints) > 1:
        raise LogError(f"{source}: its parts come from different robots; read them one by one")
    if len({part.wall_start_ns for part in parts}) > 1:
        raise LogError(f"{source}: its parts come from different flights; read them one by one")
    rows = np.concatenate([part.columns for part in parts])
    _, first = np.unique(rows["index"], return_index=True)
    return FlightLog(
        parts[0].spec,
        rows[first],
        sum(part.torn for part in parts),
        sum(part.dropped_bytes for part in parts),
        parts[0].wall_start_ns,
        source,
    )
