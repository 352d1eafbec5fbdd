"""What has been lived through: a ring of transitions on the device that learns.

Knows nothing of episodes or environments: a row is whole in itself (its discount says how many steps it spans). Rule that
must stay true: the order of rows and the draw from them follow from the calls alone, so that a resumed run samples the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edge_dsac.learn.losses import Batch
from edge_dsac.records import Float


class Replay:
    def __init__(self, capacity: int, obs: int, act: int, device: str = "cpu") -> None:
        def column(*width: int) -> torch.Tensor:
            return torch.empty((capacity, *width), dtype=torch.float32, device=device)  # pages are touched as they fill

        self.rows = Batch(column(obs), column(act), column(), column(obs), column(), column())
        # The same memory as numpy sees it, which writes a row in a tenth of the time.
        self.places: list[Any] = [column.numpy() if device == "cpu" else column for column in self.rows]
        self.capacity, self.device = capacity, device
        self.total = 0  # rows ever added

    @property
    def size(self) -> int:
        return min(self.total, self.capacity)

    def add(self, rows: Batch) -> None:
        """Oldest out. `rows` holds numpy arrays or tensors, one row per transition."""
        count = len(rows.reward)
        if count > self.capacity:
            raise ValueError(f"replay: {count} rows at once do not fit in {self.capacity}")
        start = self.total % self.capacity
        first = min(count, self.capacity - start)
        for place, new in zip(self.places, rows, strict=True):
            values = new if self.device == "cpu" else torch.as_tensor(new)
            place[start : start + first] = values[:first]
            if first < count:
                place[: count - first] = values[first:]
        self.total += count

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """Uniform, with replacement. Indices are drawn on the CPU: the same on every device."""
        picked = torch.randint(self.size, (count,), generator=generator).to(self.device)
        return Batch(*(column.index_select(0, picked) for column in self.rows))

    def since(self, total: int) -> dict[str, Float]:
        """The rows added after the ring had seen `total`, oldest first: what a checkpoint has not written yet."""
        oldest = max(total, self.total - self.size)
        at = torch.arange(oldest, self.total, device=self.device) % self.capacity
        return {name: column[at].cpu().numpy() for name, column in zip(Batch._fields, self.rows, strict=True)}

    def refill(self, total: int, parts: list[dict[str, Float]]) -> None:
        """From the parts that `since` gave, in order; every row ends where it was."""
        count = sum(len(part["reward"]) for part in parts)
        self.total = total - count
        for part in parts:
            self.add(Batch(*(np.asarray(part[name]) for name in Batch._fields)))
