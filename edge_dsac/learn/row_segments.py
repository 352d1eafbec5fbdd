"""The files of a buffer, from its writer's side: append to the newest, let the oldest go, put several old ones into one.

Knows files and when they are synced; knows nothing of why a row is kept. Every method may raise OSError and is then as it was,
or has said in `parts` what it did. Rule that must stay true: at any instant, whoever is killed and whatever power fails, the
folder holds a valid buffer: a header is on the disk before rows follow it, a merged file before those it stands for go, and no
header claims a row that may still be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_dsac.learn.rows_file import (
    PAGE,
    SUFFIX,
    Disk,
    Found,
    Header,
    OtherRobot,
    Shape,
    first_of,
    path_of,
    read_records,
    segments,
)


@dataclass(slots=True)
class Part:
    """One segment file, as far as it has been written."""

    path: Path
    first: int  # ordinal
    slots: int  # places taken in the file
    rows: int  # whole rows among them


class Segments:
    def __init__(self, folder: Path, shape: Shape, part_rows: int, disk: Disk) -> None:
        self.folder, self.shape, self.part_rows, self.disk = folder, shape, part_rows, disk
        self.parts: list[Part] = []
        self.descriptor = -1  # of the last part, while it takes rows
        self.unsynced = 0  # rows at the end of the last part
        self.too_old = 0  # rows that a smaller capacity than before left no room for

    def load(self, capacity: int) -> Iterator[tuple[Header | None, Found]]:
        """What the last writer left, oldest first, after what a kill left half done is tidied up."""
        found, over = segments(self.folder)
        for path, header in found:
            if header is not None and header.shape != self.shape:
                raise other_robot(path, header.shape, self.shape)
        for path in [*over, *self.folder.glob(f"*{SUFFIX}.part")]:
            self.disk.unlink(path)
        slots = [max(path.stat().st_size - PAGE, 0) // self.shape.dtype.itemsize for path, _ in found]
        while len(found) > 1 and sum(slots) > capacity:
            self.too_old += slots.pop(0)
            self.disk.unlink(found.pop(0)[0])
        after = -1
        for path, header in found:
            got = read_records(path, self.shape, after)
            after = int(got.records["ordinal"][-1]) if len(got.records) else after
            if header is None and not got.slots:
                self.disk.unlink(path)  # begun at a power cut, and nothing of it is left
            else:
                self.parts.append(Part(path, first_of(path), got.slots, len(got.records)))
            yield header, got
        if self.parts and found[-1][0] == self.parts[-1].path and (last := found[-1][1]) is not None and not last.until:
            part = self.parts[-1]
            self.descriptor = self.disk.reopen(part.path, PAGE + part.slots * self.shape.dtype.itemsize)

    def append(self, records: np.ndarray, flights: dict[int, int]) -> int:
        """How many were taken; call again for the rest. `flights`: what was stored before these, for a new file's header."""
        if self.descriptor < 0 or self.parts[-1].slots >= self.part_rows:
            self.begin(int(records["ordinal"][0]), flights)
        part = self.parts[-1]
        taken = records[: self.part_rows - part.slots]
        self.disk.write(self.descriptor, taken.view(np.uint8).data, PAGE + part.slots * self.shape.dtype.itemsize)
        part.slots, part.rows, self.unsynced = part.slots + len(taken), part.rows + len(taken), self.unsynced + len(taken)
        return len(taken)

    def begin(self, first: int, flights: dict[int, int]) -> None:
        if self.unsynced:
            raise RuntimeError("sync before a new file is begun: its header says what the older ones hold")
        path = path_of(self.folder, first)
        descriptor = self.disk.create(path)
        try:
            self.disk.write(descriptor, Header(self.shape, first, 0, flights).pack(), 0)
            self.disk.sync(descriptor)
            self.disk.sync_folder(self.folder)
        except OSError:
            self.disk.close(descriptor)
            self.discard(path)
            raise
        self.close()
        self.parts.append(Part(path, first, 0, 0))
        self.descriptor = descriptor

    def full(self) -> bool:
        return self.descriptor < 0 or self.parts[-1].slots >= self.part_rows

    def sync(self) -> None:
        if self.unsynced:
            self.disk.sync(self.descriptor)
            self.unsynced = 0

    def take_back_unsynced(self) -> int:
        """After a sync that failed the kernel may have dropped those pages: how many rows are to be appended once more."""
        count, part = self.unsynced, self.parts[-1]
        part.slots, part.rows, self.unsynced = part.slots - count, part.rows - count, 0
        return count

    def drop_oldest(self) -> int:
        """How many rows went."""
        part = self.parts.pop(0)
        if not self.parts:
            self.close()
            self.unsynced = 0
        try:
            self.disk.unlink(part.path)
        except OSError:
            pass  # it comes back at the next opening, and goes then
        return part.rows

    def merge(self, group: list[Part], kept: np.ndarray) -> None:
        """The oldest parts, of which `kept` is what is to stay, become one."""
        merged, until = group[0].path, self.parts[len(group)].first
        draft = merged.with_name(merged.name + ".part")
        try:
            self.write_whole(draft, Header(self.shape, group[0].first, until), kept)
            self.disk.rename(draft, merged)
        except OSError:
            self.discard(draft)
            raise
        self.parts[: len(group)] = [Part(merged, group[0].first, len(kept), len(kept))]
        try:
            self.disk.sync_folder(self.folder)
            for part in group[1:]:
                self.disk.unlink(part.path)
        except OSError:
            pass  # they are passed over, and removed, at the next opening

    def write_whole(self, path: Path, header: Header, records: np.ndarray) -> None:
        descriptor = self.disk.create(path)
        try:
            self.disk.write(descriptor, header.pack(), 0)
            self.disk.write(descriptor, records.view(np.uint8).data, PAGE)
            self.disk.sync(descriptor)
        finally:
            self.disk.close(descriptor)

    def discard(self, path: Path) -> None:
        try:
            self.disk.unlink(path)
        except OSError:
            pass  # found and removed at the next opening

    def close(self) -> None:
        if self.descriptor >= 0:
            self.disk.close(self.descriptor)
            self.descriptor = -1


def other_robot(path: Path, theirs: Shape, ours: Shape) -> OtherRobot:
    return OtherRobot(
        f"{path.parent}: holds rows of robot policy {theirs.fingerprint} ({theirs.obs} observations, {theirs.act} actions), this one is "
        f"{ours.fingerprint} ({ours.obs}, {ours.act}); give another folder, or move this one away"
    )
