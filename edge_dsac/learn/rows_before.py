"""The buffer as a session found it: its files of that instant, made again from what the rows folder still holds.

Reads the folder, which another process may be writing, and writes only into `copy`. Rule that must stay true: what is not bit for bit
what the journal noted is not given out as it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.learn.row_segments import Segments
from edge_dsac.learn.rows_file import Disk, Header, RowsError, Shape, path_of, read_records, segments


class Unsynced(Disk):
    """For a buffer that need not outlive its process."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_folder(self, folder: Path) -> None:
        pass


def rows_before(folder: Path, told: dict[str, Any], shape: Shape, copy: Path) -> None:
    """`told`: Buffer.told() at that instant. Raises RowsError where rows of then have made room since."""
    parts: list[list[int]] = told["parts"]
    if not told["kept"]:
        return
    records = all_records(folder, shape)
    records = records[records["ordinal"] < told["rows"]]
    copy.mkdir(parents=True, exist_ok=True)
    writer, found = Segments(copy, shape, 1, Unsynced()), 0
    for (first, _, _), end in zip(parts, [*(part[0] for part in parts[1:]), told["rows"]], strict=True):
        picked = records[(records["ordinal"] >= first) & (records["ordinal"] < end)]
        writer.write_whole(path_of(copy, first), Header(shape, first), picked)
        found += len(picked)
    if found != told["kept"]:
        raise RowsError(
            f"{folder}: of the {told['kept']} rows that were there when the session began {found} are left: newer ones needed the room"
        )


def all_records(folder: Path, shape: Shape) -> np.ndarray:
    pieces, after = [np.zeros(0, shape.dtype)], -1
    for path, header in segments(folder)[0]:
        if header is not None and header.shape != shape:
            raise RowsError(f"{folder}: holds rows of {header.shape.fingerprint}, the session's are of {shape.fingerprint}")
        got = read_records(path, shape, after).records
        if len(got):
            after = int(got["ordinal"][-1])
            pieces.append(got)
    return np.concatenate(pieces)
