"""What turns counts into SI has an id: rows carry it, and those of another one are kept apart."""

import numpy as np
import pytest
from made_up_flight import flight_folder
from tuning_fixture import flown

from edge_dsac.cli.tuning_place import comparable, rows_folder
from edge_dsac.learn.gatekeeper import transitions_of
from edge_dsac.spec.robot import robot_from_text
from edge_dsac.steplog.follow import Follower

SETTINGS = {"gamma": 0.9, "n_step": 1, "reward_scale": 1.0}
CHANGES = [
    ("sign = -1 ", "sign = 1 "),
    ("counts_per_rad = 2607.594   #", "counts_per_rad = 2600.0   #"),
    ('axes = ["+x", "+y", "+z"]', 'axes = ["+y", "-x", "+z"]'),
    ("gyro_lsb_per_rad_s = 3754.94", "gyro_lsb_per_rad_s = 3750.0"),
    ("lsb_per_v = 1000.0", "lsb_per_v = 990.0"),
]


def changed(bot, old, new):
    assert old in bot.text
    return robot_from_text(bot.text.replace(old, new, 1))


@pytest.mark.parametrize(("old", "new"), CHANGES, ids=[old[:8] for old, _ in CHANGES])
def test_another_sign_scale_or_mounting_is_another_calibration_of_the_same_policy(bot, tmp_path, old, new):
    other = changed(bot, old, new)
    assert other.policy_fingerprint == bot.policy_fingerprint  # which is why the fingerprint alone would mix them
    assert other.calibration_id != bot.calibration_id
    assert rows_folder(tmp_path, other) != rows_folder(tmp_path, bot)
    assert comparable(other, SETTINGS) != comparable(bot, SETTINGS)


def test_what_converts_nothing_is_no_calibration(bot):
    assert changed(bot, "tilt_limit_rad = 0.80", "tilt_limit_rad = 0.70").calibration_id == bot.calibration_id


def test_every_row_carries_it(bot):
    rows = transitions_of(bot, SETTINGS, 7).feed(flown(bot, 10))
    assert set(rows.calibration_id.tolist()) == {bot.calibration_id}
    assert rows.calibration_id.dtype == np.uint64


def test_a_flight_of_another_calibration_is_left_out_and_said(bot, tmp_path):
    other = changed(bot, *CHANGES[0])
    folder = flight_folder(tmp_path, other, 20)
    follower = Follower(folder, bot)
    assert [len(chunk.columns) for chunk in follower.look()] == []
    assert "another calibration" in follower.complaints[0]
    assert sum(len(chunk.columns) for chunk in Follower(folder, other).look()) > 0
