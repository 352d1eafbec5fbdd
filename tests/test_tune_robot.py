"""The robot that studies of fine-tuning fly on: its log is whole, a fall is a new flight, and the tuner learns from it."""

import dataclasses

import numpy as np
import pytest
from sim_flight import balancing_actor
from tune_robot import TuneRobot
from tuning_fixture import SMALL, policy_of, small_carried

from edge_dsac.bundle.actor import actor_from_bytes
from edge_dsac.bundle.slots import create_slots
from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.carried import read_carried
from edge_dsac.learn.course import Course
from edge_dsac.learn.learner import Learner
from edge_dsac.learn.session import Session
from edge_dsac.learn.tuner import Tuner
from edge_dsac.learn.windows import FALLEN
from edge_dsac.records import Mode
from edge_dsac.spec.layout import ObservationLayout

RELU = dataclasses.replace(SMALL, round_updates=20)


def robot_in(folder, spec, gain=1.0):
    """Under weights that balance; with their sign turned round they fall."""
    file, _ = balancing_actor(spec, gain)
    actor = actor_from_bytes(file, "made up", spec)
    layout = ObservationLayout(spec)
    carried = small_carried(layout.size, len(spec.actions))
    still = [np.zeros((2, 4), np.float32), np.zeros(2, np.float32)]  # log-deviations beside the means
    (first, bias), (last, end) = actor.layers
    layers = (first, bias, np.concatenate([last, still[0]]), np.concatenate([end, still[1]]))
    settings = {
        **carried.settings,
        "rates": {**carried.settings["rates"], "objective": {**carried.settings["rates"]["objective"], "activation": "relu"}},
    }
    carried = dataclasses.replace(carried, networks={**carried.networks, "actor": layers, "target_actor": layers}, settings=settings)
    slots = create_slots(folder / "slots", policy_of(spec, carried), allow_unsigned=True)
    return TuneRobot(slots, spec, folder / "flights", "nominal", seed=3, lap="brisk")


@pytest.mark.slow
def test_it_stands_and_its_log_has_every_step_once(bot, tmp_path):
    robot = robot_in(tmp_path, bot)
    robot.live(3.0)
    columns = np.concatenate([chunk.columns for chunk in robot.look()])
    assert columns["index"].tolist() == list(range(3 * bot.rates.control_hz))
    assert (columns["mode"][50:] == Mode.RUNNING).all()
    assert (robot.falls, robot.flights) == (0, 1)
    assert robot.look() == []
    robot.close()
    assert robot.look()[-1].over


@pytest.mark.slow
def test_one_that_falls_flies_again_in_a_new_flight(bot, tmp_path):
    robot = robot_in(tmp_path, bot, gain=-1.0)
    robot.live(4.0)
    chunks = robot.look()
    assert robot.falls >= 1
    assert robot.flights == robot.falls + 1
    assert len({chunk.flight for chunk in chunks if chunk.over}) == robot.falls  # the one that has just begun has not flown yet
    assert sum(chunk.over for chunk in chunks) == robot.falls
    ends = [chunk.columns["faults"][-1] for chunk in chunks if len(chunk.columns) and chunk.columns["mode"][-1] == Mode.FAULT]
    assert ends
    assert all(fault & FALLEN for fault in ends)
    robot.close()


@pytest.mark.slow
def test_the_tuner_learns_from_it(bot, tmp_path):
    robot = robot_in(tmp_path, bot)
    slots = robot.slots
    size, carried = ObservationLayout(bot).size, read_carried(slots.current().files, "made up")
    buffer = Buffer(tmp_path / "rows", size, len(bot.actions), 4096, fingerprint="made up")
    session = Session(tmp_path / "session", {"parent": slots.current().manifest.sha256}, resume=False)
    tuner = Tuner(slots, session, Learner(carried, RELU), buffer, robot, None, Course(first_s=1.0))
    robot.live(2.0)
    while tuner.improve() == "learned":
        pass
    assert buffer.total >= 1.8 * bot.rates.control_hz
    assert 0 < tuner.learner.updates <= buffer.total
    assert not buffer.rows.done.any()
    robot.close()
