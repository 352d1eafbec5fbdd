"""The live line and the picture: what they say for steps that are made up by hand."""

import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from made_up_flight import FIRST_NS, TICK_NS, filled_ring, flight_folder, in_a_child, made_up_step

from edge_dsac.cli.main import main
from edge_dsac.records import BoardMode, Event, Fault, Mode
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog import Ring, RingReader, open_log
from edge_dsac.steplog.ring import RecorderState
from edge_dsac.watch.line import Watcher, follow, line_of


def observation(spec, **terms):
    vector = np.zeros(ObservationLayout(spec).size)
    for name, value in terms.items():
        vector[ObservationLayout(spec).newest[name]] = value
    return vector


@pytest.fixture
def running(bot):
    """Late by 1 to 100 us, leaning forward by 0.1 rad = 5.7 deg, backing at 0.25 m/s."""
    obs = observation(bot, pitch_rad=0.1, speed_m_s=-0.25)
    return {"obs": [obs] * 100, "late_ns": [1000 * (index + 1) for index in range(100)], "faults": Fault.NONE}


def test_the_line_of_a_running_robot_by_hand(bot, tmp_path, running):
    filled_ring(tmp_path / "ring", bot, 100, capacity=128, **running)
    line = line_of(Watcher(tmp_path / "ring").look())
    assert line == "RUNNING     100.0 Hz (avg 100.0)  late 50/99/100 us  tilt  +5.7 deg  speed -0.25 m/s"


def test_the_line_of_a_robot_that_does_not_move_says_why(bot, tmp_path, running):
    changes = {
        **running,
        "mode": Mode.DAMPED,
        "because": Event.LINK_DOWN,
        "board": BoardMode.FALLBACK,
        "faults": Fault.TIMEOUT | Fault.TILT | Fault.SLEWED,
    }
    filled_ring(tmp_path / "ring", bot, 100, capacity=128, **changes)
    line = line_of(Watcher(tmp_path / "ring").look())
    assert line.startswith("DAMPED  ")
    assert line.endswith("because LINK_DOWN, board FALLBACK  fault TIMEOUT+TILT")  # SLEWED only describes a command


def test_the_line_of_the_rover_says_how_far_off_its_path_it_is(rover, tmp_path):
    filled_ring(tmp_path / "ring", rover, 20, obs=[observation(rover, cross_track_m=-0.5, speed_m_s=0.6)] * 20, faults=0)
    line = line_of(Watcher(tmp_path / "ring").look())
    assert line.endswith("speed +0.60 m/s  off path -0.50 m")
    assert "tilt" not in line


def test_a_full_disk_stands_on_the_line(bot, tmp_path, running):
    filled_ring(tmp_path / "ring", bot, 100, capacity=128, **running)
    RingReader(tmp_path / "ring", writable=True).set_recorder(None, RecorderState.DISK_FULL)
    assert line_of(Watcher(tmp_path / "ring").look()).endswith("DISK FULL")


def test_rates_by_hand_when_ticks_are_slow_at_the_end(bot, tmp_path):
    """200 ticks of 10 ms, then 101 of 20 ms: the last second's worth of rows runs at 50 Hz, the whole at 300 / 4.01 s."""
    times = [FIRST_NS + index * TICK_NS for index in range(200)]
    times += [times[-1] + (index + 1) * 2 * TICK_NS for index in range(101)]
    filled_ring(tmp_path / "ring", bot, 301, capacity=512, t_host_ns=times)
    status = Watcher(tmp_path / "ring").look()
    assert (status["hz"], status["hz_wanted"], status["ticks"]) == (50.0, 100, 301)
    assert status["hz_average"] == 74.8  # 300 / 4.01


def test_the_average_is_right_for_one_who_came_late(bot, tmp_path):
    """The ring holds the last 8 of 100: the average is over what was seen, not 99 ticks in 70 ms."""
    filled_ring(tmp_path / "ring", bot, 100, capacity=8)
    assert Watcher(tmp_path / "ring").look()["hz_average"] == 100.0


def test_ticks_without_a_fresh_frame_count_only_while_moving(bot, tmp_path):
    modes = [Mode.IDLE] * 10 + [Mode.RUNNING] * 5 + [Mode.COASTING] * 5
    filled_ring(tmp_path / "ring", bot, 20, mode=modes, flags=[0] * 12 + [3] * 4 + [0] * 4)
    assert Watcher(tmp_path / "ring").look()["not_fresh"] == 2 + 4


def test_the_watcher_follows_and_forgets_what_is_older_than_a_second(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 50, capacity=512, late_ns=9_000_000)
    watcher = Watcher(tmp_path / "ring")
    assert watcher.look()["late_us"]["max"] == 9000.0
    for index in range(50, 151):
        ring.append(made_up_step(ring.layout, index, late_ns=1000, mode=Mode.COASTING))
    status = watcher.look()
    assert (status["mode"], status["late_us"]["max"], status["ticks"]) == ("COASTING", 1.0, 151)
    assert watcher.look() == status  # nothing new: the same again


def test_before_the_first_steps_there_is_no_line(bot, tmp_path):
    ring = Ring(tmp_path / "ring", bot, 8)
    watcher = Watcher(tmp_path / "ring")
    assert watcher.look() is None
    ring.append(made_up_step(ring.layout, 0))
    assert watcher.look() is None  # one step has no rate
    ring.append(made_up_step(ring.layout, 1))
    assert watcher.look()["hz"] == 100.0


def test_watching_is_over_when_the_ring_is_closed_or_its_writer_dead(bot, tmp_path):
    ring = filled_ring(tmp_path / "ring", bot, 2)
    watcher = Watcher(tmp_path / "ring")
    assert not watcher.over()
    ring.close()
    assert watcher.over()
    os.waitpid(in_a_child(lambda: filled_ring(tmp_path / "orphan", bot, 2)), 0)
    assert Watcher(tmp_path / "orphan").over()
    out = io.StringIO()
    follow(tmp_path / "orphan", out)
    assert out.getvalue() == ""


def test_watch_once_json_is_one_object(bot, tmp_path, capsys, running):
    filled_ring(tmp_path / "ring", bot, 100, capacity=128, **running)
    assert main(["watch", str(tmp_path / "ring"), "--once", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["mode"], status["tilt_rad"], status["speed_m_s"], status["recorder"]) == ("RUNNING", 0.1, -0.25, "ABSENT")
    assert main(["watch", str(tmp_path / "ring"), "--once"]) == 0
    assert capsys.readouterr().out.startswith("RUNNING ")


def test_watch_once_before_the_first_step_is_exit_1(bot, tmp_path, capsys):
    Ring(tmp_path / "ring", bot, 8)
    assert main(["watch", str(tmp_path / "ring"), "--once"]) == 1
    assert capsys.readouterr().out == "no step yet\n"


def test_watching_what_is_no_ring_is_a_named_error(tmp_path, capsys):
    assert main(["watch", str(tmp_path / "nothing"), "--once"]) == 1
    assert "nothing: cannot be read" in capsys.readouterr().err


def test_what_is_not_measured_yet_is_left_out(bot, tmp_path, capsys):
    filled_ring(tmp_path / "ring", bot, 3, mode=Mode.BOOT, because=Event.LINK_DOWN, obs=[np.full(11, np.nan)] * 3, faults=0)
    assert line_of(Watcher(tmp_path / "ring").look()).endswith("us  because LINK_DOWN, board ARMED")
    assert main(["watch", str(tmp_path / "ring"), "--once", "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["tilt_rad"] is None


@pytest.mark.slow
def test_piped_the_line_is_a_line_and_the_process_ends_with_the_loop(bot, tmp_path, running):
    ring = filled_ring(tmp_path / "ring", bot, 100, capacity=128, **running)
    process = subprocess.Popen([sys.executable, "-m", "edge_dsac.watch.line", str(tmp_path / "ring")], stdout=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)  # a Ctrl-C on the terminal is for the loop
    ring.close()
    rest, _ = process.communicate(timeout=20)
    assert first == "RUNNING     100.0 Hz (avg 100.0)  late 50/99/100 us  tilt  +5.7 deg  speed -0.25 m/s\n"
    assert rest == ""
    assert process.returncode == 0


# ---- the picture ----


def flight_of(spec, folder, count=100):
    """Stands, moves in waves, is damped at the end with a fault of the board."""
    layout = ObservationLayout(spec)
    rows = []
    for index in range(count):
        vector = np.zeros(layout.size)
        for i, term in enumerate(layout.newest):
            vector[layout.newest[term]] = 0.3 * np.sin(index / 10 + i)
        rows.append(vector)
    a, b = count // 10, count - count // 5
    return flight_folder(
        folder, spec, count, obs=rows, applied=[0.5 * np.cos(index / 10) for index in range(count)],
        mode=[Mode.ARMED] * a + [Mode.RUNNING] * (b - a) + [Mode.DAMPED] * (count - b),
        because=[Event.BOARD_ARMED] * a + [Event.FRAME_FRESH] * (b - a) + [Event.LINK_DOWN] * (count - b),
        faults=[Fault.NONE] * b + [Fault.TIMEOUT] * (count - b), flags=[3] * b + [2] * (count - b),
    )  # fmt: skip


def pixels(path):
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed").open(path)
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("robot", ["bot", "rover"])
def test_the_picture_shows_curves_and_modes(request, tmp_path, robot, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    spec = request.getfixturevalue(robot)
    folder = flight_of(spec, tmp_path / "flight")
    assert main(["log", "plot", str(folder), "-o", str(tmp_path / "run.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/run.png\n"
    picture = pixels(tmp_path / "run.png")
    height, width, _ = picture.shape
    assert 800 < width < 2000
    assert 500 < height < 3000

    def share(colour):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        return (np.abs(picture - wanted).max(axis=2) <= 12).mean()

    assert share("#1f5fa8") > 0.001  # the curves
    running, damped = share("#eff8ef"), share("#f8dabe")  # seven tenths of the mode's colour on white
    assert 3 < running / damped < 5  # 70 ticks to 19; less what is drawn over them


@pytest.mark.slow
def test_the_picture_shows_a_fault_of_the_board(bot, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from edge_dsac.watch.picture import draw

    def red_pixels(name, **changes):
        draw(open_log(flight_folder(tmp_path / name, bot, 100, **changes)), tmp_path / f"{name}.png")
        red, green, blue = np.moveaxis(pixels(tmp_path / f"{name}.png"), 2, 0)
        return int(((red - green > 70) & (abs(green - blue) < 40)).sum())

    healthy = red_pixels("healthy", faults=0)
    assert red_pixels("faulty", faults=[Fault.NONE] * 50 + [Fault.TIMEOUT] * 50) > healthy + 200  # a dashed line through every panel


@pytest.mark.slow
def test_a_picture_of_one_step_is_a_picture(bot, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from edge_dsac.watch.picture import draw

    draw(open_log(flight_folder(tmp_path / "flight", bot, 1)), tmp_path / "run.png")
    assert pixels(tmp_path / "run.png").std() > 1


@pytest.mark.slow
def test_a_picture_of_no_step_is_a_named_error(bot, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    Ring(tmp_path / "ring", bot, 8)
    assert main(["log", "plot", str(tmp_path / "ring"), "-o", str(tmp_path / "run.png")]) == 1
    assert "ring: holds no steps; there is nothing to draw" in capsys.readouterr().err
    assert not (tmp_path / "run.png").exists()
