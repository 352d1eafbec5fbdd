"""Recordings: SI, in order, the same again; falls left out; and two policies in the very same episodes."""

import numpy as np
import pytest
from made_up_actor import balancing_actor

from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot
from sim.env import EpisodeOptions
from sim.recording import LOST_S, fly, record_observations

BOT = load_robot("balance_bot")
LAYOUT = ObservationLayout(BOT)
ACTOR = balancing_actor(BOT)


def full_ahead(obs):
    return np.tile([1.0, 0.0], (len(obs), 1))


@pytest.mark.slow
def test_a_recording_is_in_si_within_the_clip_robot_after_robot():
    obs = record_observations(BOT, ACTOR.act, 0.5, 3, seed=4)
    assert obs.shape == (150, LAYOUT.size)
    assert obs.dtype == np.float32
    assert (np.abs(obs) <= LAYOUT.clip).all()
    target = obs[:, LAYOUT.newest["speed_target_m_s"].start].reshape(3, 50)
    assert (np.ptp(target, axis=1) < 1e-6).all()  # one robot's rows lie together: its target does not change within half a second
    assert len(np.unique(target[:, 0].round(4))) == 3
    assert np.abs(target).max() <= 0.5 + 1e-6  # m/s as drawn, not scaled by 1.5


@pytest.mark.slow
def test_a_recording_is_its_seeds():
    first = record_observations(BOT, ACTOR.act, 0.2, 2, seed=4)
    assert np.array_equal(record_observations(BOT, ACTOR.act, 0.2, 2, seed=4), first)
    assert not np.array_equal(record_observations(BOT, ACTOR.act, 0.2, 2, seed=5), first)


@pytest.mark.slow
def test_what_leads_to_a_fall_is_not_recorded():
    whole, seconds = 4 * 200, 2.0
    fallen = record_observations(BOT, full_ahead, seconds, 4, seed=4)
    assert len(fallen) <= whole - 4 * round(LOST_S * 100)
    assert np.abs(fallen[:, LAYOUT.newest["pitch_rad"].start]).max() < 0.7 * BOT.safety.tilt_limit_rad
    assert len(record_observations(BOT, ACTOR.act, seconds, 4, seed=4)) == whole


@pytest.mark.slow
def test_a_fall_of_one_robot_changes_nothing_for_the_others():
    def first_gives_up(obs):
        action = ACTOR.act(obs)
        action[0] = [1.0, 0.0]
        return action

    options = EpisodeOptions(randomization="full", seconds=3.0)
    both, one = fly(BOT, ACTOR.act, 3, 6, options), fly(BOT, first_gives_up, 3, 6, options)
    assert one.failed.tolist() == [True, False, False]
    assert not both.failed.any()
    assert np.array_equal(one.obs[:, 1:], both.obs[:, 1:])
    assert np.array_equal(one.returns[1:], both.returns[1:])
    assert one.returns[0] < both.returns[0]
    lived = int(one.alive[:, 0].sum())
    assert 10 < lived < 250
    assert not one.alive[lived:, 0].any()  # and nobody begins anew
    assert both.alive.all()


@pytest.mark.slow
def test_a_policy_that_answers_nan_is_flown_as_if_it_did_nothing():
    flown = fly(BOT, lambda obs: np.full((len(obs), 2), np.nan), 2, 6, EpisodeOptions(seconds=0.2))
    assert np.isnan(flown.actions).all()
    assert np.isfinite(flown.returns).all()


@pytest.mark.slow
def test_what_leads_to_a_fall_is_kept_for_whoever_learns_from_it_and_threads_change_nothing():
    whole = record_observations(BOT, full_ahead, 1.0, 4, seed=4, lost_s=0.0)
    assert len(whole) == 4 * 100
    assert len(record_observations(BOT, full_ahead, 1.0, 4, seed=4)) < 400
    assert np.array_equal(record_observations(BOT, full_ahead, 1.0, 4, seed=4, lost_s=0.0, threads=2), whole)
