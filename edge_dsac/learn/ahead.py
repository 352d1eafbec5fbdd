"""The update of fine-tuning, compiled ahead of time into a shared object by a process that then ends.

The tuner holds torch and the object, no compiler: a third of the memory, and half the time of an update. What was compiled lies in a
folder of this user's alone, under a name that says everything it depends on; an object of another source, torch or processor is
never found. Knows no session. Rule that must stay true: eager and compiled differ in the last bits, so a session uses one of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from edge_dsac.bundle.processor import cpu_kind
from edge_dsac.learn.learner import Learner, Step, Tuning
from edge_dsac.learn.losses import Batch, Noise
from edge_dsac.learn.tuning import Fixtures, Recipe, TuneFigures, TuneState, tune

SOURCES = ("adapt.py", "losses.py", "networks.py", "tuning.py", "update.py", "ahead.py")
SECONDS = 900  # for a compiler on a small board


class AheadError(ValueError):
    """The update cannot be compiled or loaded here; --compile off does without."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to compile: everything but the numbers."""

    tuning: dict[str, Any]
    settings: dict[str, Any]
    layers: dict[str, list[list[int]]]  # shapes of the networks

    @property
    def name(self) -> str:
        here = Path(__file__).parent
        depends = [
            json.dumps(asdict(self), sort_keys=True), torch.__version__, platform.machine(), cpu_kind(), sys.version,
            *((here / name).read_text() for name in SOURCES),
        ]  # fmt: skip
        return hashlib.sha256("\0".join(depends).encode()).hexdigest()[:24]


def order_of(learner: Learner) -> Order:
    """The seed changes no code."""
    words = asdict(replace(learner.tuning, seed=0, round_updates=1))
    layers = {name: [list(values.shape) for values in network] for name, network in learner.carried.networks.items()}
    return Order(words, learner.carried.settings, layers)


def machine(learner: Learner, is_compiled: bool) -> dict[str, str]:
    """What the last bits of an update depend on besides its numbers; `update` names what was compiled, and from what."""
    return {
        "torch": torch.__version__, "numpy": np.__version__, "processor": hashlib.sha256(cpu_kind().encode()).hexdigest()[:16],
        "update": order_of(learner).name if is_compiled else "not compiled",
    }  # fmt: skip


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge_dsac" / "updates"


def compiled(learner: Learner, folder: Path | None = None, may_compile: bool = True) -> Callable[[Recipe], Step]:
    """For Learner's `step`. Compiles unless it lies there already; raises AheadError where that cannot or may not be done."""
    folder = own(folder or cache_folder())
    order = order_of(learner)
    paths = {with_actor: folder / f"{order.name}-{'actor' if with_actor else 'critics'}.pt2" for with_actor in (True, False)}
    if not all(path.exists() for path in paths.values()):
        if not may_compile:
            raise AheadError("the update has not been compiled on this board yet; --compile auto does it, once")
        make(order, folder)
    objects = {with_actor: load(path) for with_actor, path in paths.items()}
    return lambda recipe: Ahead(objects, learner)


def load(path: Path) -> Any:
    """torch unpacks it where TMPDIR says and leaves that to its end, which a killed process does not have: a board's disk would fill up."""
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(dir=path.parent) as unpacked:
        os.environ["TMPDIR"] = unpacked
        try:
            return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        finally:
            os.environ.pop("TMPDIR")
            if before is not None:
                os.environ["TMPDIR"] = before


class Ahead:
    """The two objects as a Step. What goes in and comes out is flat: the trees are taken apart and put together here."""

    def __init__(self, objects: dict[bool, Any], learner: Learner) -> None:
        self.objects = objects
        self.tree = pytree.tree_structure((learner.state, zeros_of_figures()))
        self.fixed = pytree.tree_leaves(learner.fixed)

    def __call__(
        self, state: TuneState, fixed: Fixtures, batch: Batch, noise: Noise, bounds: tuple[Tensor, Tensor], with_actor: bool
    ) -> tuple[TuneState, TuneFigures]:
        inputs = [*pytree.tree_leaves(state), *self.fixed, *batch, *noise, *bounds]
        after: tuple[TuneState, TuneFigures] = pytree.tree_unflatten(self.objects[with_actor].boxed_run(inputs), self.tree)
        return after


def zeros_of_figures() -> TuneFigures:
    return TuneFigures(*(torch.zeros(()) for _ in TuneFigures._fields))


def own(folder: Path) -> Path:
    """What is loaded from here runs: nobody else may be able to put something there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022:
        raise AheadError(f"{folder}: others may write there, so nothing is loaded from it: chmod 700 {folder}, or --compile off")
    return folder


def make(order: Order, folder: Path) -> None:
    """In a process of its own, which may be as large as a compiler is."""
    words = json.dumps({"order": asdict(order), "folder": str(folder)})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edge_dsac.learn.ahead"], input=words, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise AheadError(f"compiling the update took more than {SECONDS} s; --compile off does without") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode} and no word"])[-1]
        raise AheadError(f"the update cannot be compiled here: {said}; it needs a C++ compiler (apt-get install g++), or --compile off")


def main() -> int:
    words = json.loads(sys.stdin.read())
    order, folder = Order(**words["order"]), Path(words["folder"])
    learner = stand_in(order)
    inputs = example(learner)
    flat, tree = pytree.tree_flatten(inputs)
    for with_actor in (True, False):
        unfinished = folder / f"{order.name}-{os.getpid()}.pt2"
        compile_flat(flat_form(learner.recipe, tree, with_actor), flat, unfinished)
        os.replace(unfinished, folder / f"{order.name}-{'actor' if with_actor else 'critics'}.pt2")
    return 0


def stand_in(order: Order) -> Learner:
    """A learner of the same shapes; its numbers do not matter."""
    from edge_dsac.learn.carried import Carried

    networks = {name: tuple(np.zeros(shape, np.float32) for shape in shapes) for name, shapes in order.layers.items()}
    obs, act = order.layers["actor"][0][1], order.layers["actor"][-1][0] // 2
    columns = {"obs": (obs,), "act": (act,), "reward": (), "next_obs": (obs,), "done": (), "discount": ()}
    anchors = {name: np.zeros((1, *width), np.float32) for name, width in columns.items()}
    return Learner(Carried(networks, 0.0, np.ones(2, np.float32), order.settings, anchors), Tuning(**order.tuning))


def example(learner: Learner) -> tuple[Any, ...]:
    rows, act, obs = learner.tuning.batch, learner.actions, learner.anchors.obs.shape[1]
    batch = Batch(*(torch.rand((rows, *width)) for width in ((obs,), (act,), (), (obs,), (), ())))
    noise = Noise(torch.randn(rows, act), torch.randn(rows, act), torch.randn(2, rows))
    return learner.state, learner.fixed, batch, noise, learner.bounds


def flat_form(recipe: Recipe, tree: Any, with_actor: bool) -> Callable[..., tuple[Tensor, ...]]:
    def form(*flat: Tensor) -> tuple[Tensor, ...]:
        state, fixed, batch, noise, bounds = pytree.tree_unflatten(list(flat), tree)
        return tuple(pytree.tree_leaves(tune(state, fixed, batch, noise, bounds, recipe, with_actor)))

    return form


def compile_flat(form: Callable[..., tuple[Tensor, ...]], flat: list[Tensor], path: Path) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    torch.set_flush_denormal(True)
    graph = make_fx(form)(*flat)
    exported = torch.export.export(graph, tuple(flat), strict=False)
    torch._inductor.aoti_compile_and_package(exported, package_path=str(path), inductor_configs={"realize_opcount_threshold": 12})


if __name__ == "__main__":
    sys.exit(main())
