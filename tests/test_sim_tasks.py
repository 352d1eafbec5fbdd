"""Tasks: where an episode ends, whose observation is whose; the same from the same seed; what cannot be learnt is named."""

import os
import signal
import time

import gymnasium as gym
import numpy as np
import pytest

from sim.env import EpisodeOptions
from sim.tasks import GymTask, RobotTask, TaskError, WorkerTask


def lived(task, seed, steps):
    """Everything that `steps` steps gave."""
    obs = [task.begin(seed)]
    outcomes = []
    for k in range(steps):
        wanted = np.broadcast_to(np.sin(k + np.arange(task.n))[:, None] * task.high, (task.n, len(task.high)))
        outcomes.append(task.step(wanted.astype(np.float32)))
        obs.append(outcomes[-1].obs)
    return np.array(obs), outcomes


def assert_same(one, other):
    assert np.array_equal(one[0], other[0])
    for a, b in zip(one[1], other[1], strict=True):
        for field in ("applied", "reward", "next_obs", "terminated", "truncated", "obs"):
            assert np.array_equal(getattr(a, field), getattr(b, field)), field


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: RobotTask("balance_bot", 2, EpisodeOptions(seconds=0.1)), *(
    lambda kind=kind: kind("InvertedPendulum-v5", 2, max_episode_steps=7) for kind in (GymTask, WorkerTask)
)], ids=["robot", "gym", "workers"])  # fmt: skip
def test_what_a_step_gave_is_never_written_to_again(make):
    """Rows are made of it when several steps are over."""
    task = make()
    try:
        then, given = [task.begin(5).copy()], []
        for k in range(30):
            given.append(task.step(np.full((2, len(task.high)), np.sin(k), np.float32)))
            then.append([np.array(column) for column in given[-1][:6]])
        assert any((outcome.terminated | outcome.truncated).any() for outcome in given)
        for outcome, copies in zip(given, then[1:], strict=True):
            assert all(np.array_equal(column, copy) for column, copy in zip(outcome[:6], copies, strict=True))
    finally:
        task.close()


# Robots


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["balance_bot", "rover"])
def test_a_robots_episode_ends_in_its_own_observation_and_the_next_begins_in_the_same_step(robot):
    task = RobotTask(robot, 2, EpisodeOptions(seconds=0.2))
    task.begin(3)
    length = round(0.2 * task.env.robot.rates.control_hz)
    for _ in range(3):
        for k in range(length):
            outcome = task.step(np.full((2, len(task.high)), 0.2, np.float32))
            if k < length - 1:
                assert np.array_equal(outcome.obs, outcome.next_obs)
        assert outcome.truncated.all()
        assert not outcome.terminated.any()
        assert not np.array_equal(outcome.obs, outcome.next_obs)
        assert (outcome.applied != 0.0).any()  # what was done at the end, not the next episode's zero
    task.close()


@pytest.mark.slow
def test_a_robot_that_goes_on_sees_the_same_when_another_one_starts_anew():
    task = RobotTask("balance_bot", 2, EpisodeOptions(seconds=60.0))
    task.begin(3)
    for _ in range(400):
        outcome = task.step(np.array([[1.0, 0.0], [0.0, 0.0]], np.float32))  # full ahead falls
        if outcome.terminated.tolist() == [True, False]:
            break
    assert outcome.terminated.tolist() == [True, False]
    assert outcome.info["fallen"].tolist() == [True, False]
    assert abs(outcome.info["pitch_rad"][0]) > task.env.robot.safety.tilt_limit_rad - 0.2  # the old robot's, not the new one's
    assert np.array_equal(outcome.obs[1], outcome.next_obs[1])


@pytest.mark.slow
def test_the_applied_action_is_the_limiters():
    task = RobotTask("balance_bot", 1)
    task.begin(3)
    first = task.step(np.array([[1.0, 0.0]], np.float32)).applied
    assert 0.0 < first[0, 0] < 1.0  # the slew limit holds it back


@pytest.mark.slow
def test_a_robot_lives_the_same_from_the_same_seed_whatever_ran_before():
    task = RobotTask("balance_bot", 2, EpisodeOptions(seconds=0.2))
    first = lived(task, 5, 30)
    lived(task, 6, 7)
    assert_same(first, lived(task, 5, 30))
    assert not np.array_equal(first[0], lived(task, 6, 30)[0])


# Gymnasium


@pytest.mark.slow
def test_a_time_limit_shows_the_old_episodes_last_observation():
    task = GymTask("Pendulum-v1", 2, max_episode_steps=5)
    alone = gym.make("Pendulum-v1", max_episode_steps=6)
    seeds = np.random.SeedSequence(4).generate_state(2)
    task.begin(4)
    alone.reset(seed=int(seeds[1]))
    for k in range(5):
        outcome = task.step(np.full((2, 1), 0.5, np.float32))
        expected, reward, *_ = alone.step(np.array([0.5], np.float32))
        assert np.array_equal(outcome.next_obs[1], expected)
        assert outcome.reward[1] == reward
        assert outcome.truncated.tolist() == [k == 4] * 2
    assert not np.array_equal(outcome.obs, outcome.next_obs)
    assert not outcome.terminated.any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_an_environment_lives_the_same_from_the_same_seed_whatever_ran_before(name):
    task = GymTask(name, 2, max_episode_steps=7)
    first = lived(task, 5, 20)
    lived(task, 6, 3)
    assert_same(first, lived(task, 5, 20))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Pendulum-v1", "InvertedPendulum-v5"])
def test_workers_give_the_same_numbers(name):
    workers = WorkerTask(name, 2, max_episode_steps=7)
    try:
        assert_same(lived(GymTask(name, 2, max_episode_steps=7), 5, 20), lived(workers, 5, 20))
    finally:
        workers.close()


@pytest.mark.slow
def test_a_killed_worker_is_an_error_with_advice_within_seconds():
    task = WorkerTask("Pendulum-v1", 2)
    task.begin(1)
    os.kill(task.envs.processes[1].pid, signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(TaskError, match=r"Pendulum-v1: worker 1 of 2 is gone .*--resume auto"):
        task.step(np.zeros((2, 1), np.float32))
    task.close()
    assert time.monotonic() - begun < 5.0


# What cannot be learnt


class Odd(gym.Env):
    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space, self.size = observation_space, action_space, 2

    def reset(self, seed=None, options=None):
        return np.zeros(self.size, np.float32), {}

    def step(self, action):
        return np.zeros(self.size + 1, np.float32), 0.0, False, False, {}


VECTOR, HAND = gym.spaces.Box(-1.0, 1.0, (2,)), gym.spaces.Box(-1.0, 1.0, (1,))


@pytest.fixture
def odd():
    gym.register("Odd-v0", entry_point=Odd, disable_env_checker=True, order_enforce=False)
    yield "Odd-v0"
    del gym.registry["Odd-v0"]


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (VECTOR, gym.spaces.Discrete(2), "expected a continuous action vector"),
        (VECTOR, gym.spaces.Box(-1.0, 1.0, (2, 2)), "expected a continuous action vector"),
        (VECTOR, gym.spaces.Box(-np.inf, np.inf, (1,)), "expected finite action limits"),
        (gym.spaces.Box(0, 255, (8, 8, 3), np.uint8), HAND, r"an observation vector, got the shape \(8, 8, 3\)"),
    ],
)
def test_spaces_that_cannot_be_learnt_are_named(odd, observations, actions, message):
    with pytest.raises(TaskError, match=f"Odd-v0: .*{message}"):
        GymTask(odd, 1, observation_space=observations, action_space=actions)


def test_an_observation_of_another_shape_than_at_the_start_is_named(odd):
    task = GymTask(odd, 1, observation_space=VECTOR, action_space=HAND)
    task.begin(0)
    with pytest.raises(TaskError, match=r"Odd-v0: an observation of the shape \(3,\); it was \(2,\) at the start"):
        task.step(np.zeros((1, 1)))


@pytest.mark.parametrize("name", ["NoSuchThing-v0", "no_such_module:Thing-v0", "Pendulum-v99", "not an id"])
@pytest.mark.parametrize("task", [GymTask, WorkerTask])
def test_an_unknown_id_is_named(task, name):
    with pytest.raises(TaskError, match=name):
        task(name, 1)
