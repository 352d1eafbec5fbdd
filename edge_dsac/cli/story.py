"""What a demonstration is told with: the commands a user would type, run where they can be seen, waited for, and ended.

Knows no robot and no policy. Rules that must stay true: every wait has a limit and says what it waited for; what was started here is
ended here, whatever ends the story; nothing of the user's own is touched: keys, logs and policies lie in the story's folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, TypeVar

from edge_dsac.watch.progress import PIPED_S, TERMINAL_S, clock

T = TypeVar("T")
KEYS = "EDGE_DSAC_KEYS"
POLL_S = 0.1
GRACE_S = 15.0  # a loop switches its motors off and closes its log, a board saves its trajectory: seconds, on a loud machine
EDGE_DSAC = (sys.executable, "-m", "edge_dsac.cli.main")


class StoryError(ValueError):
    """The story cannot go on: which command, what it said, where its output lies."""


class Child:
    """A command that runs beside the story; what it says is in a file, so that no full pipe can stop it."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], log: Path, command: Sequence[str] = EDGE_DSAC) -> None:
        self.words, self.log = tuple(words), log
        with log.open("ab") as out:
            # A session of its own: a Ctrl-C is for the story, which ends its children in order.
            self.process = subprocess.Popen([*command, *words], stdout=out, stderr=out, env=environment, start_new_session=True)

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def said(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "nothing"

    def end(self, grace_s: float = GRACE_S) -> int:
        return end(self.process, grace_s)


def end(process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
    """Asked first, then killed: afterwards it is gone."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


class Story:
    def __init__(self, out: Path, steps: int, to: TextIO | None = None, command: Sequence[str] = EDGE_DSAC) -> None:
        self.out, self.steps, self.to, self.command = out, steps, to or sys.stdout, tuple(command)
        self.step, self.begun, self.shown_at = 0, time.monotonic(), float("-inf")
        self.unfinished_line = False
        self.children: list[Child] = []
        self.before: dict[int, Any] = {}
        self.environment = {**os.environ, KEYS: str(out / "keys"), "PYTHONUNBUFFERED": "1"}
        out.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Story:
        # A story that is told to end, or whose terminal closes, ends its children too.
        self.before = {number: signal.signal(number, interrupted) for number in (signal.SIGTERM, signal.SIGHUP)}
        return self

    def __exit__(self, *_: object) -> None:
        ours = {**self.before, signal.SIGINT: signal.getsignal(signal.SIGINT)}
        for number in ours:  # a second Ctrl-C must not leave a child behind; each is killed if it takes too long
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(self.children):  # the loop before the board it talks to
            child.end()
        for number, handler in ours.items():
            signal.signal(number, handler)

    # ---- what is read

    def tell(self, text: str) -> None:
        before = "\r\x1b[K" if self.unfinished_line else ""
        self.unfinished_line = False
        self.to.write(f"{before}{text}\n")
        self.to.flush()

    def heading(self, text: str) -> None:
        self.step += 1
        self.tell(f"\n{self.step}/{self.steps}  [{clock(time.monotonic() - self.begun)}]  {text}")

    def progress(self, text: str) -> None:
        """Called often: on a terminal one line that is rewritten, else a line every few seconds."""
        terminal, now = self.to.isatty(), time.monotonic()
        if now - self.shown_at < (TERMINAL_S if terminal else PIPED_S):
            return
        self.shown_at = now
        self.to.write(f"\r\x1b[K     {text}" if terminal else f"     {text}\n")
        self.to.flush()
        self.unfinished_line = terminal

    def command_line(self, words: Sequence[str]) -> None:
        self.tell("     $ edge-dsac " + " ".join(words))

    # ---- what is done

    def do(self, words: Sequence[str], limit_s: float, may_end_with: Sequence[int] = (0,)) -> int:
        """A command to its end; what it says is shown as it says it."""
        self.command_line(words)
        process = subprocess.Popen(
            [*self.command, *words], stdin=subprocess.DEVNULL, stdout=self.to, env=self.environment, start_new_session=True
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise StoryError(f"edge-dsac {' '.join(words)}: not done within {limit_s:g} s; this machine is too busy for the demo") from None
        finally:
            end(process)
        if code not in may_end_with:
            raise StoryError(f"edge-dsac {words[0]} ended with {code}; its message is above")
        return code

    def start(self, name: str, words: Sequence[str], shown: bool = True) -> Child:
        """A command beside the story; its output is NAME.log."""
        if shown:
            self.command_line([*words, "&"])
        child = Child(words, self.environment, self.out / f"{name}.log", self.command)
        self.children.append(child)
        return child

    def until(self, ready: Callable[[], T | None], what: str, limit_s: float, of: Child | None = None, saying: str = "") -> T:
        """What `ready` finds, once it finds something. `of`: whoever has to bring it about, and so must not have ended."""
        begun = time.monotonic()
        while True:
            ended = of is not None and of.code is not None  # before looking: it may have been ready in its last moment
            found = ready()
            if found is not None:
                return found
            if ended and of is not None:
                raise StoryError(f"edge-dsac {of.words[0]} ended with {of.code} before {what}; it said: {of.said()} ({of.log})")
            if time.monotonic() - begun > limit_s:
                raise StoryError(
                    f"{what}: not within {limit_s:g} s" + (f"; edge-dsac {of.words[0]} said: {of.said()} ({of.log})" if of else "")
                )
            if saying:
                self.progress(saying)
            time.sleep(POLL_S)


def interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
