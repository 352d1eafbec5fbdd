"""`edge-dsac run` as a user runs it: on a pty, against the virtual board, stopped, killed, unplugged, refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge_dsac.bundle.actor import make_actor_file
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.steplog import open_log, summarise

pytestmark = [pytest.mark.slow, pytest.mark.realtime]
EDGE_DSAC = [sys.executable, "-m", "edge_dsac.cli.main"]


class Board:
    """A virtual board in a process of its own."""

    def __init__(self, folder, *options, robot="balance_bot"):
        self.path = folder / "board"
        command = [*EDGE_DSAC, "mcu", "--robot", str(robot), "--link", str(self.path), "--seed", "3", "--json", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        give_up = time.monotonic() + 120
        while not self.path.exists():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < give_up
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        out, _ = self.process.communicate(timeout=20)
        return json.loads(out)


@pytest.fixture
def board(tmp_path):
    running = []

    def start(*options, **more):
        running.append(Board(tmp_path, *options, **more))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def start_run(board, folder, *options, robot="balance_bot", rearm=True):
    """`rearm`: a machine that stands still for 50 ms damps a flight, rightly; a test of something else must not fail by it."""
    command = [
        *EDGE_DSAC,
        "run",
        "--robot",
        robot,
        "--port",
        str(board.path),
        "--log",
        str(folder),
        "--json",
        *options,
        *["--rearm"] * rearm,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=60):
    out, said = process.communicate(timeout=timeout)
    return process.returncode, json.loads(out) if out.strip() else None, said


def flown(process):
    """A flight that armed, ran and ended as asked, and whose exit code says how. Its last instant may be a damped one: a machine
    that stands still for 50 ms damps a flight at any time, and an end within the next 300 ms finds it so."""
    code, summary, said = finish(process)
    assert summary is not None, said
    assert summary["ended"] in ("TIME_UP", "ASKED"), (summary, said)
    assert summary["board_still"], (summary, said)
    assert "RUNNING" in modes_of(summary), (summary, said)
    assert code == (0 if summary["mode"] in ("RUNNING", "COASTING", "ARMED") else 1), (summary, said)
    assert code == 0 or summary["because"] in ("COAST_EXHAUSTED", "BOARD_STOPPED_OBEYING"), (summary, said)
    return summary


def modes_of(summary):
    return [stretch["mode"] for stretch in summary["flight"]["modes"]]


def wait_for_mode(folder, mode, ticks=0):
    """Until the ring says so, and shows so many ticks."""
    return wait_for_status(folder, lambda status: status["mode"] == mode and status["ticks"] >= ticks)


def wait_for_policy(folder, identity):
    wait_for_status(folder, lambda status: status["policy"] == f"{identity:016x}")


def wait_for_status(folder, wanted, seconds=30):
    from edge_dsac.watch.line import Watcher

    give_up, watcher = time.monotonic() + seconds, None
    while time.monotonic() < give_up:
        if watcher is None and (folder / "ring").exists():
            try:
                watcher = Watcher(folder / "ring")
            except ValueError:
                pass  # it is just being made
        status = watcher.look() if watcher else None
        if status and wanted(status):
            return status
        time.sleep(0.05)
    raise AssertionError(f"never so; in the end {status}")


def test_a_flight_balances_for_its_time_and_ends_with_the_motors_off(board, tmp_path):
    one = board()
    assert flown(start_run(one, tmp_path / "log", "--seconds", "5", "--speed", "0.2"))["ended"] == "TIME_UP"
    log = open_log(tmp_path / "log")
    assert summarise(log)["gaps"] == 0
    assert not (tmp_path / "log" / "ring").exists()  # drained and gone
    tilt = log.columns["obs"][:, ObservationLayout(log.spec).newest["pitch_rad"].start]
    assert np.abs(tilt[-200:]).max() < 0.2
    assert one.stop()["mode"] == "DISARMED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_flight_in_good_order(board, tmp_path, number):
    one = board()
    run = start_run(one, tmp_path / "log")
    wait_for_mode(tmp_path / "log", "RUNNING")
    run.send_signal(number)
    assert flown(run)["ended"] == "ASKED"
    assert open_log(tmp_path / "log").torn == 0
    assert one.stop()["mode"] == "DISARMED"


def test_a_board_that_dies_damps_and_is_reported(board, tmp_path):
    one = board()
    run = start_run(one, tmp_path / "log", "--seconds", "6")
    wait_for_mode(tmp_path / "log", "RUNNING")
    one.process.kill()
    code, summary, _ = finish(run)
    assert code == 1
    assert summary["mode"] == "DAMPED"
    assert summary["because"] in ("LINK_DOWN", "COAST_EXHAUSTED")
    assert not summary["board_still"]
    modes = modes_of(summary)
    assert modes.index("DAMPED") > modes.index("RUNNING")


def test_a_robot_that_a_person_topples_ends_the_flight_with_the_boards_reason(board, tmp_path):
    one, hands = board(), tmp_path / "hands"
    command = ["run", "--robot", "balance_bot", "--port", str(one.path), "--log", str(tmp_path / "log"), "--takeover", str(hands)]
    run = subprocess.Popen([*EDGE_DSAC, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_mode(tmp_path / "log", "RUNNING", 200)
    push = ["takeover", "--to", str(hands), "--robot", "balance_bot", "--action", "1", "1", "--seconds", "30"]
    pushed = subprocess.run([*EDGE_DSAC, *push], capture_output=True, text=True, timeout=60)
    said, _ = run.communicate(timeout=30)
    assert run.returncode == 1
    assert "a fault latched in FAULT (BOARD_FAULT, TILT); motors off, the board says so" in said
    assert pushed.returncode == 1
    assert "the loop has gone after" in pushed.stderr


def test_a_pulled_cable_is_survived_and_the_motors_are_taken_again_only_with_rearm(board, tmp_path):
    one = board("--fault", "disconnect@6+1")
    summary = flown(start_run(one, tmp_path / "log", "--seconds", "11"))
    assert summary["link"]["reconnects"] == 1
    modes = modes_of(summary)
    assert "RUNNING" in modes[modes.index("DAMPED") :]


def test_without_rearm_a_pulled_cable_leaves_the_robot_to_its_board(board, tmp_path):
    one = board("--fault", "disconnect@6+0.5")
    code, summary, _ = finish(start_run(one, tmp_path / "log", "--seconds", "10", rearm=False))
    modes = modes_of(summary)
    assert code == 1
    assert "RUNNING" in modes
    assert not set(modes[modes.index("DAMPED") :]) & {"ARMED", "RUNNING", "COASTING"}
    assert summary["mode"] in ("DAMPED", "FAULT")  # the latter if the robot fell in its board's hands: the board says so


def test_lossy_frames_are_coasted_over(board, tmp_path):
    """Two frames come in the time of a tick: at this share some 2 ticks a second have none. At .03 a whole flight may pass without."""
    one = board("--fault", "drop:board=0.15", "--fault", "bitflip=0.01", "--fault", "duplicate=0.02", "--fault", "reorder=0.01")
    assert "COASTING" in modes_of(flown(start_run(one, tmp_path / "log", "--seconds", "8")))
    assert one.stop()["frames_hurt"] > 50


def test_a_board_of_another_robot_is_refused_and_the_differences_are_named(board, tmp_path):
    one = board(robot="rover")
    run = start_run(one, tmp_path / "log", "--seconds", "4")
    code, summary, _ = finish(run)
    assert code == 3
    assert summary["mode"] == "FAULT"
    refusal = summary["link"]["refusal"]
    assert "the board was built for rover" in refusal
    assert 'safety.fallback: board "damp", host "balance_pd"' in refusal
    assert one.stop()["mode"] == "DISARMED"


def test_a_second_process_on_the_port_is_refused_by_name(board, tmp_path):
    one = board()
    first = start_run(one, tmp_path / "log", "--seconds", "8")
    wait_for_mode(tmp_path / "log", "RUNNING")
    code, summary, said = finish(start_run(one, tmp_path / "log2", "--seconds", "2"))
    assert code == 1
    assert summary is None
    assert "another process holds it" in said
    flown(first)


def test_a_port_that_does_not_exist_is_named(tmp_path):
    done = subprocess.run(
        [*EDGE_DSAC, "run", "--robot", "rover", "--port", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no such device" in done.stderr


def test_a_killed_loop_leaves_a_whole_log_and_a_board_that_balances_by_itself(board, tmp_path):
    one = board()
    run = start_run(one, tmp_path / "log")
    wait_for_mode(tmp_path / "log", "RUNNING", ticks=100)  # not for a time: a busy machine lets few ticks through
    run.kill()
    run.communicate()
    give_up = time.monotonic() + 15
    while (tmp_path / "log" / "ring").exists() and time.monotonic() < give_up:
        time.sleep(0.1)  # the recorder outlives the loop until everything is on disk
    log = open_log(tmp_path / "log")
    assert log.gaps == 0
    assert len(log.columns) > 80
    assert one.stop()["mode"] == "FALLBACK"


def test_a_new_policy_file_is_taken_up_in_flight_and_a_bad_one_is_not(board, tmp_path):
    from edge_dsac.spec.robot import load_robot

    spec = load_robot("balance_bot")
    one = board("--still")
    policy = tmp_path / "actor.npz"
    size = ObservationLayout(spec).size

    def write(scale):
        layers = [(np.full((4, size), scale), np.zeros(4)), (np.full((2, 4), scale), np.zeros(2))]
        fresh = tmp_path / "fresh.npz"
        fresh.write_bytes(make_actor_file(layers, "gelu", spec))
        os.replace(fresh, policy)

    write(0.01)
    run = start_run(one, tmp_path / "log", "--policy", str(policy))
    first = wait_for_mode(tmp_path / "log", "RUNNING")["policy"]
    write(0.02)
    wait_for_status(tmp_path / "log", lambda status: status["policy"] != first)
    policy.write_bytes(b"garbage")
    time.sleep(2.0)  # nothing to see on the ring
    run.send_signal(signal.SIGTERM)
    summary = flown(run)
    assert summary["swaps"] == 1
    assert len(summary["flight"]["bundles"]) == 2
    assert "not a weights file" in summary["refused_policies"][0]
    assert "BLEND" in summary["flight"]["rules"]


def scouts_of(policy):
    """Processes that look after this file."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"edge_dsac.cli.scouting" in words and str(policy).encode() in words:
            found.append(int(folder.name))
    return found


@pytest.fixture
def small_policy(tmp_path):
    from edge_dsac.spec.robot import load_robot

    spec, path = load_robot("balance_bot"), tmp_path / "small.npz"
    size = ObservationLayout(spec).size
    path.write_bytes(make_actor_file([(np.full((4, size), 0.01), np.zeros(4)), (np.full((2, 4), 0.01), np.zeros(2))], "gelu", spec))
    return path


def test_a_killed_scout_does_not_end_the_flight_and_is_told(board, tmp_path, small_policy):
    run = start_run(board("--still"), tmp_path / "log", "--policy", str(small_policy))
    wait_for_mode(tmp_path / "log", "RUNNING")
    (scout,) = scouts_of(small_policy)
    os.kill(scout, signal.SIGKILL)
    wait_for_mode(tmp_path / "log", "RUNNING", ticks=wait_for_mode(tmp_path / "log", "RUNNING")["ticks"] + 50)
    run.send_signal(signal.SIGTERM)
    assert flown(run)["refused_policies"] == ["the scout has gone: no policy was looked after from then on"]


def test_a_killed_loop_leaves_no_scout_behind(board, tmp_path, small_policy):
    run = start_run(board("--still"), tmp_path / "log", "--policy", str(small_policy))
    wait_for_mode(tmp_path / "log", "RUNNING")
    assert len(scouts_of(small_policy)) == 1
    run.kill()
    run.communicate()
    wait_until(lambda: not scouts_of(small_policy))


def test_a_dry_run_opens_nothing(tmp_path):
    command = [*EDGE_DSAC, "run", "--robot", "balance_bot", "--port", "/dev/null-such", "--log", str(tmp_path / "log"), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "nothing was opened" in done.stdout
    assert not (tmp_path / "log").exists()


def test_the_exported_flight_can_be_read_by_other_tools(board, tmp_path):
    one = board()
    ticks = flown(start_run(one, tmp_path / "log", "--seconds", "4"))["flight"]["ticks"]
    for kind in ("csv", "npz", "mcap"):
        done = subprocess.run(
            [*EDGE_DSAC, "log", "export", str(tmp_path / "log"), "--format", kind, "-o", str(tmp_path / f"out.{kind}")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert len(arrays["obs.pitch_rad"]) == ticks
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].startswith("index,")
    assert len(lines) == 1 + ticks
    from mcap.reader import make_reader

    with open(tmp_path / "out.mcap", "rb") as file:
        summary = make_reader(file).get_summary()
    assert summary.statistics.message_count == 5 * ticks
    assert {channel.topic for channel in summary.channels.values()} == {"/frame", "/observation", "/action", "/timing", "/mode"}
    picture = tmp_path / "run.png"
    assert subprocess.run([*EDGE_DSAC, "log", "plot", str(tmp_path / "log"), "-o", str(picture)], check=False).returncode == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"


def wait_until(condition, seconds=40):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_a_candidate_is_tried_in_flight_then_accepted_then_taken_back(board, tmp_path, monkeypatch):
    """On a stand, so that a machine that stands still for a while costs windows and not the flight."""
    import dataclasses

    from bundle_fixture import KEY
    from test_bundle_slots import CHILD, FIRST, SIZE, opened

    from edge_dsac.bundle.keyring import trust
    from edge_dsac.bundle.slot_folder import Stage
    from edge_dsac.bundle.slots import Slots
    from edge_dsac.bundle.trial_plan import TrialPlan

    monkeypatch.setenv("EDGE_DSAC_KEYS", str(tmp_path / "keys"))
    trust(tmp_path / "keys", dataclasses.replace(KEY.public, name="me"))
    (tmp_path / "first.policy").write_bytes(FIRST)
    made = subprocess.run([*EDGE_DSAC, "slots", "create", str(tmp_path / "slots"), str(tmp_path / "first.policy")], check=False)
    assert made.returncode == 0
    slots = Slots(tmp_path / "slots", [KEY.public])
    plan = TrialPlan(10, 2, (-1e3,) * SIZE, (1e3,) * SIZE, settle_ticks=2, max_voids=10_000)
    one = board("--still")
    run = start_run(one, tmp_path / "log", "--slots", str(slots.folder), "--exercise", "stand")
    try:
        wait_for_mode(tmp_path / "log", "RUNNING")
        slots.propose(CHILD, plan)  # no whole number of laps of 800 ticks
        wait_until(lambda: slots.candidate() is None)
        run.send_signal(signal.SIGTERM)
        summary = flown(run)
        assert "not a whole number of the exercise's laps of 800" in summary["refused_policies"][0]
        assert summary["exercise"] == {"lap": "stand", "lap_ticks": 800}

        run = start_run(one, tmp_path / "log2", "--slots", str(slots.folder))
        wait_for_mode(tmp_path / "log2", "RUNNING")
        slots.propose(CHILD, plan)
        wait_until(lambda: (outcome := slots.outcome()) is not None and outcome.stage is Stage.OVER)
        wait_for_policy(tmp_path / "log2", opened(FIRST).identity)  # the last window may have been the candidate's
        slots.accept()
        wait_for_policy(tmp_path / "log2", opened(CHILD).identity)
        slots.undo()
        wait_for_policy(tmp_path / "log2", opened(FIRST).identity)
        run.send_signal(signal.SIGTERM)
        summary = flown(run)
    finally:
        run.kill()
    assert summary["trials"][f"{opened(CHILD).identity:016x}"]["verdict"] == "over: all windows flown"
    assert summary["swaps"] == 2  # accepted, undone; a trial's windows are counted by the trial
    assert summary["refused_policies"] == []
    rows = open_log(tmp_path / "log2").columns
    for window in summary["trials"][f"{opened(CHILD).identity:016x}"]["windows"]:
        owner = opened(CHILD if window["new"] else FIRST).identity
        of_window = rows[(rows["index"] >= window["first"]) & (rows["index"] < window["first"] + 10)]
        assert set(of_window["bundle_id"].tolist()) == {owner}
        assert len(of_window) == 10
    assert int(rows["bundle_id"][-1]) == opened(FIRST).identity


def test_a_person_takes_over_in_flight_and_gives_back(board, tmp_path):
    hands = tmp_path / "hands"
    run = start_run(board("--still"), tmp_path / "log", "--takeover", str(hands), "--explore", "0.02")
    wait_for_mode(tmp_path / "log", "RUNNING")
    words = ["takeover", "--to", str(hands), "--robot", "balance_bot", "--action", "0.125", "-0.25", "--seconds", "1"]
    assert subprocess.run([*EDGE_DSAC, *words], check=False, stdout=subprocess.DEVNULL).returncode == 0
    time.sleep(1.0)
    run.send_signal(signal.SIGTERM)
    summary = flown(run)
    assert summary["takeover"]["taken"] >= 1
    assert summary["takeover"]["malformed"] == 0
    assert summary["explore"] == {"deviation": 0.02, "seed": 0}
    rows = open_log(tmp_path / "log").columns
    human = (rows["rules"] & 128) != 0
    assert 30 < human.sum() < 200
    assert (rows["action"][human] == [0.125, -0.25]).all()
    assert not human[-1]
    assert not hands.exists()
