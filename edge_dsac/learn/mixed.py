"""Batches of two origins: a fixed number of rows from robots' logs, the rest from simulation.

Knows rows as the losses take them; knows no log and no robot. Rule that must stay true: every batch holds exactly
`from_logs(count, share)` rows of the logs, so that the share is what the run says it is, and not what it comes to on average.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edge_dsac.learn.losses import Batch
from edge_dsac.learn.replay import Replay


@dataclass(frozen=True, slots=True)
class Real:
    """What robots have lived through: all of it, and how much of each batch it makes up."""

    rows: Batch
    share: float  # 0 to 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"a share of {self.share:g} of each batch from logs; expected 0 (none) to 1 (nothing but them)")
        if not len(self.rows.reward):
            raise ValueError("no row of the logs to learn from; expected at least one")


class Mixed:
    def __init__(self, simulated: Replay, real: Real) -> None:
        count, obs = real.rows.obs.shape
        self.simulated, self.share = simulated, real.share
        self.real = Replay(count, obs, real.rows.act.shape[1], simulated.device)
        self.real.add(real.rows)

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        real = from_logs(count, self.share)
        drawn = [source.sample(rows, generator) for source, rows in ((self.real, real), (self.simulated, count - real)) if rows]
        return Batch(*(torch.cat(columns) for columns in zip(*drawn, strict=True)))


def from_logs(count: int, share: float) -> int:
    """Of a batch of so many rows. A share above none is never rounded to none."""
    return max(round(count * share), 1 if share > 0.0 else 0)
