"""Changes to files that a crash cannot leave half done: write aside, rename over, and each of them on the disk before the next.

One method per thing that can be interrupted, so that a test can fail between any two. Knows no format. Rule that must stay true: a
reader of the final name sees the old file or the new one, whole.
"""

from __future__ import annotations

import os
from pathlib import Path


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Tells one version of a file that is replaced by rename from the next; None: there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class Disk:
    def write(self, path: Path, data: bytes) -> Path:
        """Writes beside `path` and answers where; nothing is under the name itself yet."""
        unfinished = path.with_name(f".{path.name}.unfinished")  # always the same: what a crash leaves behind is written over
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return unfinished

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def append(self, path: Path, line: bytes) -> None:
        """A line of its own, also after one that a crash has cut off."""
        with path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def sync(self, folder: Path) -> None:
        """Until then a rename is only in memory."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def put(self, path: Path, data: bytes) -> None:
        self.rename(self.write(path, data), path)
        self.sync(path.parent)
