"""What a killed tuner has left on the disk, held against a run that was never killed: rows, learner, candidates, and who drives.

The reference makes its rows from the truth that the flight wrote, and does every round of the journal itself, in order, in one process
from the first to the last. Reads copies: an audit changes nothing. Knows no process and no clock. Rule that must stay true: whatever does
not open, is not equal or was not accounted for is counted and said; nothing is left out because it is hard to compare.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_dsac.bundle.package import Bundle
from edge_dsac.bundle.slot_folder import HISTORY
from edge_dsac.bundle.slots import Slots
from edge_dsac.cli.tuning_place import rows_folder
from edge_dsac.learn.buffer import PARTS, Buffer
from edge_dsac.learn.carried import Carried, digest, read_carried
from edge_dsac.learn.gatekeeper import transitions_of
from edge_dsac.learn.journal import read_journal
from edge_dsac.learn.learner import Learner, Step, Tuning
from edge_dsac.learn.rows_file import Shape, as_rows
from edge_dsac.learn.session import Session
from edge_dsac.learn.transitions import Rows, Transitions
from edge_dsac.learn.tuning import Recipe
from edge_dsac.records import Float
from edge_dsac.spec.robot import RobotSpec
from edge_dsac.steplog.layout import RecordLayout

SAID = 30


class Complaints:
    """Counts by kind, and the first of them in words."""

    def __init__(self) -> None:
        self.counts = {"wrong_rows": 0, "wrong_actor": 0, "wrong_state": 0, "does_not_open": 0}
        self.lost_rows_max = 0
        self.said: list[str] = []

    def add(self, kind: str, text: str, count: int = 1) -> None:
        self.counts[kind] += count
        if len(self.said) < SAID:
            self.said.append(f"{kind}: {text}")

    def lost(self, rows: int, text: str) -> None:
        self.lost_rows_max = max(self.lost_rows_max, rows)
        if rows and len(self.said) < SAID:
            self.said.append(f"lost {rows} rows: {text}")


class TrueRows:
    """All rows there could be, in order, by a reader that was never killed."""

    def __init__(self, truth: Path, spec: RobotSpec, settings: dict[str, Any], shape: Shape) -> None:
        self.truth, self.spec, self.settings, self.shape = truth, spec, settings, shape
        self.dtype = RecordLayout(spec).dtype
        self.read: dict[Path, int] = {}
        self.over: set[Path] = set()
        self.making: dict[Path, Transitions] = {}
        self.room, self.count = np.zeros(1 << 16, shape.dtype), 0
        self.at: dict[tuple[int, int], int] = {}

    def look(self) -> None:
        for path in sorted(self.truth.glob("*.steps")):
            if path in self.over:
                continue
            ended = path.with_suffix(".over").exists()  # before reading: then what is read is all
            flight = int(path.stem)
            making = self.making.setdefault(path, transitions_of(self.spec, self.settings, flight))
            done = self.read.get(path, 0)
            columns = np.fromfile(path, self.dtype, offset=done * self.dtype.itemsize)
            self.read[path] = done + len(columns)
            self.add(making.feed(columns))
            if ended:
                self.add(making.finish())
                self.over.add(path)

    @property
    def table(self) -> np.ndarray:
        return self.room[: self.count]

    def add(self, rows: Rows) -> None:
        first = self.count
        packed = self.shape.pack(rows, np.arange(len(rows.reward)), first)
        self.at |= {key: first + i for i, key in enumerate(zip(packed["flight"].tolist(), packed["index"].tolist(), strict=True))}
        if first + len(packed) > len(self.room):
            self.room = np.concatenate([self.room, np.zeros_like(self.room), packed])  # at least twice as long
        self.room[first : first + len(packed)], self.count = packed, first + len(packed)


class Audit:
    """Of one session, again and again."""

    def __init__(
        self, slots: Slots, session: Path, rows: TrueRows, capacity: int, step: Callable[[Recipe], Step] | None, complaints: Complaints
    ) -> None:
        self.slots, self.folder, self.rows, self.capacity, self.complaints = slots, session, rows, capacity, complaints
        words = json.loads((session / "session.json").read_text())
        parent = slots.ancestor(words["parent"])
        if parent is None:
            raise SystemExit(f"{session}: its parent is not in the folder's history")
        self.parent, self.golden = words["parent"], slots.golden().manifest.sha256
        carried = read_carried(parent.files, parent.manifest.name)
        self.reference = Learner(carried, Tuning(**words["tuning"]), step)
        self.round = 0
        self.events: list[dict[str, Any]] = []
        self.consumed = 0
        self.children: dict[str, Carried] = {}  # identity -> what the reference has at that point
        self.order = np.zeros(0, np.int64)  # ordinal of a row in the buffer -> its place in the reference
        self.opened: set[Path] = set()  # of the history; no file of it is ever written again
        self.counts = {"rounds": 0, "candidates": 0, "refused_by_gate": 0, "accepted": 0, "rejected": 0}

    def look(self, scratch: Path) -> str:
        """All of it, once. In a word: where the process was when it was killed."""
        shutil.rmtree(scratch, ignore_errors=True)
        self.rows.look()
        self.look_at_rows(scratch / "rows")
        round_ = self.look_at_session(scratch / "session")
        self.look_at_slots()
        return self.phase(round_)

    # ---- rows

    def look_at_rows(self, copy: Path) -> None:
        shutil.copytree(rows_folder(self.folder.parent, self.slots.current().spec), copy)
        shape = self.rows.shape
        try:
            buffer = Buffer(copy, shape.obs, shape.act, self.capacity, fingerprint=shape.fingerprint)
        except Exception as error:
            self.complaints.add("does_not_open", f"rows: {error!r}")
            return
        found, total = buffer.window.records.copy(), buffer.total
        buffer.lock.close()
        buffer.segments.close()
        if total < len(self.order):
            self.complaints.lost(len(self.order) - total, f"{len(self.order)} rows were there, now {total}")
        self.compare(found, total)

    def compare(self, found: np.ndarray, total: int) -> None:
        if not len(found):
            return
        places = [self.rows.at.get(key, -1) for key in zip(found["flight"].tolist(), found["index"].tolist(), strict=True)]
        place = np.array(places, np.int64)
        wrong = (place < 0) | np.concatenate([[False], np.diff(place) <= 0])
        names = [name for name in found.dtype.names or () if name not in ("ordinal", "crc")]
        twins = self.rows.table[np.maximum(place, 0)]
        for name in names:
            ours, theirs = (np.ascontiguousarray(table[name]).view(np.uint8).reshape(len(place), -1) for table in (found, twins))
            wrong |= (ours != theirs).any(axis=1)
        ordinal = found["ordinal"].astype(np.int64)
        order = np.full(max(total, int(ordinal.max(initial=-1)) + 1), -1, np.int64)
        order[: len(self.order)] = self.order[: len(order)]
        changed = (order[ordinal] >= 0) & (order[ordinal] != place)
        order[ordinal] = place
        self.order = order
        self.fill_in(int(ordinal[0]))
        if (wrong | changed).any():
            first = int(np.flatnonzero(wrong | changed)[0])
            self.complaints.add("wrong_rows", f"first: ordinal {int(ordinal[first])}", int((wrong | changed).sum()))
        gaps = np.diff(place) - 1
        if not len(gaps):
            return
        self.complaints.lost(max(int(gaps.max()), 0), f"after ordinal {int(ordinal[gaps.argmax()])}")

    def fill_in(self, first: int) -> None:
        """Rows that came and went between two audits: as many as there are places for them, so it is known which they were."""
        before = first
        while before and self.order[before - 1] < 0:
            before -= 1
        last = int(self.order[before - 1]) if before else -1
        missing = int(self.order[first]) - last - 1 - (first - before)
        if missing:
            self.complaints.lost(max(missing, 0), f"between ordinals {before - 1} and {first}")
        else:
            self.order[before:first] = last + 1 + np.arange(first - before)

    def window(self, total: int) -> Rows | None:
        """What the buffer kept when it had taken `total` rows: whole parts go, as few as make room."""
        part = self.capacity // PARTS
        first = max(0, -(-(total - self.capacity) // part) * part)
        order = self.order[first:total]
        if len(order) < total - first or (order < 0).any():
            return None
        return as_rows(self.rows.table[order])

    # ---- the session: journal, states, the learner

    def look_at_session(self, copy: Path) -> int:
        """The round of the newest state."""
        shutil.copytree(self.folder, copy)
        events = read_journal(copy / "journal.jsonl")
        if events[: len(self.events)] != self.events:
            self.complaints.add("wrong_state", "the journal's past has changed")
        self.events = events
        words = {key: value for key, value in json.loads((copy / "session.json").read_text()).items() if key != "version"}
        try:
            session = Session(copy, words, resume=True)
        except Exception as error:
            self.complaints.add("does_not_open", f"session: {error!r}")
            return self.round
        saved = session.load()
        session.close()
        number = 0 if saved is None else saved.round
        if number < self.round:
            self.complaints.add("wrong_state", f"the state of round {self.round} is gone, the newest is of round {number}")
            return number
        self.follow(number)
        if saved is not None and not same(saved.arrays, self.reference.save()):
            self.complaints.add("wrong_state", f"the learner after round {number} is not the one of a run that was never killed")
        return number

    def follow(self, until: int) -> None:
        """The reference does what the journal says was done."""
        while self.consumed < len(self.events):
            entry = self.events[self.consumed]
            if entry["event"] == "round":
                if entry["round"] > until:
                    return
                self.do_round(entry)
            elif entry["event"] in ("candidate", "refused"):
                self.check_child(entry)
            elif entry["event"] == "verdict":
                self.counts["accepted" if entry["decision"] == "better" else "rejected"] += 1
            self.consumed += 1

    def do_round(self, entry: dict[str, Any]) -> None:
        if entry["round"] != self.round + 1:
            self.complaints.add("wrong_state", f"after round {self.round} the journal names round {entry['round']}")
        rows = self.window(entry["rows"])
        if rows is None:
            self.complaints.add("wrong_state", f"round {entry['round']} saw {entry['rows']} rows, of which not all are known")
            return
        self.reference.round(rows, entry["round"])
        self.round = entry["round"]
        self.counts["rounds"] += 1

    def check_child(self, entry: dict[str, Any]) -> None:
        child = self.reference.child()
        if (entry["round"], entry["weights"]) != (self.round, digest(child)):
            self.complaints.add("wrong_actor", f"{entry['event']} of round {entry['round']} has other weights than an unkilled run's")
        if entry["event"] == "candidate":
            self.children[entry["identity"]] = child
        self.counts["candidates" if entry["event"] == "candidate" else "refused_by_gate"] += 1

    # ---- who drives

    def look_at_slots(self) -> None:
        accepted = {entry["identity"] for entry in self.events if entry["event"] == "verdict" and entry["decision"] == "better"}
        try:
            with self.slots.locked():  # the loop's side may be dropping a candidate just now
                current, golden, found = self.slots.current(), self.slots.golden(), self.slots.candidate()
                history = {
                    path: self.slots.opened(path) for path in (self.slots.folder / HISTORY).glob("*.policy") if path not in self.opened
                }
        except Exception as error:
            self.complaints.add("does_not_open", f"slots: {error!r}")
            return
        self.opened |= history.keys()
        if golden.manifest.sha256 != self.golden:
            self.complaints.add("wrong_actor", "golden has changed")
        if current.manifest.sha256 != self.parent:
            self.check_policy("current", current, accepted)
        if found is not None:
            self.check_policy("candidate", found[0], set(self.children))

    def check_policy(self, what: str, bundle: Bundle, allowed: set[str]) -> None:
        name, child = f"{bundle.identity:016x}", self.children.get(f"{bundle.identity:016x}")
        if name not in allowed or child is None:
            self.complaints.add("wrong_actor", f"{what} is {name}, which the journal does not account for")
            return
        drives = [values for layer in bundle.actor.layers for values in layer]
        count = len(bundle.actor.layers[-1][1])
        learnt = [*child.networks["actor"][:-2], child.networks["actor"][-2][:count], child.networks["actor"][-1][:count]]
        whole = digest(read_carried(bundle.files, what)) == digest(child)
        if not whole or any(not np.array_equal(a, b) for a, b in zip(drives, learnt, strict=True)):
            self.complaints.add("wrong_actor", f"{what} {name} has other weights than an unkilled run's")

    def phase(self, saved: int) -> str:
        rounds = [entry["round"] for entry in self.events if entry["event"] == "round"]
        if rounds and rounds[-1] > saved:
            return "in a round"
        last = self.events[-1] if self.events else {"event": "none"}
        flying = self.slots.trial_identity() if self.slots.candidate_path.exists() else None
        if last["event"] == "candidate" and flying != int(last["identity"], 16):
            return "candidate noted, not proposed"
        if last["event"] == "verdict" and flying == int(last["identity"], 16):
            return "verdict noted, not carried out"
        return "between"


def same(ours: dict[str, Float], theirs: dict[str, Float]) -> bool:
    return ours.keys() == theirs.keys() and all(np.asarray(ours[k]).tobytes() == np.asarray(theirs[k]).tobytes() for k in ours)
