"""Several learners as one: torchrun starts them, each lives in its own environments, all take the same step.

    torchrun --nproc-per-node 2 -m edge_dsac.cli.main train --robot balance_bot

What a batch's mean is taken over is the batches of all ranks together, so that N ranks with batch B take the step of one rank
with batch N*B: gradients, and before them the running means of sigma. Rule that must stay true: parameters are made from the
same seed on every rank and never sent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed._functional_collectives as collectives  # what torch.compile can trace; the public form works in place
from torch import Tensor

from edge_dsac.learn.networks import Params


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its peers."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean(self, value: float) -> float:
        """Of one number per rank."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(tensor)
        return float(tensor) / self.count

    def least(self, value: int) -> int:
        if self.count == 1:
            return value
        tensor = torch.tensor(value)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MIN)
        return int(tensor)

    def from_first(self, value: float) -> float:
        """What rank 0 has."""
        if self.count == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        torch.distributed.broadcast(tensor, 0)
        return float(tensor)

    def leave(self) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()


ALONE = Ranks()


def join(device: str) -> Ranks:
    """The group torchrun has made; alone without it."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    if device != "cpu":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())


def mean_of_ranks(params: Params, count: int) -> Params:
    """Of tensors of all ranks: one message for all of them, whatever their shapes."""
    if count == 1:
        return params
    joined = torch.cat([p.reshape(-1) for p in params])
    summed: Tensor = collectives.all_reduce(joined, "sum", torch.distributed.group.WORLD) / count
    parts = summed.split([p.numel() for p in params])
    return tuple(part.view(p.shape) for part, p in zip(parts, params, strict=True))
