"""What may be done with a folder of slots: propose, accept, drop, undo, restore, promote; each of it whole or not at all.

The loop and the tuner both change the folder, under one lock. Knows no engine and no loop. Rules that must stay true: a crash between
any two operations leaves a folder that opens; what drives is in the history before it drives; a candidate is tried once.
"""

from __future__ import annotations

import datetime
import fcntl
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_dsac.bundle.disk import Disk
from edge_dsac.bundle.manifest import canonical_json
from edge_dsac.bundle.package import Bundle, check_for_robot, check_version, read_bundle
from edge_dsac.bundle.signing import PublicKey
from edge_dsac.bundle.slot_folder import (
    BETTER,
    CURRENT,
    EVENTS,
    FLIGHT,
    GOLDEN,
    HISTORY,
    OUTCOME,
    TRIAL,
    Outcome,
    SlotFolder,
    SlotsError,
    Stage,
    name_of,
)
from edge_dsac.bundle.trial_plan import TrialPlan, trial_file

LOCK = ".lock"


def wall_clock() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


class Slots(SlotFolder):
    def __init__(
        self, folder: Path, keys: Iterable[PublicKey] = (), *, allow_unsigned: bool = False, disk: Disk | None = None,
        now: Callable[[], str] = wall_clock,
    ) -> None:  # fmt: skip
        super().__init__(folder, keys, allow_unsigned=allow_unsigned)
        self.disk, self.now = disk or Disk(), now

    def check(self, data: bytes) -> Bundle:
        """May this be proposed: a trusted child of the current policy, for this robot?"""
        current, bundle = self.current(), read_bundle(data, self.keys, allow_unsigned=self.allow_unsigned)
        if bundle.manifest.parent != current.manifest.sha256:
            raise SlotsError(
                f"candidate {name_of(bundle)} was made from {str(bundle.manifest.parent)[:16]}, the current policy is "
                f"{current.manifest.sha256[:16]}; make it from the current one"
            )
        check_for_robot(bundle, current.spec)
        check_version(bundle, current.manifest.version)
        return bundle

    def propose(self, data: bytes, plan: TrialPlan) -> Bundle:
        """Puts a child of the current policy on trial. An older candidate makes way."""
        with self.locked():
            bundle = self.check(data)
            plan.check_for(bundle.actor.sizes[0])
            self.take_away("another one was proposed")
            self.disk.remove(self.folder / OUTCOME)
            self.disk.put(self.folder / TRIAL, trial_file(bundle.identity, plan))
            self.disk.put(self.candidate_path, data)
            self.note("proposed", bundle, f"{plan.pairs} pairs of windows of {plan.window_ticks} ticks")
        return bundle

    def accept(self, why: str = "", *, judged: bool = False, untried: bool = False) -> Bundle:
        """The candidate drives from now on. `judged`: its windows so far are enough, says a sequential test, which may stop early.
        `untried`: a person's word that no trial is needed."""
        with self.locked():
            found = self.candidate()
            if found is None:
                raise SlotsError(f"{self.folder}: there is no candidate to accept")
            bundle, outcome = found[0], self.outcome()
            flown = (Stage.OVER, Stage.BEGUN) if judged else (Stage.OVER,)
            if not untried and (outcome is None or outcome.candidate != bundle.identity or outcome.stage not in flown):
                stage = "has not begun" if outcome is None else f"is {outcome.stage.value}"
                raise SlotsError(f"candidate {name_of(bundle)}: its trial {stage}; only one whose trial is over can be accepted")
            if bundle.manifest.parent != self.current().manifest.sha256:
                raise SlotsError(f"candidate {name_of(bundle)} is no child of the current policy any more; drop it")
            self.keep(self.candidate_path)
            self.disk.rename(self.candidate_path, self.current_path)  # both at once: no candidate any more, and a new current one
            self.disk.sync(self.folder)
            self.disk.remove(self.folder / TRIAL)
            self.note_line("accepted", bundle.identity, why, {"verdict": BETTER} if judged else None)
        return bundle

    def drop(self, reason: str, identity: int | None = None) -> bool:
        """`identity`: only if that one is still the candidate. False if there was nothing to drop."""
        with self.locked():
            if identity is not None and self.trial_identity() != identity:
                return False
            return self.take_away(reason)

    def undo(self) -> Bundle:
        """The parent of the current policy drives again, byte by byte the file that it was."""
        with self.locked():
            current = self.current()
            parent = current.manifest.parent
            if parent is None:
                raise SlotsError(f"{name_of(current)} was not tuned from another policy: there is nothing to go back to")
            if self.ancestor(parent) is None:
                raise SlotsError(
                    f"the parent of {name_of(current)}, {parent[:16]}, is not in {self.folder / HISTORY}; undo --all goes to golden"
                )
            return self.go_back(self.history_path(parent), "undone", current)

    def restore_golden(self) -> Bundle:
        """What a person last promoted drives again."""
        with self.locked():
            self.golden()  # a golden one that does not open must not become current
            return self.go_back(self.folder / GOLDEN, "golden restored", self.current())

    def promote(self, *, forced: bool = False) -> Bundle:
        """A person's word: the current policy is the one to go back to from now on. `forced`: also where no trial found it better."""
        with self.locked():
            current = self.current()
            if not forced and not self.found_better(current):
                raise SlotsError(
                    f"{name_of(current)} was not found better than its parent in a trial here; --force promotes it all the same"
                )
            self.disk.put(self.folder / GOLDEN, self.current_path.read_bytes())
            self.note("promoted", current, "by force: no trial found it better" if forced and not self.found_better(current) else "")
        return current

    def point_to(self, flight: Path) -> None:
        """Where the newest flight's log is, for whoever follows it."""
        link = self.folder / f".{FLIGHT}.unfinished"
        link.unlink(missing_ok=True)
        link.symlink_to(flight.resolve())
        self.disk.rename(link, self.folder / FLIGHT)

    def begin(self, identity: int) -> None:
        """Before a candidate drives for the first time; so a crash in its trial is seen at the next start."""
        self.record(Outcome(identity, Stage.BEGUN, "", {}))

    def record(self, outcome: Outcome) -> None:
        """What the loop says about a trial; `drop` is another matter."""
        table = {"candidate": f"{outcome.candidate:016x}", "stage": outcome.stage.value, "why": outcome.why, "details": outcome.details}
        with self.locked():
            if self.trial_identity() == outcome.candidate:  # a word about an older one must not stand for the newest
                self.disk.put(self.folder / OUTCOME, canonical_json(table).encode())
            self.note_line(f"trial {outcome.stage.value}", outcome.candidate, outcome.why, outcome.details)

    # ---- steps of the above

    def go_back(self, source: Path, event: str, current: Bundle) -> Bundle:
        self.take_away(f"{event}: {name_of(current)} is current no more")
        data = source.read_bytes()
        self.keep(self.current_path)
        self.disk.put(self.current_path, data)
        bundle = self.current()
        self.note(event, bundle, f"instead of {name_of(current)}")
        return bundle

    def take_away(self, reason: str) -> bool:
        if not self.candidate_path.exists():
            return False
        identity = self.trial_identity() or 0
        self.disk.remove(self.candidate_path)
        self.disk.sync(self.folder)
        self.disk.remove(self.folder / TRIAL)
        self.note_line("dropped", identity, reason)
        return True

    def keep(self, path: Path) -> None:
        """Into the history, before it drives or before it is replaced."""
        place = self.history_path(self.opened(path).manifest.sha256)
        if not place.exists():
            self.disk.put(place, path.read_bytes())

    def note(self, event: str, bundle: Bundle, why: str) -> None:
        self.note_line(event, bundle.identity, why)

    def note_line(self, event: str, identity: int, why: str, details: dict[str, Any] | None = None) -> None:
        words = {"at": self.now(), "event": event, "policy": f"{identity:016x}", "why": why, **({"details": details} if details else {})}
        self.disk.append(self.folder / EVENTS, json.dumps(words).encode() + b"\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The kernel lets go of it with the process, so a killed tuner cannot shut out the loop."""
        if not self.folder.is_dir():
            raise SlotsError(f"{self.folder} does not exist; make it: edge-dsac slots create FOLDER FILE")
        with (self.folder / LOCK).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def create_slots(
    folder: Path, data: bytes, keys: Iterable[PublicKey] = (), *, allow_unsigned: bool = False, disk: Disk | None = None,
    now: Callable[[], str] = wall_clock,
) -> Slots:  # fmt: skip
    """A new folder in which `data` is current and golden. What a crash left of an earlier attempt is taken over."""
    slots = Slots(folder, keys, allow_unsigned=allow_unsigned, disk=disk, now=now)
    bundle = read_bundle(data, slots.keys, allow_unsigned=allow_unsigned)
    ours = {HISTORY, GOLDEN, EVENTS, LOCK, f".{GOLDEN}.unfinished", f".{CURRENT}.unfinished"}
    if slots.folder.exists() and not {path.name for path in slots.folder.iterdir()} <= ours:
        raise SlotsError(f"{folder} is in use already; choose another folder")
    (slots.folder / HISTORY).mkdir(parents=True, exist_ok=True)
    with slots.locked():
        slots.disk.put(slots.history_path(bundle.manifest.sha256), data)
        slots.disk.put(slots.folder / GOLDEN, data)
        slots.disk.put(slots.current_path, data)  # last: until now it is not a folder of slots
        slots.note("created", bundle, "")
    return slots
