"""A tuner killed at random instants, again and again: does it go on, and has it ever a wrong row or a wrong actor?

    python tools/bench_kills.py --kills 500 --json --out bench/kills.json

Each life is a process of its own that runs `edge-dsac tune start --resume` on a real slot folder, beside a robot that is played
(played_flight.py: real rings, recorder, trials and verdicts, at ten times the robot's pace), and ends by SIGKILL: after an amount of its
own processor time drawn evenly from 0 to --life-s, so that a loaded machine does not kill all of them while they start; or, in
--aimed of the lives, within 60 ms after the journal named a candidate or a verdict, so that what is short is met too. Python and torch are
imported once, before the fork: they touch no file of the session's; the tuner is not made nice, and its rounds are short (TUNING, COURSE).
After each kill the folder is audited from outside (kill_audit.py) against a run that is never killed. The last life ends in good order.
`killed_in`: where the process was, by what it left. `left_in_tmp_mb`: what torch had unpacked for the killed, all lives together.
Exit code 1 if anything is wrong, lost or refused. SIGTERM ends it early, with what was found so far.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from bench_loop import machine
from kill_audit import Audit, Complaints, TrueRows
from played_flight import Player, make_recordings
from tunable_policy import make_carried, make_policy_file

from edge_dsac.bundle.keyring import board_key, key_folder, trusted_keys
from edge_dsac.bundle.slots import Slots, create_slots
from edge_dsac.cli import tune, tuning, tuning_place
from edge_dsac.cli.signals import StopFlag
from edge_dsac.learn import learner, tuner
from edge_dsac.learn.carried import Carried
from edge_dsac.learn.compiled import prepare
from edge_dsac.learn.course import Course
from edge_dsac.learn.evidence import Limits
from edge_dsac.learn.learner import Learner, Tuning
from edge_dsac.learn.rows_file import Shape
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec, load_robot

CAPACITY = 6000  # rows: full after six seconds at this pace, so that old ones go all the time
AIMED_S, AIM_FOR_S = 0.06, 10.0
RECORDED_S, LAST_S = 30.0, 3.0
# More of what can be killed in the same time: short rounds, early candidates. And critics that keep their made-up opinion, which an actor
# that climbs them quickly agrees with, and a gate that lets through whatever is finite: candidates are tried, and some are accepted.
TUNING: dict[str, Any] = {"batch": 16, "round_updates": 10, "critic_lr": 1e-6, "actor_lr": 1e-2, "actor_every": 1}
OPEN_GATE = Limits(shift_mean=2.0, shift_p99=2.0, saturated_more=1.0, confidence=0.001)
COURSE: dict[str, Any] = {"first_updates": 50, "candidate_updates": 30, "pairs": 12, "limits": OPEN_GATE}
WENT_ON = "; session "  # of what the tuner says once it has everything open
NAMED = (b'"event": "candidate"', b'"event": "verdict"')


class Bench:
    def __init__(self, folder: Path, spec: RobotSpec, compile_: str, pace: float) -> None:
        self.folder, self.spec, self.compile, self.pace = folder, spec, compile_, pace
        os.environ["EDGE_DSAC_KEYS"] = str(folder / "keys")
        prepare(1)
        tuning.be_modest = lambda nice: None
        tuner.Course, learner.Tuning = partial(Course, **COURSE), partial(Tuning, **TUNING)
        key = board_key(key_folder(os.environ), platform.node())
        carried = make_carried(spec, (32, 32), (16, 16))
        create_slots(folder / "slots", make_policy_file(spec, carried, key), [key.public])
        self.slots = Slots(folder / "slots", trusted_keys(key_folder(os.environ)))
        self.step = tuning.update_of(compile_, Learner(carried, Tuning(**TUNING)))
        Learner(carried, Tuning(**TUNING), self.step).round(None, 1, 2)  # what torch imports at its first gradient takes a second
        self.complaints, self.audits = Complaints(), list[Audit]()
        self.rows = self.true_rows(carried)
        self.refused: Counter[str] = Counter()
        self.killed_in: Counter[str] = Counter()
        self.resumed = self.kills = 0
        self.unpacked_mb = 0.0
        (folder / "tmp").mkdir()
        os.environ["TMPDIR"] = str(folder / "tmp")  # where torch unpacks a compiled update; a killed process leaves it there
        recordings = make_recordings(spec, RECORDED_S, seed=1)
        self.player = fork(lambda: Player(self.slots, spec, recordings, folder / "robot", pace).live(os.getppid()), folder / "robot.txt")

    def true_rows(self, carried: Carried) -> TrueRows:
        shape = Shape(ObservationLayout(self.spec).size, len(self.spec.actions), tuning_place.comparable(self.spec, carried.settings))
        return TrueRows(self.folder / "robot" / "truth", self.spec, carried.settings, shape)

    # ---- one life

    def arguments(self, resume: bool) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        tune.add(parser.add_subparsers())
        words = ["tune", "start", "--slots", str(self.slots.folder), "--compile", self.compile, "--cpu-share", "1", "--rows", str(CAPACITY)]
        words += ["--memory-mb", "8000", "--window-s", "2", "--minutes", "600", *(["--resume"] if resume else [])]
        return parser.parse_args(words)

    def begin(self) -> int:
        self.said = self.folder / "life.txt"
        self.said.write_text("")
        args = self.arguments(resume=self.session() is not None)
        return fork(lambda: tuning.begin(args), self.said)

    def session(self) -> Path | None:
        """The newest one that its first process lived long enough to begin."""
        found = sorted((self.slots.folder / "tuning").glob("session-*/session.json"))
        return found[-1].parent if found else None

    def life(self, generator: np.random.Generator, life_s: float, aimed: float) -> None:
        if not alive(self.player):
            raise SystemExit(f"bench_kills: the robot has ended by itself: {(self.folder / 'robot.txt').read_text()[-600:]}")
        pid = self.begin()
        if generator.uniform() < aimed:
            self.wait_for_a_name(pid)
            wait(pid, float(generator.uniform(0.0, AIMED_S)))
        else:
            work(pid, float(generator.uniform(0.0, life_s)))
        self.end(pid, signal.SIGKILL)

    def wait_for_a_name(self, pid: int) -> None:
        """Until the journal names one more candidate or verdict."""
        session = self.session()
        if session is None:
            return
        path, give_up = session / "journal.jsonl", time.monotonic() + AIM_FOR_S
        names = self.names_in(path)
        while time.monotonic() < give_up and self.names_in(path) == names and alive(pid):
            time.sleep(0.004)

    def names_in(self, path: Path) -> int:
        data = path.read_bytes() if path.exists() else b""
        return sum(data.count(name) for name in NAMED)

    def end(self, pid: int, how: signal.Signals) -> None:
        if alive(pid):
            os.kill(pid, how)
        _, status = os.waitpid(pid, 0)
        said = self.said.read_text()
        if os.WIFSIGNALED(status):
            self.kills += 1
            went_on = WENT_ON in said
            self.resumed += went_on
            if not went_on:
                self.killed_in["starting up"] += 1
        elif os.WEXITSTATUS(status) or how == signal.SIGKILL:
            self.refused[(said.strip().splitlines() or ["nothing said"])[-1]] += 1
            went_on = False
        else:
            went_on = True
        self.tidy()
        where = self.audit()
        if went_on and os.WIFSIGNALED(status):
            self.killed_in[where] += 1

    def tidy(self) -> None:
        """Weighed, then gone: hundreds of them would fill a disk."""
        for path in (self.folder / "tmp").iterdir():
            self.unpacked_mb += sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
            shutil.rmtree(path, ignore_errors=True)

    def audit(self) -> str:
        session = self.session()
        if session is None:
            return "starting up"
        if not self.audits or self.audits[-1].folder != session:
            self.audits.append(Audit(self.slots, session, self.rows, CAPACITY, self.step, self.complaints))
        return self.audits[-1].look(self.folder / "copy")

    # ---- what came of it

    def finish(self) -> None:
        """A last life that nobody kills, then the robot's end."""
        pid, give_up = self.begin(), time.monotonic() + 60.0
        while WENT_ON not in self.said.read_text() and alive(pid) and time.monotonic() < give_up:
            time.sleep(0.05)
        wait(pid, LAST_S)
        self.end(pid, signal.SIGTERM)
        self.stop()

    def stop(self) -> None:
        if self.player:
            os.kill(self.player, signal.SIGKILL)  # not waited for yet, so the number is still its own
            os.waitpid(self.player, 0)
            self.player = 0
        for link in self.folder.glob("robot/flight-*/ring"):  # in shared memory, where nobody else takes it away
            link.resolve().unlink(missing_ok=True)

    def found(self) -> dict[str, Any]:
        hz = self.spec.rates.control_hz
        counts: Counter[str] = Counter()
        for audit in self.audits:
            counts.update(audit.counts)
        return {
            "kills": self.kills, "resumed": self.resumed, "refused": dict(self.refused), **self.complaints.counts,
            "lost_s_max": self.complaints.lost_rows_max / hz, "killed_in": dict(self.killed_in), "sessions": len(self.audits),
            "rows": sum(len(audit.order) for audit in self.audits[-1:]), **counts, "compiled": self.step is not None,
            "left_in_tmp_mb": round(self.unpacked_mb, 1), "said": self.complaints.said,
        }  # fmt: skip

    def good(self) -> bool:
        return not (any(self.complaints.counts.values()) or self.complaints.lost_rows_max or self.refused)


def fork(main: Any, said: Path) -> int:
    """`main()` in a process of its own; what it says goes to a file, the last line why it failed."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1)
        main()
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def alive(pid: int) -> bool:
    """False once it has ended by itself; it is still to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def wait(pid: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and alive(pid):
        time.sleep(min(left, 0.05))


def work(pid: int, seconds: float) -> None:
    """Until it has had so much of a processor; or, where it waits for the robot, for ten times as long."""
    clock, until = (~pid << 3) | 2, time.monotonic() + max(10.0 * seconds, 1.0)  # CPUCLOCK_SCHED of that process: clock_getcpuclockid(3)
    while alive(pid) and time.clock_gettime(clock) < seconds and time.monotonic() < until:
        time.sleep(0.002)


def run(folder: Path, kills: int, life_s: float, aimed: float, seed: int, compile_: str, pace: float, say: Any) -> Bench:
    generator = np.random.default_rng(seed)
    bench = Bench(folder, load_robot("balance_bot"), compile_, pace)
    begun, asked_to_stop = time.monotonic(), StopFlag()
    try:
        while bench.kills < kills and not asked_to_stop() and sum(bench.refused.values()) <= kills // 10:
            bench.life(generator, life_s, aimed)
            if bench.kills % 20 == 0:
                say(f"{time.monotonic() - begun:6.0f} s  {json.dumps(bench.found())}")
        bench.finish()
    except BaseException:
        bench.stop()
        raise
    return bench


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--life-s", type=float, default=0.8, help="most processor time of one life (default: %(default)s)")
    parser.add_argument(
        "--aimed", type=float, default=0.15, help="share of kills that wait for a candidate or a verdict (default: %(default)s)"
    )
    parser.add_argument("--pace", type=float, default=10.0, help="times the robot's own (default: %(default)s)")
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="off", help="the update (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress on standard error")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the same object, there")
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        bench = run(
            Path(name), args.kills, args.life_s, args.aimed, args.seed, args.compile, args.pace,
            lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
        words = {
            **bench.found(), "seconds": round(time.monotonic() - begun), "life_s": args.life_s, "aimed": args.aimed, "pace": args.pace,
            "seed": args.seed, "command": " ".join(["python", *sys.argv]), "date": date.today().isoformat(), "machine": machine(),
        }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(words, indent=1) + "\n")
    print(json.dumps(words) if args.json else "\n".join(f"{key}: {value}" for key, value in words.items()))
    return 0 if bench.good() else 1


if __name__ == "__main__":
    sys.exit(main())
