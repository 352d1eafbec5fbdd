"""Picks the engine a robot should run a policy with, from measured times, and keeps the choice beside the policy file.

Pure but for reading and writing that one small file. Rule that must stay true: a choice is used only for the very policy and
the very machine it was made for.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_dsac.bundle.processor import board_model, cpu_name
from edge_dsac.profile.histogram import Histogram
from edge_dsac.profile.measure import CONDITIONS

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Choice:
    engine: str
    because: str
    figures: dict[str, dict[str, dict[str, float]]]  # engine -> condition -> quantiles in us


def choose(found: dict[str, dict[str, Histogram]], order: tuple[str, ...]) -> Choice:
    """The smallest worst p99.9 over the paced conditions. `order`: who goes first where two are within a tenth of each other."""
    worst = {name: max(by[condition].quantile_ns(0.999) for condition in ("alone", "busy")) / 1000.0 for name, by in found.items()}
    least = min(worst.values())
    close = [name for name, value in worst.items() if value <= 1.1 * least]
    engine = min(close, key=order.index)
    others = ", ".join(f"{name} {value:.0f}" for name, value in sorted(worst.items(), key=lambda item: item[1]) if name != engine)
    because = f"p99.9 of {worst[engine]:.0f} us at worst, alone or beside busy neighbours" + (f"; {others}" if others else "")
    figures = {name: {condition: by[condition].figures() for condition in CONDITIONS} for name, by in found.items()}
    return Choice(engine, because, figures)


def choice_path(policy: Path) -> Path:
    return policy.with_name(policy.name + ".engine.json")


def save_choice(choice: Choice, policy: Path, identity: int) -> Path:
    out = choice_path(policy)
    words = {
        "format": FORMAT, "policy": f"{identity:016x}", "machine": machine_name(), "engine": choice.engine, "because": choice.because,
        "measured": choice.figures,
    }  # fmt: skip
    unfinished = out.with_name(out.name + ".unfinished")
    unfinished.write_text(json.dumps(words, indent=1) + "\n")
    os.replace(unfinished, out)
    return out


def load_choice(policy: Path, identity: int) -> tuple[str | None, str]:
    """(engine, why); None and the reason where there is no choice that counts here."""
    path = choice_path(policy)
    try:
        words: Any = json.loads(path.read_text())
        made_for = (words["format"], words["policy"], words["machine"])
        engine, because = str(words["engine"]), str(words["because"])
    except FileNotFoundError:
        return None, f"nothing was measured on this board: edge-dsac profile {policy} --choose"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"{path} cannot be read: {error!r}; measure again"
    if made_for != (FORMAT, f"{identity:016x}", machine_name()):
        return None, f"{path} was made for another policy or machine; measure again"
    return engine, because


def machine_name() -> str:
    """What a choice depends on: the processor, not the host's name."""
    return f"{board_model() or cpu_name()} ({platform.machine()}, {os.cpu_count()} cores)"
