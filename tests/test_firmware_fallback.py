"""The C fallback on the simulated robot: commands stop, and it must stay up by itself."""

import numpy as np
import pytest

from edge_dsac.records import BoardMode
from edge_dsac.spec.robot import load_robot
from firmware_bridge.link import SerialLink
from firmware_bridge.virtual_mcu import LockstepBoard, VirtualBoard

pytestmark = pytest.mark.slow


def in_fallback(spec, seed):
    from sim.plant import SinglePlant

    board = VirtualBoard(spec, SinglePlant(spec, seed), seed)
    link = SerialLink(spec, lambda: LockstepBoard(board), clock=lambda: int(board.now_s * 1e9))
    while not link.is_up() or link.receive() is None:
        link.receive()
    link.request_arm()
    for _ in range(200):
        link.receive()
        if board.board_mode == BoardMode.FALLBACK:
            return board
    raise AssertionError(f"never in the fallback: {board.board_mode}")


def pitch_of(quaternion):
    w, x, y, z = quaternion
    return np.arcsin(np.clip(2.0 * (w * y - z * x), -1.0, 1.0))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_balancing_robot_stands_for_ten_seconds_on_its_board_alone(seed):
    board = in_fallback(load_robot("balance_bot"), seed)
    start_m = board.plant.qpos()[:2]
    pitches_rad = []
    for _ in range(10_000):
        board.tick()
        pitches_rad.append(pitch_of(board.plant.qpos()[3:7]))
    assert board.board_mode == BoardMode.FALLBACK
    assert 1e-4 < np.abs(pitches_rad).max() < 0.3
    assert np.linalg.norm(board.plant.qpos()[:2] - start_m) < 1.5  # it may creep, it must not run away


def test_without_the_board_s_fallback_the_same_robot_falls():
    """Or the test above would say nothing about the firmware."""
    board = in_fallback(load_robot("balance_bot"), 1)
    for _ in range(2000):
        board.plant.drive(None, 1)
    assert abs(pitch_of(board.plant.qpos()[3:7])) > 0.8
