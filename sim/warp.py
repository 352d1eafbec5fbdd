"""The part of mujoco.batch.Batch that the plant stands on, in mujoco_warp: thousands of robots on one GPU (or, slowly, on the CPU).

Knows no robot: a model, `n` worlds, and which fields of the model every world has its own copy of. The rule: the host has float64
mirrors, the device float32; a mirror that was written goes over before the next call, a field before the next set_const().
What crosses per step is ctrl in, and qpos, qvel and sensordata out. mujoco_warp is imported here, by the constructor, and nowhere else.

Not run on a GPU yet: the recorded graphs of `play` and the deterministic mode are written for one and were never tried on one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np

from edge_dsac.records import Float

# What set_const computes from the fields above per world; without a row of its own a world would get another's.
DERIVED = (
    "body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_invweight0", "actuator_acc0", "geom_aabb", "geom_rbound",
)  # fmt: skip
STATES = ("qpos", "qvel", "ctrl")
CHECK_EVERY = 100  # steps between two looks at the overflow flags, which stay up: a transfer less per step
SPARE_CONTACTS = 8  # between the robot's own bodies; against the floor every geom is counted in full
MOST_ON_PLANE = {mujoco.mjtGeom.mjGEOM_SPHERE: 1, mujoco.mjtGeom.mjGEOM_CAPSULE: 2, mujoco.mjtGeom.mjGEOM_CYLINDER: 4}
MOST_CONTACTS = 8  # a box's corners


class EngineError(ValueError):
    """An engine that is not here, or one that cannot go on; says what to do."""


class WarpBatch:
    """`fields` are those that expand() gives: mujoco_warp wants to know when it lays out the model."""

    def __init__(self, model: mujoco.MjModel, n: int, fields: Sequence[str] = ()) -> None:
        try:
            import mujoco_warp
            import warp
        except ModuleNotFoundError as error:
            raise EngineError(f"engine 'warp' needs the package {error.name}: pip install 'edge_dsac[warp]', or take 'mujoco'") from None
        warp.config.log_level = warp.LOG_WARNING  # else a line of every kernel loaded, on stdout
        self.mjw, self.wp, self.n = mujoco_warp, warp, n
        self.device = warp.get_device()  # a GPU where there is one
        self.contacts, self.rows = capacities(model)
        self.model = mujoco_warp.put_model(model, batch_sizes=dict.fromkeys((*fields, *DERIVED), n))
        self.model.opt.warn_overflow = 0  # the kernels' prints; the flags are read instead
        if self.device.is_cuda:
            # Threads add up in another order each time, so that one seed would give many runs. A CPU goes one by one.
            self.model.opt.deterministic = True
        self.data = mujoco_warp.make_data(model, nworld=n, nconmax=self.contacts, njmax=self.rows)
        self.fields = {name: np.repeat(np.asarray(getattr(model, name), float)[None], n, axis=0) for name in fields}
        self.mirrors: dict[str, Float] = {}
        self.on_device: dict[str, Any] = {}  # float32, as it was last sent or seen
        self.graphs: dict[Any, Any] = {}
        self.steps = 0

    def bind(self, name: str) -> Float:
        """A float64 array `[n, ...]` that lives as long as this: written for the states, read for everything else."""
        self.mirrors[name] = np.zeros(getattr(self.data, name).shape)
        self.pull([name], slice(None))
        return self.mirrors[name]

    def expand(self, name: str) -> Float:
        """Every world's own copy of a model's field, `[n, ...]`. What is written acts from the next set_const() on."""
        if name not in self.fields:
            raise EngineError(f"{name} was not among the fields this batch was made with: {', '.join(self.fields)}")
        return self.fields[name]

    def step(self, nstep: int = 1) -> None:
        """Derived fields then describe the state before the last step, as mj_step leaves them."""
        self.push_states()
        self.play(("step", nstep), lambda: self.advance(nstep))
        self.pull([name for name in self.mirrors if name != "ctrl"], slice(None))
        self.steps += nstep
        if self.steps >= CHECK_EVERY:
            self.check()

    def advance(self, nstep: int) -> None:
        for _ in range(nstep):
            self.mjw.step(self.model, self.data)

    def forward(self, ids: Any = None) -> None:
        """For all, which changes no state; but only the rows `ids` of the derived fields become the new ones."""
        self.push_states()
        self.play("forward", lambda: self.mjw.forward(self.model, self.data))
        self.pull([name for name in self.mirrors if name not in STATES], rows_of(ids))

    def reset(self, ids: Any = None) -> None:
        """To the model's defaults, the delayed commands with them. Derived fields wait for forward()."""
        self.check()  # the flags of the worlds that are reset go down with it
        self.push_states()
        where = np.zeros(self.n, bool)
        where[rows_of(ids)] = True
        self.mask().assign(where)
        self.play("reset", lambda: self.mjw.reset_data(self.model, self.data, self.mask()))
        self.pull([name for name in STATES if name in self.mirrors], rows_of(ids))

    def set_const(self, ids: Any = None) -> None:
        """Sends what was written to the fields and lets mujoco_warp compute anew what follows from them: bounds, subtree masses,
        inverse weights. For all worlds: those whose fields did not change get the same numbers again.

        stat.meaninertia, which only scales the solver's tolerance, stays the nominal robot's in every world.
        """
        for name, values in self.fields.items():
            self.push(name, values, self.model)
        group = self.mjw.SetConstGroup
        groups = int(group.FIXED | group.INERT0)  # KIN0 is cameras, lights and tendons' lengths, of which no mass makes another
        # Not restored: the state is not touched, and every other quantity is computed again by the next call.
        self.play("set_const", lambda: self.mjw.set_const(self.model, self.data, groups=groups, restore=False))

    def mask(self) -> Any:
        if "mask" not in self.on_device:  # one array for good: a recorded graph reads it where it is
            self.on_device["mask"] = self.wp.zeros(self.n, dtype=self.wp.bool)
        return self.on_device["mask"]

    def push_states(self) -> None:
        for name in STATES:
            if name in self.mirrors:
                self.push(name, self.mirrors[name], self.data)

    def push(self, name: str, values: Float, owner: Any) -> None:
        fresh = values.astype(np.float32)
        if name not in self.on_device or not np.array_equal(fresh, self.on_device[name]):
            getattr(owner, name).assign(fresh)
            self.on_device[name] = fresh

    def pull(self, names: Sequence[str], rows: Any) -> None:
        for name in names:
            seen = np.array(getattr(self.data, name).numpy())  # a copy: on the CPU it is the device's own memory
            self.mirrors[name][rows] = seen[rows]
            if name in STATES:
                self.on_device[name] = seen
        if "qpos" in names and not np.isfinite(self.mirrors["qpos"]).all():
            # C MuJoCo would put this robot back where it began and go on; here it would be NaN in every batch from now on.
            lost = np.flatnonzero(~np.isfinite(self.mirrors["qpos"]).all(axis=1)).tolist()
            raise EngineError(f"world {lost[0]} (of {len(lost)} such) is no longer finite; a smaller board period or 'mujoco' may help")

    def play(self, name: Any, work: Callable[[], None]) -> None:
        """On a GPU the first call runs as it is, which loads its kernels; the second is recorded, and replayed from then on."""
        if not self.device.is_cuda:
            work()
        elif name not in self.graphs:
            self.graphs[name] = None
            work()
        else:
            if self.graphs[name] is None:
                with self.wp.ScopedCapture() as capture:
                    work()
                self.graphs[name] = capture.graph
            self.wp.capture_launch(self.graphs[name])

    def check(self) -> None:
        """Contacts that had no room were left out of the physics: that is not gone on with."""
        self.steps = 0
        kinds = self.mjw.OverflowType
        flags = self.data.overflow.numpy() & ~int(kinds.ITERATIONS | kinds.LS_ITERATIONS)  # these two only cost accuracy
        if flags.any():
            world = int(np.flatnonzero(flags)[0])
            raise EngineError(
                f"world {world} (of {np.count_nonzero(flags)} such): overflow, {kinds(int(flags[world]))!r}, with room for "
                f"{self.contacts} contacts and {self.rows} constraint rows a world; raise SPARE_CONTACTS in sim/warp.py, or take 'mujoco'"
            )


def rows_of(ids: Any) -> Any:
    return slice(None) if ids is None else np.asarray(ids)


def capacities(model: mujoco.MjModel) -> tuple[int, int]:
    """(contacts, constraint rows) a world has room for: every colliding geom in full on the floor, some between bodies, every limit."""
    moving = [i for i in range(model.ngeom) if model.geom_bodyid[i] != 0 and (model.geom_contype[i] or model.geom_conaffinity[i])]
    most = {i: MOST_ON_PLANE.get(mujoco.mjtGeom(model.geom_type[i]), MOST_CONTACTS) for i in moving}
    floors = [i for i in range(model.ngeom) if model.geom_bodyid[i] == 0 and (model.geom_contype[i] or model.geom_conaffinity[i])]

    def rows(condim: int) -> int:
        elliptic = model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
        return condim if elliptic or condim == 1 else 2 * (condim - 1)

    least = max((int(model.geom_condim[i]) for i in floors), default=3)
    contacts = sum(most.values()) + SPARE_CONTACTS
    constraints = sum(most[i] * rows(max(least, int(model.geom_condim[i]))) for i in moving) + SPARE_CONTACTS * rows(6)
    others = 6 * model.neq + 2 * (model.njnt + model.ntendon) + model.nv + model.ntendon  # equalities, limits, friction losses
    return contacts, constraints + others
