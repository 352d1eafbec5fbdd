"""The same robots in mujoco_warp: what a command does, agrees with MuJoCo in every world, and the rest of the project runs on it unchanged.

On the CPU. mujoco_warp is not among what CI installs: 150 MB, and a minute or two in which its kernels are compiled.
"""

import importlib.util
import sys

import numpy as np
import pytest

from sim.env import EpisodeOptions
from sim.plant import RANDOMIZED_FIELDS, Plant
from sim.randomize import load_ranges
from sim.tasks import RobotTask
from sim.warp import DERIVED, EngineError, WarpBatch, capacities

needs_warp = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_warp") is None, reason="mujoco_warp is not installed: pip install 'edge_dsac[warp]'"
)
SEED, ROBOTS, TICKS = 7, 3, 20  # ticks between two looks
# Single precision against double, over half a second: m or rad, m/s or rad/s, rad/s, m/s2. About three times what is seen.
NEAR = {
    "balance_bot": {"position": 2e-4, "speed": 3e-3, "gyro": 1e-3, "accel": 3e-3},
    "rover": {"position": 2e-4, "speed": 1.5e-2, "gyro": 1.5e-2, "accel": 6e-3},
}
# A randomization that did not arrive would be seen: it moves the robot by more than this many times what is called near.
SEEN = 3.0
RANDOMIZED = ("mass_scale", "motor_constant_scale", "delay_s", "friction_scale", "damping_scale", "wheel_radius_scale", "com_forward_m")


@pytest.fixture(params=["balance_bot", "rover"])
def robot(request, bot, rover):
    return {"balance_bot": bot, "rover": rover}[request.param]


def settled(plant, like=None):
    """A rover is put down with its tyres exactly on the floor, where the last bit decides whether they touch: first let it stand."""
    if not plant.tilts:
        plant.drive(None, 300)
        if like is not None:
            plant.states[:], plant.speeds[:] = like.states, like.speeds
    return plant


def driven(plant, looks=25):
    """What half a second of one and the same command does: name -> `[looks, robots, k]`."""
    track = []
    for i in range(looks):
        duty = [0.3 * np.sin(i / 3), 0.2 * np.cos(i / 5)] if plant.tilts else [0.025 * i, 0.018 * i]
        plant.drive(np.tile(duty, (plant.n, 1)), TICKS)
        track.append((plant.states.copy(), plant.speeds.copy(), plant.sensordata[:, 0:3].copy(), plant.sensordata[:, 3:6].copy()))
    return dict(zip(("position", "speed", "gyro", "accel"), map(np.array, zip(*track, strict=True)), strict=True))


def apart(one, other):
    return {name: float(np.abs(one[name] - other[name]).max()) for name in one}


@pytest.mark.slow
@needs_warp
def test_the_same_robots_move_alike_in_both_engines(robot):
    exact = settled(Plant(robot, ROBOTS, SEED, load_ranges("full")))
    single = settled(Plant(robot, ROBOTS, SEED, load_ranges("full"), engine="warp"), like=exact)
    track = driven(exact)
    off = apart(track, driven(single))
    print(robot.model, off, {name: float(np.abs(values).max()) for name, values in track.items()})
    assert all(off[name] < near for name, near in NEAR[robot.model].items()), off
    assert np.allclose(exact.amps, single.amps, atol=1e-2)
    assert np.array_equal(exact.drawn["mass_scale"], single.drawn["mass_scale"])


@pytest.mark.slow
@pytest.mark.parametrize("name", RANDOMIZED)
def test_what_is_randomized_makes_more_of_a_difference_than_the_engines_may(robot, name):
    """So that the test above would fail if it did not arrive."""
    as_drawn, without = (settled(Plant(robot, ROBOTS, SEED, load_ranges("full"))) for _ in range(2))
    without.drawn.values[name][:] = 0.0 if name in ("delay_s", "com_forward_m") else 1.0
    without.write_fields(np.arange(ROBOTS))
    without.batch.set_const()
    off = apart(driven(as_drawn), driven(without))
    assert any(off[what] > SEEN * near for what, near in NEAR[robot.model].items()), off


@pytest.mark.slow
@needs_warp
def test_every_world_has_the_constants_that_mujoco_computes_for_its_masses(robot):
    exact, single = (Plant(robot, ROBOTS, SEED, load_ranges("full"), engine=engine) for engine in ("mujoco", "warp"))
    for world in range(ROBOTS):
        model = exact.batch.get_model(world)
        for name in (*RANDOMIZED_FIELDS, *(set(DERIVED) - {"geom_aabb"})):
            expected = np.asarray(getattr(model, name))
            got = getattr(single.batch.model, name).numpy()[world].reshape(expected.shape)
            assert np.allclose(got, expected, rtol=1e-3, atol=1e-6), f"{name} of world {world}"
    assert not np.allclose(single.batch.model.dof_invweight0.numpy()[0], single.batch.model.dof_invweight0.numpy()[1], rtol=1e-3)


@pytest.mark.slow
@needs_warp
def test_resetting_some_robots_leaves_the_others_to_the_bit(bot):
    left_alone, plant = (Plant(bot, 3, 5, load_ranges("full"), engine="warp") for _ in range(2))
    duty = np.tile([0.5, 0.2], (3, 1))
    for each in (left_alone, plant):
        each.drive(duty, 40)
    before = {name: np.array(getattr(plant, name)) for name in ("states", "speeds", "sensordata")}
    masses = plant.drawn["mass_scale"].copy()
    plant.reset(np.array([False, True, False]))
    for name, values in before.items():
        assert np.array_equal(getattr(plant, name)[[0, 2]], values[[0, 2]]), name
    assert np.array_equal(plant.drawn["mass_scale"] != masses, [False, True, False])
    assert not np.array_equal(plant.states[1], before["states"][1])
    assert np.array_equal(plant.speeds[1], np.zeros(8))
    plant.drive(np.zeros((3, 2)), 1)  # the old command was on its way
    assert abs(plant.speeds[1, plant.dofs]).max() < 0.1
    # And what was not to be seen of them, such as commands on their way, is as it was too.
    plant.drive(duty, 20)
    left_alone.drive(np.zeros((3, 2)), 1)
    left_alone.drive(duty, 20)
    for name in before:
        assert np.array_equal(getattr(plant, name)[[0, 2]], getattr(left_alone, name)[[0, 2]]), name


@pytest.mark.slow
@needs_warp
def test_a_task_runs_an_episode_to_its_end_and_begins_again(bot):
    task = RobotTask(bot, 2, EpisodeOptions(engine="warp", seconds=0.1))
    assert isinstance(task.env.rollout.plant.batch, WarpBatch)
    first = task.begin(3)
    steps = round(0.1 * bot.rates.control_hz)
    for i in range(1, steps + 3):
        outcome = task.step(np.zeros((2, 2)))
        assert np.isfinite(outcome.next_obs).all()
        assert outcome.truncated.all() == (i == steps), i
        assert np.array_equal(outcome.obs, outcome.next_obs) == (i != steps)
    assert np.array_equal(task.begin(3), first)  # one seed, one beginning


@pytest.mark.slow
@needs_warp
def test_contacts_without_room_are_an_error_that_says_so(bot, monkeypatch):
    monkeypatch.setattr("sim.warp.capacities", lambda model: (1, 4))
    plant = Plant(bot, 2, 0, engine="warp")
    with pytest.raises(EngineError, match=r"world 0 .*overflow.* 1 contacts and 4 constraint rows.*SPARE_CONTACTS"):
        plant.drive(None, 120)


@pytest.mark.slow
@needs_warp
def test_a_robot_that_is_no_longer_a_number_is_an_error_that_names_it(bot):
    plant = Plant(bot, 2, 0, engine="warp")
    plant.states[1, 0] = np.nan
    with pytest.raises(EngineError, match="world 1 .*no longer finite"):
        plant.drive(None, 1)


def test_there_is_room_for_every_geom_flat_on_the_floor(bot, rover):
    # Bot: three boxes (8 corners, 3 rows each), two tyres (4, 4 rows), 8 spare of 6; limits 2 * 3 joints, friction 8 dofs.
    assert capacities(Plant(bot).model) == (3 * 8 + 2 * 4 + 8, 3 * 8 * 3 + 2 * 4 * 4 + 8 * 6 + 6 + 8)
    # Rover: two boxes, a ball, two tyres.
    assert capacities(Plant(rover).model) == (2 * 8 + 1 + 2 * 4 + 8, 2 * 8 * 3 + 3 + 2 * 4 * 4 + 8 * 6 + 6 + 8)


@pytest.mark.parametrize("missing", ["mujoco_warp", "warp"])
def test_a_missing_package_is_named_with_what_installs_it(bot, monkeypatch, missing):
    for name in list(sys.modules):
        if name == "mujoco_warp" or name.startswith("mujoco_warp."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    if missing == "warp":
        monkeypatch.setitem(sys.modules, "mujoco_warp", object())
        monkeypatch.setitem(sys.modules, "warp", None)
    with pytest.raises(EngineError, match=rf"needs the package {missing}: pip install 'edge_dsac\[warp\]'"):
        RobotTask(bot, 1, EpisodeOptions(engine="warp"))


def test_an_unknown_engine_is_an_error_that_lists_the_known(bot):
    with pytest.raises(EngineError, match="'brax' is not one of mujoco, warp"):
        RobotTask(bot, 1, EpisodeOptions(engine="brax"))
