"""How far a training run is: one line rewritten on a terminal, a line every few seconds when piped, one line per round."""

from __future__ import annotations

import time
from typing import Any, TextIO

TERMINAL_S, PIPED_S = 0.25, 5.0
SMOOTHING_S = 10.0  # the rate shown forgets what is older than this


class ProgressLine:
    def __init__(self, total: int, out: TextIO) -> None:
        self.total, self.out = total, out
        self.terminal = out.isatty()
        self.every_s = TERMINAL_S if self.terminal else PIPED_S
        self.shown_at = self.counted_at = time.monotonic()
        self.counted, self.rate, self.score = -1, 0.0, ""

    def update(self, updates: int, env_steps: int) -> None:
        """Called often; costs a look at the clock."""
        now = time.monotonic()
        if now - self.shown_at < self.every_s:
            return
        if self.counted >= 0 and updates > self.counted:
            new = (updates - self.counted) / (now - self.counted_at)
            share = min(1.0, (now - self.counted_at) / SMOOTHING_S) if self.rate else 1.0
            self.rate += share * (new - self.rate)
        self.counted, self.counted_at, self.shown_at = updates, now, now
        left = (self.total - updates) / self.rate if self.rate else 0.0
        parts = [
            f"{100.0 * updates / self.total:5.1f} %", f"update {updates}/{self.total}", f"step {env_steps}",
            f"{self.rate:.0f} updates/s" if updates and self.rate else "filling the replay" if not updates else "...",
        ]  # fmt: skip
        if left:
            parts.append(f"{clock(left)} left")
        if self.score:
            parts.append(self.score)
        self.say("  ".join(parts), lasting=False)

    def round_over(self, line: dict[str, Any], seconds: float) -> None:
        score, value = line["evaluation"], line["value"]
        self.score = f"return {score['mean']:.1f}"
        self.say(
            f"{clock(seconds)}  round {line['round']:>3}  update {line['updates']:>7}  return {score['mean']:9.1f} +- {score['std']:.1f}"
            f"{' *' if line['best'] else '  '}  survival {score['survival']:.2f}  training {number(line['training_return'])}  "
            f"Q {number(value['estimated'])} (realised {number(value['realised'])})  sigma {number(value['sigma'])} (spread "
            f"{number(value['spread'])})  alpha {line['alpha']:.3f}",
            lasting=True,
        )
        self.counted = -1  # an evaluation took part of the time since

    def say(self, text: str, lasting: bool) -> None:
        self.out.write((f"\r\x1b[K{text}" + ("\n" if lasting else "")) if self.terminal else text + "\n")
        self.out.flush()


def number(value: float | None) -> str:
    """What JSON has no number for is not known."""
    return "-" if value is None else f"{value:.1f}"


def clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02d}"
