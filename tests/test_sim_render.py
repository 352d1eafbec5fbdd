"""Pictures without a screen: the robot is in them, they have the size they should, and a run moves."""

import os

import numpy as np
import pytest
from PIL import Image

import sim  # noqa: F401  chooses MUJOCO_GL before MuJoCo is imported
from sim.plant import Plant, SinglePlant
from sim.render import HEIGHT, WIDTH, Camera, render_gif, render_png

pytestmark = pytest.mark.slow


@pytest.fixture(params=["balance_bot", "rover"])
def robot(request, bot, rover):
    return {"balance_bot": bot, "rover": rover}[request.param]


def pose_of(spec, lean_rad=0.0, wheel_rad=0.0):
    pose = SinglePlant(spec).qpos()
    pose[3], pose[5] = np.cos(lean_rad / 2), np.sin(lean_rad / 2)
    pose[7:9] = wheel_rad
    return pose


def changed_share(one, other):
    return float((np.abs(one.astype(int) - other.astype(int)).max(axis=-1) > 20).mean())


def test_a_way_to_draw_without_a_screen_is_chosen():
    assert os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY")


def test_a_picture_is_not_blank_and_as_large_as_asked(robot):
    camera = Camera(robot, 160, 120)
    picture = camera.see(pose_of(robot))
    camera.close()
    assert picture.shape == (120, 160, 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 10.0
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_a_leaning_robot_looks_different_and_the_same_pose_the_same(robot):
    camera = Camera(robot)
    upright, leaning, again = (camera.see(pose_of(robot, lean)).copy() for lean in (0.0, 0.5, 0.0))
    camera.close()
    assert changed_share(upright, leaning) > 0.005
    assert np.array_equal(upright, again)


def test_the_robot_stands_in_the_middle_of_the_picture(robot):
    camera = Camera(robot)
    pose = pose_of(robot)
    pose[:2] = (1.5, -0.7)  # the camera follows
    picture = camera.see(pose).astype(int)
    camera.close()
    # The hull has a strong colour of its own, blue or orange; floor and sky are nearly grey.
    blue_over_red = picture[..., 2] - picture[..., 0]
    rows, columns = np.nonzero((blue_over_red if robot.model == "balance_bot" else -blue_over_red) > 60)
    assert len(rows) > 0.003 * WIDTH * HEIGHT
    assert abs(np.median(columns) / WIDTH - 0.5) < 0.25
    assert abs(np.median(rows) / HEIGHT - 0.5) < 0.3


def test_turning_wheels_are_seen_to_turn(robot):
    camera = Camera(robot)
    still, turned = (camera.see(pose_of(robot, wheel_rad=angle)).copy() for angle in (0.0, 0.8))
    camera.close()
    assert 0.0 < changed_share(still, turned) < 0.2


def test_the_rovers_obstacle_is_drawn_where_it_is(rover):
    camera = Camera(rover)
    pose = pose_of(rover)
    away = camera.see(pose).copy()
    pose[-2:] = (0.8, 0.3)
    near = camera.see(pose).copy()
    camera.close()
    assert changed_share(away, near) > 0.003


def test_a_png_has_the_size_and_the_robot(robot, tmp_path):
    render_png(robot, pose_of(robot), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (WIDTH, HEIGHT)
        assert np.asarray(picture.convert("RGB")).std() > 10.0


def test_a_gif_has_a_frame_for_every_pose_and_they_differ(rover, tmp_path):
    plant, poses = Plant(rover), []
    for _ in range(5):
        plant.drive(np.array([[0.5, 0.2]]), 150)
        poses.append(np.concatenate([plant.qpos(), plant.obstacle.position_m[0]]))
    render_gif(rover, poses, tmp_path / "a.gif", fps=10)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.size == (WIDTH, HEIGHT)
        assert film.n_frames == 5
        assert film.info["duration"] == 100
        frames = []
        for i in range(5):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB")))
    assert all(changed_share(frames[i], frames[i + 1]) > 0.001 for i in range(4))


def test_a_film_of_nothing_is_refused_with_its_name(rover, tmp_path):
    with pytest.raises(ValueError, match=r"a\.gif: no poses"):
        render_gif(rover, [], tmp_path / "a.gif")


def test_an_environment_draws_only_if_it_was_asked_to(rover):
    from sim.env import RobotEnv

    for mode in (None, "rgb_array"):
        env = RobotEnv(rover, render_mode=mode)
        env.reset(seed=1)
        picture = env.render()
        env.close()
        if mode is None:
            assert picture is None
        else:
            assert picture.shape == (HEIGHT, WIDTH, 3)
            assert picture.std() > 10.0
