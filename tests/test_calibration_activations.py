"""Calibration observations: extremes kept, neighbours kept apart, unexercised terms named, files that are what they say."""

import dataclasses
import io

import numpy as np
import pytest

from calibration.activations import (
    BLOCK,
    CalibrationError,
    Provenance,
    choose,
    coverage,
    load_set,
    make_set,
    make_set_file,
    split,
    warnings,
    widened,
)
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot

BOT, ROVER = load_robot("balance_bot"), load_robot("rover")
LAYOUT = ObservationLayout(BOT)
CAME_FROM = Provenance("balance_bot", BOT.policy_fingerprint, "12" * 8, "simulation", (7, 8), "full", 10.0, 4)


def numbered(rows):
    """Row k holds k in its first entry, and moves in all others."""
    obs = np.random.default_rng(5).uniform(-0.5, 0.5, (rows, LAYOUT.size)).astype(np.float32)
    obs[:, 0] = np.arange(rows)
    return obs


def test_a_split_keeps_every_row_once_and_neighbours_together():
    obs = numbered(10 * BLOCK)
    calibration, held_out = split(obs, 1)
    assert len(calibration) == 6 * BLOCK
    assert len(held_out) == 4 * BLOCK
    assert sorted([*calibration[:, 0], *held_out[:, 0]]) == list(range(10 * BLOCK))
    assert {int(k) // BLOCK for k in calibration[:, 0]}.isdisjoint(int(k) // BLOCK for k in held_out[:, 0])


def test_a_split_is_its_seeds():
    obs = numbered(20 * BLOCK)
    assert np.array_equal(split(obs, 1)[1], split(obs, 1)[1])
    assert not np.array_equal(split(obs, 1)[1], split(obs, 2)[1])


def test_too_little_to_split_says_how_much_is_needed():
    with pytest.raises(CalibrationError, match="400 observations are 4 blocks of 100; at least 5 are needed"):
        split(numbered(400), 1)


def test_the_choice_holds_every_terms_extremes_however_few_are_asked_for():
    obs = np.random.default_rng(5).uniform(-0.5, 0.5, (5000, LAYOUT.size)).astype(np.float32)
    obs[4321, 3], obs[17, 8] = 9.5, -0.99
    for most in (30, 500):
        chosen = choose(obs, LAYOUT.clip, 1, most)
        assert len(chosen) == most
        assert np.array_equal(chosen.max(axis=0), obs.max(axis=0))
        assert np.array_equal(chosen.min(axis=0), obs.min(axis=0))


def test_a_robot_that_stands_still_is_one_observation():
    still = np.tile(np.float32(0.1) * LAYOUT.clip, (3000, 1)) + np.random.default_rng(2).normal(0, 1e-5, (3000, LAYOUT.size))
    moving = np.random.default_rng(3).uniform(-0.5, 0.5, (100, LAYOUT.size)) * LAYOUT.clip
    chosen = choose(np.concatenate([still, moving]), LAYOUT.clip, 1)
    assert 100 <= len(chosen) <= 101 + 2 * LAYOUT.size


def test_coverage_is_the_share_of_the_clip_range_and_what_never_moved_is_named():
    obs = numbered(500) * 0.0
    obs[:, 0] = np.linspace(-0.5, 0.25, 500)  # pitch, clip 1: 0.75 of 2
    obs[:, 1] = 1.25  # pitch rate: stuck
    obs[:, 2] = np.linspace(0.0, 0.03, 500)  # speed, clip 3: 0.5 %
    obs[:, 3] = np.where(np.arange(500) < 50, 10.0, 0.0)  # a tenth at the clip
    found = {term.label: term for term in coverage(obs, BOT)}
    assert found["pitch_rad"].share == pytest.approx(0.375)
    assert (found["pitch_rad"].low, found["pitch_rad"].high) == (-0.5, 0.25)
    said = warnings(obs, BOT)
    assert said[0] == "pitch_rate_rad_s never moved: it was 1.25 in every row; its range in int8 is a guess"
    assert said[1] == "speed_m_s moved over 0.5% of its range only"
    assert said[2].startswith("yaw_rate_rad_s lies at its clip in 10% of the rows")
    assert not any(text.startswith("pitch_rad ") for text in said)


def made(tmp_path):
    chosen = make_set(np.clip(numbered(1000), -LAYOUT.clip, LAYOUT.clip), BOT, CAME_FROM, seed=3)
    path = tmp_path / "calibration.npz"
    path.write_bytes(make_set_file(chosen))
    return chosen, path


def test_a_set_comes_back_as_it_was_with_where_it_came_from(tmp_path):
    chosen, path = made(tmp_path)
    again = load_set(path, BOT)
    assert np.array_equal(again.calibration, chosen.calibration)
    assert np.array_equal(again.held_out, chosen.held_out)
    assert again.provenance == CAME_FROM
    assert make_set_file(again) == path.read_bytes()


def test_a_set_of_another_robot_is_refused(tmp_path):
    _, path = made(tmp_path)
    with pytest.raises(CalibrationError, match=f"recorded for policy {BOT.policy_fingerprint}, rover has"):
        load_set(path, ROVER)


def test_files_that_are_none_are_refused(tmp_path):
    chosen, path = made(tmp_path)
    whole, evil = path.read_bytes(), io.BytesIO()
    np.savez(evil, calibration=np.array([{}], dtype=object), held_out=np.zeros(1), provenance=np.array("{}"))
    for data in (b"", b"garbage", whole[: len(whole) // 2], evil.getvalue()):
        path.write_bytes(data)
        with pytest.raises(CalibrationError, match="not a set of calibration observations"):
            load_set(path, BOT)
    path.write_bytes(make_set_file(dataclasses.replace(chosen, held_out=chosen.held_out[:, :-1])))
    with pytest.raises(CalibrationError, match=r"expected observations \[rows, 11\]"):
        load_set(path, BOT)
    with pytest.raises(CalibrationError, match="cannot be read"):
        load_set(tmp_path / "absent.npz", BOT)


def test_nan_is_refused_with_how_many():
    obs = numbered(1000)
    obs[[3, 500], 4] = np.nan
    with pytest.raises(CalibrationError, match="2 of 1000 observations hold NaN"):
        make_set(obs, BOT, CAME_FROM, 1)


def test_widened_rows_are_the_rows_and_the_same_half_as_far_again_within_the_clip():
    rows = np.stack([0.2 * LAYOUT.clip, -0.9 * LAYOUT.clip])
    wide = widened(rows, LAYOUT.clip)
    assert np.array_equal(wide[:2], rows)
    assert wide[2] == pytest.approx(0.3 * LAYOUT.clip)
    assert np.array_equal(wide[3], -LAYOUT.clip)
