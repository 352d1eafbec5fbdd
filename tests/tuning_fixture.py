"""What tests of field learning start from: small networks, a policy that carries what learning goes on from, and made-up rows."""

import dataclasses

import numpy as np
import torch
from bundle_fixture import PRECISION

from edge_dsac.bundle.actor import actor_from_bytes, make_actor_file
from edge_dsac.bundle.golden import make_golden
from edge_dsac.bundle.manifest import make_manifest
from edge_dsac.bundle.package import make_bundle
from edge_dsac.bundle.slots import create_slots
from edge_dsac.learn.buffer import BLOCK_S, EVERY, Buffer
from edge_dsac.learn.carried import Carried, carried_files
from edge_dsac.learn.child import layers_of
from edge_dsac.learn.course import Course
from edge_dsac.learn.learner import Learner, Tuning, arrays
from edge_dsac.learn.losses import Objective
from edge_dsac.learn.networks import Shape, make_params
from edge_dsac.learn.session import Session
from edge_dsac.learn.transitions import Rows
from edge_dsac.learn.tuner import Tuner
from edge_dsac.learn.update import Rates
from edge_dsac.records import Event, Mode
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog.follow import Chunk
from edge_dsac.steplog.layout import FRESH, OBS_OK, RecordLayout

RATES = Rates(objective=Objective(log_std_range=(-5.0, 0.5)))
SMALL = Tuning(batch=16, round_updates=5, actor_every=2, critic_lr=1e-3, actor_lr=1e-3)


def small_carried(obs=5, act=2, seed=0, hidden=(8, 8), rates=RATES, anchors=40, gamma=0.9, n_step=1):
    """The targets are not the networks, so that whoever mixes them up is found."""
    generator = torch.Generator().manual_seed(seed)
    shape = Shape(obs, act, hidden, hidden)
    networks = {}
    for name in ("critics", "actor", "target_critics", "target_actor"):
        sizes, leading = (shape.critic, (2,)) if "critics" in name else (shape.actor, ())
        networks[name] = arrays(make_params(sizes, generator, leading))
    settings = {"rates": dataclasses.asdict(rates), "gamma": gamma, "n_step": n_step, "reward_scale": 1.0}
    drawn = np.random.default_rng(seed)
    columns = {
        "obs": drawn.normal(size=(anchors, obs)), "act": drawn.uniform(-1, 1, (anchors, act)), "reward": drawn.normal(size=anchors),
        "next_obs": drawn.normal(size=(anchors, obs)), "done": np.zeros(anchors), "discount": np.full(anchors, gamma),
    }  # fmt: skip
    columns = {name: values.astype(np.float32) for name, values in columns.items()}
    return Carried(networks, -1.5, np.array([0.7, 0.9], np.float32), settings, columns)


def made_up_rows_of(count, obs=5, act=2, seed=1, hz=10.0):
    """Rows in order of time, from the first trained-on second on; every fifth second is held out, as ever."""
    drawn = np.random.default_rng(seed)
    t_s = BLOCK_S + np.arange(count) / hz
    zeros = np.zeros(count, np.uint64)
    return Rows(
        drawn.normal(size=(count, obs)).astype(np.float32), drawn.uniform(-1, 1, (count, act)).astype(np.float32),
        drawn.normal(size=count).astype(np.float32), drawn.normal(size=(count, obs)).astype(np.float32), np.zeros(count, np.float32),
        np.full(count, 0.9, np.float32), np.arange(count, dtype=np.uint64), np.round(t_s * 1e9).astype(np.int64), zeros, zeros,
        np.full(count, 3, np.uint8), np.zeros(count, np.uint8), np.full(count, 7, np.uint64),
    )  # fmt: skip


def first_rows(rows, count):
    return Rows(*(column[:count] for column in rows))


def in_the_held_block(rows):
    """Of each row whether the gate alone may see it, or it is too near to that: said here once more, not taken from the code."""
    within_s = np.asarray(rows.t_host_ns) * 1e-9 % (BLOCK_S * EVERY)
    return within_s < BLOCK_S


def small_learner(carried=None, **changes):
    return Learner(carried or small_carried(), dataclasses.replace(SMALL, **changes))


def policy_of(spec, carried, version=3, parent=None, more=()):
    """An unsigned bundle that drives with the carried actor; `more`: further files."""
    layout = ObservationLayout(spec)
    activation = carried.settings["rates"]["objective"]["activation"]
    data = make_actor_file(layers_of(carried.networks["actor"]), activation, spec)
    actor = actor_from_bytes(data, "actor.npz", spec)
    obs = np.random.default_rng(5).uniform(-layout.clip, layout.clip, (8, layout.size)).astype(np.float32)
    files = {"actor.npz": data, "golden.npz": make_golden(actor, None, obs), **carried_files(carried), **dict(more)}
    precision = dataclasses.replace(PRECISION, chosen="float32", measured={})
    manifest = make_manifest(
        spec, actor, files, name="made_up", version=version, precision=precision, training={"run": "nowhere", "seed": 0}, parent=parent
    )
    return make_bundle(manifest, files, None)


def same_bits(ones, others):
    return len(ones) == len(others) and all(
        np.asarray(a).shape == np.asarray(b).shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(ones, others, strict=True)
    )


def same_state(one, other):
    """Of two learners, everything they remember."""
    ours, theirs = one.save(), other.save()
    return ours.keys() == theirs.keys() and same_bits([ours[name] for name in sorted(ours)], [theirs[name] for name in sorted(ours)])


# ---- a robot that flies, as the tuner sees it


def flown(spec, count, bundle=1, begin=0, lean=None):
    """Records `begin` to `begin` + `count` of the made-up flight: each follows from its index alone. `lean`: of the body, instead."""
    layout = ObservationLayout(spec)
    index = np.arange(begin, begin + count)
    rows = np.zeros(count, RecordLayout(spec).dtype)
    rows["index"], rows["bundle_id"], rows["mode"], rows["because"] = index, bundle, Mode.RUNNING, Event.FRAME_FRESH
    rows["t_host_ns"] = index * (1_000_000_000 // spec.rates.control_hz) + round(BLOCK_S * 1e9)
    rows["flags"] = FRESH | OBS_OK
    waves = np.sin(np.outer(index, 0.11 + 0.07 * np.arange(layout.size)) + np.arange(layout.size))
    rows["obs"] = 0.3 * layout.clip * waves
    for name in ("speed_target_m_s", "yaw_rate_target_rad_s"):
        rows["obs"][:, layout.newest[name].start] = 0.0
    if lean is not None:
        rows["obs"][:, 0] = lean
    rows["applied_action"] = 0.3 * np.cos(np.outer(index, [0.13, 0.29]))
    return rows


class MadeUpFlights:
    """Gives what a test has put there."""

    def __init__(self):
        self.waiting = []

    def add(self, columns, over=False, flight=7):
        self.waiting.append(Chunk(flight, columns, over))
        return self

    def look(self):
        chunks, self.waiting = self.waiting, []
        return chunks


def with_one_opinion(carried):
    """Critics that agree and are sure of it: an actor that follows them passes the gate after a few updates."""
    critics = [np.stack([values[0], values[0]]) for values in carried.networks["critics"]]
    critics[-2][:, 0] *= 20.0  # of the mean; sigma's row stays
    return dataclasses.replace(carried, networks={**carried.networks, "critics": tuple(critics)}, log_alpha=-6.0)


def liked(carried, by=0.3):
    """Critics that find more of action 0 better, and an actor that does a little more of it (`by` < 0: less)."""
    critics = [np.zeros_like(values) for values in carried.networks["critics"]]
    critics[0][:, 0, -2], critics[2][:, 0, 0], critics[4][:, 0, 0] = 1.0, 1.0, 1.0
    actor = [values.copy() for values in carried.networks["actor"]]
    actor[-1][0] += by
    return dataclasses.replace(carried, networks={**carried.networks, "critics": tuple(critics), "actor": tuple(actor)})


class TuneDesk:
    """A slot folder with a policy, a session beside it, and a tuner on both, that may be killed and made again."""

    course = Course(first_s=2.0, updates_per_row=1000.0, first_updates=1 << 40)
    capacity, keep = 4096, "oldest-out"

    def __init__(self, folder, spec, flights=None, course=None, **tuning):
        self.folder, self.spec, self.flights, self.course = folder, spec, flights or MadeUpFlights(), course or self.course
        self.tuning = dataclasses.replace(SMALL, **tuning)
        size = ObservationLayout(spec).size
        self.carried = with_one_opinion(small_carried(size, len(spec.actions)))
        if not (folder / "slots" / "current.policy").exists():
            create_slots(folder / "slots", policy_of(spec, self.carried), allow_unsigned=True, now=lambda: "then")
        self.open()

    def open(self):
        from edge_dsac.bundle.slots import Slots

        layout = ObservationLayout(self.spec)
        self.slots = Slots(self.folder / "slots", allow_unsigned=True, now=lambda: "then")
        words = {"parent": self.slots.golden().manifest.sha256, "settings": dataclasses.asdict(self.tuning)}
        self.session = Session(self.folder / "session", words, resume=True)
        fingerprint = self.spec.policy_fingerprint
        sizes = layout.size, len(self.spec.actions)
        self.buffer = Buffer(self.session.rows, *sizes, self.capacity, self.keep, fingerprint=fingerprint, clock=lambda: 0.0)
        self.learner = Learner(self.carried, self.tuning)
        self.tuner = Tuner(self.slots, self.session, self.learner, self.buffer, self.flights, None, self.course)
        return self

    def killed(self):
        """As after a kill: nothing is said or written any more, and the same is opened again."""
        self.let_go()
        return self.open()

    def let_go(self):
        self.session.close()
        self.buffer.lock.close()
