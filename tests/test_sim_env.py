"""The environments keep Gymnasium's contract, end when they should, and are worth learning: a baseline lives, chance does not."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim  # noqa: F401  registers the ids
from edge_dsac.bundle.baselines import make_baseline
from edge_dsac.learn.rewards import Reward
from edge_dsac.records import Observation
from edge_dsac.spec.robot import load_robot
from sim.env import EpisodeOptions, RobotEnv, RobotVectorEnv
from sim.randomize import load_ranges

IDS = ["EdgeDsac/BalanceBot-v0", "EdgeDsac/Rover-v0"]
NAMES = ["balance_bot", "rover"]
OVER = np.array([1.0, 0.0])  # full ahead: the body of a balancing robot falls back


def run_of(env, seed, steps=12):
    obs, _ = env.reset(seed=seed)
    rewards, seen = [], [obs]
    for i in range(steps):
        action = np.broadcast_to(0.3 * np.array([np.sin(i), np.cos(i)]), env.action_space.shape).astype(np.float32)
        obs, reward, *_ = env.step(action)
        seen.append(obs)
        rewards.append(reward)
    return np.array(seen), np.array(rewards)


# Gymnasium's contract


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
@pytest.mark.filterwarnings("error")
def test_gymnasiums_own_checker_has_nothing_to_say(name):
    check_env(gym.make(name).unwrapped)


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
def test_both_ids_make_one_and_many(name):
    env = gym.make(name, seconds=1.0)
    obs, _ = env.reset(seed=1)
    assert env.observation_space.contains(obs)
    many = gym.make_vec(name, num_envs=3, seconds=1.0)
    obs, _ = many.reset(seed=1)
    assert many.observation_space.contains(obs)
    assert isinstance(many.unwrapped, RobotVectorEnv)  # one batch, not three environments in a row


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_seeded_reset_reproduces_the_run(name):
    env = RobotEnv(name)
    first, earned = run_of(env, 5)
    again, earned_again = run_of(env, 5)
    assert np.array_equal(first, again)
    assert np.array_equal(earned, earned_again)
    assert not np.array_equal(first, run_of(env, 6)[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_without_a_seed_goes_on_with_another_robot(name):
    env = RobotEnv(name)
    first, _ = env.reset(seed=5)
    masses = env.many.rollout.plant.drawn["mass_scale"].copy()
    env.reset()
    assert env.many.rollout.plant.drawn["mass_scale"] != masses


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_vector_of_one_is_the_plain_environment(name):
    plain, earned = run_of(RobotEnv(name), 5)
    many, earned_by_many = run_of(RobotVectorEnv(name, 1), 5)
    assert np.array_equal(many[:, 0], plain)
    assert np.array_equal(earned_by_many[:, 0], earned)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_observations_stay_in_their_space_under_any_action(name, generator):
    env = RobotVectorEnv(name, 6)
    obs, _ = env.reset(seed=2)
    for _ in range(30):
        assert env.observation_space.contains(obs)
        obs, *_ = env.step(generator.uniform(-1, 1, env.action_space.shape))


def test_an_observation_that_was_handed_out_does_not_change_later(bot):
    env = RobotVectorEnv(bot, 2)
    obs, _ = env.reset(seed=1)
    kept = obs.copy()
    env.step(np.ones((2, 2)))
    assert np.array_equal(obs, kept)


def test_an_unknown_option_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"rover: unknown option 'secnds'; known: randomization, seconds"):
        RobotEnv("rover", secnds=3.0)


def test_an_unknown_robot_and_an_unknown_randomization_are_named():
    with pytest.raises(ValueError, match="did you mean 'rover'"):
        RobotEnv("rovr")
    with pytest.raises(ValueError, match="did you mean 'nominal'"):
        RobotEnv("rover", randomization="nominl")


def test_a_choice_overrides_the_options():
    env = RobotVectorEnv("rover", 1, EpisodeOptions(seconds=3.0, obstacle=False), seconds=4.0)
    assert env.options == EpisodeOptions(seconds=4.0, obstacle=False)


# The end of an episode


def test_a_fallen_robot_terminates_and_is_not_truncated(bot):
    env = RobotEnv(bot, randomization="nominal")
    env.reset(seed=1)
    for _ in range(200):
        _, _, terminated, truncated, info = env.step(OVER)
        assert not truncated
        assert terminated == (abs(info["pitch_rad"]) > bot.safety.tilt_limit_rad)
        if terminated:
            break
    assert terminated
    assert info["fallen"]


@pytest.mark.slow
def test_a_robot_that_falls_at_the_last_tick_has_fallen(bot):
    def first_end(seconds):
        env = RobotEnv(bot, randomization="nominal", seconds=seconds)
        env.reset(seed=1)
        for tick in range(1, 300):
            _, _, terminated, truncated, _ = env.step(OVER)
            if terminated or truncated:
                return tick, terminated, truncated
        return None

    ticks, *_ = first_end(5.0)
    assert first_end(ticks / 100) == (ticks, True, False)
    assert first_end((ticks - 1) / 100) == (ticks - 1, False, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_time_out_truncates_and_does_not_terminate(name):
    spec = load_robot(name)
    env, baseline = RobotEnv(spec, randomization="nominal", obstacle=False, seconds=0.3), make_baseline(spec)
    obs, _ = env.reset(seed=1)
    last = round(0.3 * spec.rates.control_hz)
    for tick in range(1, last + 1):
        obs, _, terminated, truncated, _ = env.step(baseline.act(Observation(obs, 0, True)))
        assert not terminated
        assert truncated == (tick == last)


@pytest.mark.slow
def test_a_rover_that_leaves_its_path_terminates(rover):
    env = RobotEnv(rover, randomization="nominal", obstacle=False, leave_path_m=0.05)
    env.reset(seed=1)
    for _ in range(200):
        _, _, terminated, _, info = env.step(np.array([0.5, 1.0]))
        assert terminated == (info["off_path_m"] > 0.05)
        if terminated:
            break
    assert terminated


def test_a_collision_terminates(rover):
    env = RobotEnv(rover, randomization="nominal")
    env.reset(seed=1)
    plant = env.many.rollout.plant
    plant.obstacle.send([0], plant.truth().position_m + 0.2, np.zeros((1, 2)))
    _, _, terminated, _, info = env.step(np.zeros(2))
    assert info["obstacle_gap_m"] < 0.0
    assert info["collided"]
    assert terminated


# Many at once: an episode that ended begins again at the next step


def fallen_vector(bot, n=2):
    """Robot 0 stands still by the baseline, robot 1 has just fallen."""
    env, baseline = RobotVectorEnv(bot, n, randomization="nominal", target_every_s=100.0), make_baseline(bot)
    obs, _ = env.reset(seed=4)
    for _ in range(200):
        actions = baseline.act(Observation(obs, 0, True))
        actions[1] = OVER
        obs, _, terminated, _, _ = env.step(actions)
        if terminated[1]:
            assert not terminated[0]
            return env, obs
    raise AssertionError("robot 1 did not fall")


def test_the_step_after_an_end_shows_the_new_robot_and_earns_nothing(bot):
    env, obs = fallen_vector(bot)
    see = env.rollout.observer.layout.newest["pitch_rad"].start
    assert abs(obs[1, see]) > 0.5  # the last observation of an episode is its own, not the next one's first
    obs, reward, terminated, truncated, _ = env.step(np.tile(OVER, (2, 1)))
    assert abs(obs[1, see]) < 0.15
    assert reward[1] == 0.0
    assert not terminated[1]
    assert not truncated[1]
    assert reward[0] != 0.0
    _, reward, *_ = env.step(np.zeros((2, 2)))
    assert reward[1] != 0.0


@pytest.mark.slow
def test_the_action_of_the_step_after_an_end_does_nothing_to_the_new_robot(bot):
    # It was chosen for the robot that fell.
    (wild, _), (calm, _) = fallen_vector(bot), fallen_vector(bot)
    ours = np.array([[0.1, 0.0], [1.0, 1.0]])
    seen_wild, *_ = wild.step(ours)
    seen_calm, *_ = calm.step(ours * [[1.0], [0.0]])
    assert np.array_equal(seen_wild, seen_calm)
    # Nor is the next action judged by it: the change counts from standing still.
    _, reward, *_ = wild.step(ours)
    _, reward_calm, *_ = calm.step(ours)
    assert np.array_equal(reward, reward_calm)


@pytest.mark.slow
def test_every_episode_of_a_vector_has_the_same_number_of_steps(bot):
    env = RobotVectorEnv(bot, 1, randomization="nominal", seconds=0.1)
    env.reset(seed=1)
    ends = [bool(env.step(np.zeros((1, 2)))[3][0]) for _ in range(10 + 1 + 10 + 1 + 10)]
    # Ten steps, one that only shows the new robot, ten steps, ...
    assert [i for i, end in enumerate(ends) if end] == [9, 20, 31]


@pytest.mark.slow
def test_a_robot_is_not_touched_by_its_neighbours_new_beginning(bot):
    # Every source of chance off, and a history longer than the shipped robots': what robot 0 sees depends on robot 0 alone.
    spec = dataclasses.replace(
        bot,
        observations=tuple(dataclasses.replace(entry, history=4 if entry.term == "applied_action" else 1) for entry in bot.observations),
    )
    runs = []
    for neighbour in (np.array([1.0, 0.0]), np.array([0.0, 0.0])):
        env = RobotVectorEnv(spec, 2, randomization="nominal", target_every_s=100.0)
        env.reset(seed=4)
        silence(env)
        seen, ended = [], 0
        for i in range(60):
            obs, _, terminated, *_ = env.step(np.array([[0.2 * np.sin(i), 0.1 * np.cos(i)], neighbour]))
            seen.append(obs[0])
            ended += int(terminated[1])
            if terminated[0]:
                break
        runs.append((np.array(seen), ended))
    assert runs[0][1] > runs[1][1]
    assert len(runs[0][0]) == len(runs[1][0])
    assert np.array_equal(runs[0][0], runs[1][0])


def silence(env):
    """No sensor noise: what one robot draws must not shift what the other one draws."""
    plant = env.rollout.plant
    plant.ranges = dataclasses.replace(load_ranges("nominal"), gyro_noise_rad_s=(0.0, 0.0), accel_noise_m_s2=(0.0, 0.0))
    for name in ("gyro_noise_rad_s", "accel_noise_m_s2"):
        plant.drawn.values[name][:] = 0.0


def test_the_reward_is_the_robots_own_of_what_was_seen_and_applied(bot):
    env, reward = RobotVectorEnv(bot, 3, randomization="nominal"), Reward(bot)
    env.reset(seed=3)
    # Wanted is a duty of 0.72; a slew of 50 a second allows 0.5 in the first tick, which is 0.5 / 0.8 of the action.
    applied = np.tile([[0.625, 0.0]], (3, 1))
    obs, earned, *_ = env.step(np.tile([[0.9, 0.0]], (3, 1)))
    assert earned == pytest.approx(reward(obs, applied, np.zeros((3, 2))))
    obs, earned, *_ = env.step(np.tile([[0.9, 0.0]], (3, 1)))
    assert earned == pytest.approx(reward(obs, np.tile([[0.9, 0.0]], (3, 1)), applied))


def test_targets_are_drawn_anew_in_their_range_and_some_are_calm(bot):
    env = RobotVectorEnv(bot, 20, randomization="nominal", target_speed_m_s=0.3, target_yaw_rate_rad_s=0.8)
    obs = np.concatenate([env.reset(seed=9)[0], *(env.reset()[0] for _ in range(11))])
    see = env.rollout.observer.layout.newest
    speed, yaw = obs[:, see["speed_target_m_s"].start], obs[:, see["yaw_rate_target_rad_s"].start]
    assert 0.25 < abs(speed).max() <= 0.3
    assert 0.7 < abs(yaw).max() <= 0.8
    calm = speed == 0.0
    assert 0.12 < calm.mean() < 0.38  # a quarter of 240
    assert (yaw[calm] == 0.0).all()


def test_targets_change_when_they_are_due(bot):
    env = RobotEnv(bot, randomization="nominal", target_every_s=0.05)
    obs, _ = env.reset(seed=2)
    see = env.many.rollout.observer.layout.newest["yaw_rate_target_rad_s"].start
    targets = [obs[see]] + [env.step(np.zeros(2))[0][see] for _ in range(12)]
    # Drawn after the fifth and the tenth tick, seen one tick later.
    assert [i for i in range(1, 13) if targets[i] != targets[i - 1]] == [6, 11]


# Worth learning


@pytest.mark.slow
def test_the_baseline_survives_five_seconds_on_the_nominal_robot_and_chance_does_not(bot, generator):
    survived = {}
    for name in ("baseline", "chance"):
        env, baseline = RobotVectorEnv(bot, 16, randomization="nominal"), make_baseline(bot)
        obs, _ = env.reset(seed=1)
        alive = np.ones(16, bool)
        truncated = np.zeros(16, bool)
        for _ in range(500):
            actions = baseline.act(Observation(obs, 0, True)) if name == "baseline" else generator.uniform(-1, 1, (16, 2))
            obs, _, terminated, truncated, _ = env.step(actions)
            alive &= ~terminated
        assert truncated[alive].all()
        survived[name] = int(alive.sum())
    assert survived == {"baseline": 16, "chance": 0}


@pytest.mark.slow
def test_the_baseline_earns_more_than_chance_on_every_robot():
    for name in NAMES:
        spec = load_robot(name)
        earned = []
        for policy in ("baseline", "chance"):
            env, baseline, draws = RobotVectorEnv(spec, 8), make_baseline(spec), np.random.default_rng(1)
            obs, _ = env.reset(seed=3)
            total = np.zeros(8)
            for _ in range(round(4.0 * spec.rates.control_hz)):
                actions = baseline.act(Observation(obs, 0, True)) if policy == "baseline" else draws.uniform(-1, 1, (8, 2))
                obs, reward, *_ = env.step(actions)
                total += reward
            earned.append(total.mean())
        assert earned[0] > earned[1] + 10.0, name


@pytest.mark.parametrize("name", NAMES)
def test_environments_that_nobody_seeds_are_not_alike(name):
    first, second = (RobotVectorEnv(name, 2, randomization="full").reset()[0] for _ in range(2))
    assert not np.array_equal(first, second)
