"""What a buffer's files tell: the rows, how many there ever were, how many damage took, how far each flight has been stored.

Reads only: whoever writes the buffer is not disturbed. Rule that must stay true: damage is counted, never raised and never passed on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_dsac.learn.rows_file import Found, Header, RowsError, Shape, as_rows, read_records, segments
from edge_dsac.learn.transitions import Rows


@dataclass(slots=True)
class Stock:
    """What the files told."""

    total: int = 0  # rows ever added
    damaged: int = 0  # rows lost to damage in the middle of a file
    torn: int = 0  # rows that were under way when the power failed
    flights: dict[int, int] = field(default_factory=dict)  # flight -> its highest index, the one last heard of last

    def count(self, header: Header | None, got: Found) -> None:
        self.damaged, self.torn = self.damaged + got.damaged, self.torn + got.torn
        last = int(got.records["ordinal"][-1]) + 1 if len(got.records) else 0
        self.total = max(self.total, last, header.first if header else 0)
        for flight, index in (header.flights if header else {}).items():
            self.remember(flight, index)
        self.remember_rows(got.records)

    def remember_rows(self, records: np.ndarray) -> None:
        for flight in np.unique(records["flight"]).tolist():
            self.remember(flight, int(records["index"][records["flight"] == flight].max()))

    def remember(self, flight: int, index: int) -> None:
        self.flights[flight] = max(self.flights.pop(flight, -1), index)


@dataclass(frozen=True, slots=True)
class Kept:
    """A buffer as its files tell, for reports: whoever writes it is not disturbed."""

    rows: Rows
    shape: Shape
    stock: Stock
    files: int


def open_rows(folder: str | Path) -> Kept:
    found, _ = segments(Path(folder))
    shape = next((header.shape for _, header in found if header is not None), None)
    if shape is None:
        raise RowsError(f"{folder}: holds no rows (no whole *.rows file); give the folder of a tuner's buffer")
    stock, pieces = Stock(), [np.zeros(0, shape.dtype)]
    for path, header in found:
        try:
            got = read_records(path, shape, int(pieces[-1]["ordinal"][-1]) if len(pieces[-1]) else -1)
        except FileNotFoundError:
            continue  # its writer has just let it go
        stock.count(header, got)
        if len(got.records):
            pieces.append(got.records)
    return Kept(as_rows(np.concatenate(pieces)), shape, stock, len(found))
