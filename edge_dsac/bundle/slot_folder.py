"""The folder that a robot's policies live in, as its readers see it: which one drives, which one is on trial, and the way back.

    current.policy      drives                         golden.policy    what a person last promoted
    candidate.policy    on trial; may be absent        history/*.policy everything that ever drove, by the hash of its manifest
    trial.json          how it is tried                outcome.json     how far its trial came
    events.jsonl        what was done, when and why; only ever appended to
    flight              a link to the log of the newest flight

Reads; slots.py changes it. Knows no engine and no loop. Rule that must stay true: nothing is believed that is not signed as a policy or
does not name the candidate that is there now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from edge_dsac.bundle.container import TOTAL_LIMIT
from edge_dsac.bundle.disk import stamp
from edge_dsac.bundle.manifest import BundleError
from edge_dsac.bundle.package import Bundle, read_bundle
from edge_dsac.bundle.signing import PublicKey
from edge_dsac.bundle.trial_plan import TrialError, TrialPlan, read_trial

NOT_TRIED = "not tried: "  # begins the reason where the loop would not have a candidate at all
CURRENT, CANDIDATE, GOLDEN, HISTORY = "current.policy", "candidate.policy", "golden.policy", "history"
TRIAL, OUTCOME, EVENTS, FLIGHT = "trial.json", "outcome.json", "events.jsonl", "flight"
BETTER = "better"  # in the details of an acceptance: a verdict stands behind it, and not a person's word alone
LONGEST_LINE = 1000  # of ancestors: each of them is a file to open


class SlotsError(BundleError):
    """A slot folder that cannot be used as asked, and why."""


class Stage(Enum):
    """How far the trial of a candidate came. Written by the loop; only OVER may be accepted."""

    BEGUN = "begun"  # it may have driven; found at a start, it means that the last flight did not end in order
    OVER = "over"  # all windows flown
    ABORTED = "aborted"  # the guard took it off
    INTERRUPTED = "interrupted"  # the flight ended, or the candidate was taken away


@dataclass(frozen=True, slots=True)
class Outcome:
    candidate: int
    stage: Stage
    why: str
    details: dict[str, Any]  # of the trial, for the judge: its windows, by the index of the log's steps


class SlotFolder:
    def __init__(self, folder: Path, keys: Iterable[PublicKey] = (), *, allow_unsigned: bool = False) -> None:
        """`keys`: whose policies this machine obeys (keyring.trusted_keys). Opens nothing yet."""
        self.folder, self.keys, self.allow_unsigned = Path(folder), tuple(keys), allow_unsigned
        self.known: dict[Path, tuple[tuple[int, int, int], Bundle]] = {}  # current and candidate, as they were last opened

    @property
    def current_path(self) -> Path:
        return self.folder / CURRENT

    @property
    def candidate_path(self) -> Path:
        return self.folder / CANDIDATE

    def current(self) -> Bundle:
        if not self.current_path.exists():
            raise SlotsError(f"{self.folder} is not a folder of slots: it has no {CURRENT}; make one: edge-dsac slots create FOLDER FILE")
        return self.opened(self.current_path)

    def candidate(self) -> tuple[Bundle, TrialPlan] | None:
        """None also while one is only half proposed or half taken away."""
        if not self.candidate_path.exists():
            return None
        try:
            bundle, trial = self.opened(self.candidate_path), self.trial()
        except BundleError:
            if self.candidate_path.exists():
                raise
            return None  # accepted or dropped while it was read: another process's word
        return None if trial is None or trial[0] != bundle.identity else (bundle, trial[1])

    def trial(self) -> tuple[int, TrialPlan] | None:
        """(identity of the candidate it is meant for, plan)."""
        data = read_if_there(self.folder / TRIAL)
        return None if data is None else read_trial(data)

    def golden(self) -> Bundle:
        return self.opened(self.folder / GOLDEN)

    def outcome(self) -> Outcome | None:
        """Of the last trial here, also once its candidate is gone; None since the newest candidate was proposed."""
        data = read_if_there(self.folder / OUTCOME)
        if data is None:
            return None
        try:
            table = json.loads(data)
            return Outcome(int(table["candidate"], 16), Stage(table["stage"]), str(table["why"]), dict(table["details"]))
        except (ValueError, KeyError, TypeError) as error:
            raise SlotsError(f"{self.folder / OUTCOME}: cannot be read: {error!r}; drop the candidate and propose it again") from None

    def events(self) -> list[dict[str, Any]]:
        """Oldest first; a line that a crash cut off is left out."""
        found = []
        for line in (read_if_there(self.folder / EVENTS) or b"").split(b"\n"):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
        return found

    def found_better(self, bundle: Bundle) -> bool:
        """Whether this one took its place because its trial showed that it is better than its parent."""
        name = f"{bundle.identity:016x}"
        accepted = [event for event in self.events() if (event.get("event"), event.get("policy")) == ("accepted", name)]
        return any(isinstance(event.get("details"), dict) and event["details"].get("verdict") == BETTER for event in accepted)

    def ancestor(self, sha256: str) -> Bundle | None:
        """The one of that manifest, if it ever drove here."""
        path = self.history_path(sha256)
        if not path.exists():
            return None
        bundle = self.opened(path)
        return bundle if bundle.manifest.sha256 == sha256 else None

    def may_return(self, parent: str | None) -> frozenset[str]:
        """Manifests that may take the place of a newer child of `parent`: its own line of parents, and what a person promoted."""
        line = {self.golden().manifest.sha256}
        for _ in range(LONGEST_LINE):
            bundle = self.ancestor(parent) if parent else None
            if bundle is None:
                break
            line.add(bundle.manifest.sha256)
            parent = bundle.manifest.parent
        return frozenset(line)

    def trial_identity(self) -> int | None:
        """Whom the trial is meant for; None where that cannot be read: a broken plan must not keep anybody from dropping it."""
        try:
            trial = self.trial()
        except TrialError:
            return None
        return None if trial is None else trial[0]

    def history_path(self, sha256: str) -> Path:
        return self.folder / HISTORY / f"{sha256[:16]}.policy"

    def opened(self, path: Path) -> Bundle:
        """Checked in full once for each version of a file: whoever looks five times a second would do nothing else."""
        now, known = stamp(path), self.known.get(path)
        if known is not None and known[0] == now:
            return known[1]
        bundle = read_bundle(path, self.keys, allow_unsigned=self.allow_unsigned)
        if now is not None and path in (self.current_path, self.candidate_path):
            self.known[path] = now, bundle
        return bundle


def name_of(bundle: Bundle) -> str:
    guided = ", critic-guided" if bundle.guide else ""
    return f"{bundle.manifest.name} version {bundle.manifest.version} ({bundle.identity:016x}{guided})"


def read_if_there(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(TOTAL_LIMIT)
    except FileNotFoundError:
        return None
