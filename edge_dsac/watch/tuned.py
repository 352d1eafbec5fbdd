"""What came of a fine-tuning session: better, worse or no evidence, with every number it stands on; as words and as a picture.

Works on a session's journal alone. Knows no learner and judges nothing: the verdicts are those that were acted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from edge_dsac.watch.picture import BLUE, GREEN, GREY, ORANGE, RED, legend_above

COLOUR = {"old": BLUE, "new": ORANGE}
TONE = {"better": GREEN, "worse": RED, "no evidence": GREY}
WHY, WIDE = 120, 160  # characters of a verdict's reason, and of a line across the picture
SHOWN_TRIALS = 6  # the newest; a picture of more is not looked at


def report_of(settings: Mapping[str, Any], events: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """`settings`: session.json; `events`: the journal; `seconds`: of all its lives. Better, if a child was accepted;
    worse, if none was and one was found worse.
    """
    of = {name: [event for event in events if event["event"] == name] for name in ("round", "candidate", "refused", "verdict")}
    lives = [event for event in events if event["event"] in ("opened", "ended")]
    made = {event["identity"]: event for event in of["candidate"]}
    trials = [trial_of(event, made.get(event["identity"])) for event in of["verdict"]]
    decisions = [trial["decision"] for trial in trials]
    verdict = next((word for word in ("better", "worse") if word in decisions), "no evidence")
    accepted = [trial for trial in trials if trial["decision"] == "better"]
    last = [{"round": 0, "rows": 0}, *of["refused"], *of["candidate"]][-1] if not of["round"] else of["round"][-1]
    return {
        "verdict": verdict, "parent": settings["parent"][:16], "recipe": settings["tuning"]["recipe"], "trials": trials,
        "accepted": len(accepted), "refused_before_a_trial": len(of["refused"]),
        "refusals": [reason for event in of["refused"] for reason in event["evidence"]["reasons"]][-5:],
        "updates": last["round"] * settings["tuning"]["round_updates"], "rows": last["rows"],
        "falls": {who: sum(trial["falls"][who] for trial in trials) for who in ("old", "new")},
        "interventions": {who: sum(trial["interventions"][who] for trial in trials) for who in ("old", "new")},
        "seconds": seconds, "ended": lives[-1]["why"] if lives and lives[-1]["event"] == "ended" else "not ended",
    }  # fmt: skip


def trial_of(event: Mapping[str, Any], made: Mapping[str, Any] | None) -> dict[str, Any]:
    trial, evidence = event["trial"], made["evidence"] if made else None
    flown = [window for window in event["windows"] if not window["void"]]
    return {
        "candidate": event["identity"], "decision": event["decision"], "why": event["why"], "pairs": trial["pairs"], "gain": trial["gain"],
        "interval": trial["interval"], "rewards": both(trial["rewards"]), "falls": both(trial["falls"]),
        "interventions": both(trial["interventions"]), "e_better": trial["e_better"], "e_worse": trial["e_worse"],
        "limited_share": both(trial["limited_share"]), "action_rate": both(trial["action_rate"]),
        "energy_of_action": {who: mean_of(flown, who, "action_square") for who in ("old", "new")},
        "action_shift": max(evidence["shift"]["mean"]) if evidence else None, "critics": evidence["gain"] if evidence else None,
        "guide": made.get("guide") if made else None,
        "updates": made["updates"] if made else None, "rows": made["rows"] if made else None, "windows": list(event["windows"]),
    }  # fmt: skip


def both(values: Sequence[Any]) -> dict[str, Any]:
    return {"old": values[0], "new": values[1]}


def mean_of(windows: Sequence[Mapping[str, Any]], who: str, name: str) -> float | None:
    found = [window[name] for window in windows if window["who"] == who and window[name] is not None]
    return float(np.mean(found)) if found else None


def lines_of(report: Mapping[str, Any]) -> list[str]:
    """For people."""
    learned = f"{report['updates']} updates on " if report["updates"] else ""
    lines = [
        f"{report['verdict']}: {report['accepted']} accepted of {len(report['trials'])} tried; "
        f"{report['refused_before_a_trial']} refused before a trial",
        f"  {report['recipe']}: {learned}{report['rows']} rows in {report['seconds']:.0f} s; {report['ended']}",
        f"  falls: {report['falls']['old']} of the old, {report['falls']['new']} of the new; a person stepped in "
        f"{report['interventions']['old']} and {report['interventions']['new']} times",
    ]
    for trial in report["trials"]:
        gain = "" if trial["gain"] is None else f"; gain {trial['gain']:+.3f} per tick{between(trial['interval'])}"
        moved = "" if trial["action_shift"] is None else f"; actions moved by {trial['action_shift']:.2f}"
        effort = trial["energy_of_action"]
        spent = "" if None in effort.values() else f"; energy of action {effort['old']:.3f} -> {effort['new']:.3f}"
        lines.append(f"  {trial['candidate']}  {trial['decision']} in {trial['pairs']} pairs{gain}{moved}{spent}")
        if trial["guide"]:
            lines.append(f"      {trial['guide']}")
        lines.append(f"      {trial['why']}")
    lines += [f"  refused: {reason}" for reason in report["refusals"]]
    return lines


def between(interval: Sequence[float | None]) -> str:
    low, high = interval
    return "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"


def draw_tuned(report: Mapping[str, Any], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    trials = [trial for trial in report["trials"] if trial["windows"]][-SHOWN_TRIALS:]
    aside = [f"{trial['candidate']} flew no window: {trial['why']}" for trial in report["trials"] if not trial["windows"]]
    rows = max(1, len(trials))
    figure, axes = plt.subplots(rows, 2, figsize=(13, 2.6 * rows + 1.2), layout="constrained", squeeze=False, width_ratios=[3, 1])
    head = f"{report['verdict']}: {report['accepted']} of {len(report['trials'])} candidates accepted"
    figure.suptitle(
        f"{head}; {report['recipe']}, {report['updates']} updates on {report['rows']} rows", color=TONE[report["verdict"]], fontsize=13
    )
    for (left, right), trial in zip(axes, trials, strict=False):
        windows_of(left, trial)
        gains_of(right, trial)
    if not trials:
        for axis in axes[0]:
            axis.axis("off")
        said = "\n".join([*report["refusals"], *aside]) or "no candidate was made"
        axes[0][0].text(0.02, 0.5, said, fontsize=10, va="center", wrap=True)
    elif aside:
        figure.supxlabel("\n".join(shorten(line, WIDE, placeholder=" ...") for line in aside[-SHOWN_TRIALS:]), fontsize=9, color=GREY)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def windows_of(axis: Any, trial: Mapping[str, Any]) -> None:
    """In the order they were flown; void ones as crosses at the bottom."""
    for who, colour in COLOUR.items():
        flown = [(at, window["reward"]) for at, window in enumerate(trial["windows"]) if window["who"] == who and usable(window)]
        if flown:
            axis.plot(
                *zip(*flown, strict=True), "o-", color=colour, ms=5, lw=1, label=f"{who} {np.mean([reward for _, reward in flown]):.3f}"
            )
    void = [at for at, window in enumerate(trial["windows"]) if not usable(window)]
    axis.plot(void, [axis.get_ylim()[0]] * len(void), "x", color=GREY, label="void" if void else None)
    fallen = [at for at, window in enumerate(trial["windows"]) if window["fell"]]
    for at in fallen:
        axis.axvline(at, color=RED, lw=1.5)
    axis.set(
        title=f"{trial['candidate']}: {trial['decision']}\n{shorten(trial['why'], WHY, placeholder=' ...')}",
        ylabel="reward per tick",
        xlabel="window",
    )
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.title.set_color(TONE[trial["decision"]])
    legend_above(axis)


def usable(window: Mapping[str, Any]) -> bool:
    return not window["void"] and window["reward"] is not None


def gains_of(axis: Any, trial: Mapping[str, Any]) -> None:
    """The mean gain and the interval that holds at every stop, beside zero."""
    axis.axvline(0.0, color=GREY, lw=0.8)
    low, high = trial["interval"]
    if trial["gain"] is not None:
        if low is not None and high is not None:
            axis.plot([low, high], [0, 0], color=TONE[trial["decision"]], lw=3)
        axis.plot([trial["gain"]], [0], "o", color=TONE[trial["decision"]], ms=8)
    axis.set_yticks([])
    fell = trial["falls"]
    axis.set(title=f"gain, {trial['pairs']} pairs; falls {fell['old']} / {fell['new']}", xlabel="reward per tick, new minus old")
