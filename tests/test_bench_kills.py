"""The kill bench: five kills of a real tuner, and that it sees what it is there to see: the audit is shown broken tuners and finds them."""

import os
import subprocess
import sys

import bench_kills
import numpy as np
import pytest
from bench_kills import Bench
from played_flight import CALM, ROUGH, USUAL, make_recordings

from edge_dsac.learn.buffer import Buffer
from edge_dsac.learn.learner import Learner
from edge_dsac.learn.transitions import Transitions

ALONE = "EDGE_DSAC_TEST_ALONE"


@pytest.fixture
def alone(request):
    """The bench forks tuners, and the fork of a process in which torch has had several threads hangs. So a new process runs the test;
    False here, where that has gone well."""
    if os.environ.get(ALONE):
        return True
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", request.node.nodeid]
    env = {**os.environ, ALONE: "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=request.config.rootpath, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "1 passed" in done.stdout
    return False


@pytest.fixture
def bench(bot, tmp_path, monkeypatch):
    """A tuner that is quick to have something to lose: rounds of ten updates from the second second on."""
    monkeypatch.setitem(bench_kills.COURSE, "first_s", 2.0)
    made = []

    def make():
        made.append(Bench(tmp_path, bot, "off", 20.0))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def lives(bench, seconds):
    for life_s in seconds:
        pid = bench.begin()
        bench_kills.work(pid, life_s)
        bench.end(pid, bench_kills.signal.SIGKILL)


@pytest.mark.slow
def test_five_kills_leave_nothing_wrong(alone, bench, generator):
    if not alone:
        return
    ready = bench()
    lives(ready, [0.5, *generator.uniform(0.02, 0.4, 4)])
    ready.finish()
    found = ready.found()
    assert found["kills"] == 5, found
    assert found["resumed"] >= 2
    assert found["rounds"] > 0
    assert ready.good(), found
    assert ready.rows.count > 100
    assert not list(ready.folder.glob("robot/flight-*/ring"))


def lose_the_critics(self, saved, plain=Learner.restore):
    fresh = self.state.critics
    plain(self, saved)
    self.state = self.state._replace(critics=fresh)


def store_the_wish(self, rows, plain=Buffer.extend):
    return plain(self, rows._replace(act=np.asarray(rows.act) + np.float32(1e-6)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "broken", "kind"),
    [
        (Learner, "restore", lose_the_critics, "wrong_state"),
        (Buffer, "extend", store_the_wish, "wrong_rows"),
    ],
    ids=["resumes with other critics", "stores what was not done"],
)
def test_a_broken_tuner_is_found(alone, bench, monkeypatch, owner, name, broken, kind):
    if not alone:
        return
    ready = bench()
    sound = getattr(owner, name)

    def in_the_tuner_alone(self, *words):  # the audit's own learner and buffer are sound
        return (sound if os.getpid() == here else broken)(self, *words)

    here = os.getpid()
    monkeypatch.setattr(owner, name, in_the_tuner_alone)
    for _ in range(8):  # how far a life comes in its time is the machine's
        lives(ready, [0.6])
        if ready.complaints.counts[kind]:
            break
    assert ready.complaints.counts[kind] > 0, ready.found()
    assert not ready.good()


def test_a_calmer_robot_earns_more_and_every_step_of_it_makes_a_row(bot):
    """Or no candidate would ever be accepted, and no acceptance killed."""
    rewards = []
    for rows in make_recordings(bot, 6.0, seed=1):
        rows["index"], rows["t_host_ns"] = np.arange(len(rows)), np.arange(len(rows)) * 10_000_000
        made = Transitions(bot, 0.99, 1, 1.0).feed(rows)
        assert len(made.reward) == len(rows) - 1
        rewards.append(float(made.reward.mean()))
    assert rewards[CALM] > rewards[USUAL] + 0.02
    assert rewards[USUAL] > rewards[ROUGH] + 0.02
