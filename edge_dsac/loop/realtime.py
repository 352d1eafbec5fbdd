"""Asks the system for real-time behaviour, and reports what it got and what it did not: nothing is assumed."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from dataclasses import dataclass

FIFO_PRIORITY = 80  # above the kernel's threaded interrupts (50): the serial port's own work is tiny
HELPER_PRIORITY = 40  # of a thread in the loop's process: below the loop and the interrupts, above every ordinary process
SWITCH_S = 0.002  # a helper thread waits so long for the loop to sleep before it takes the interpreter away; five are the usual
MCL_CURRENT, MCL_FUTURE = 1, 2
PR_SET_TIMERSLACK = 29


@dataclass(frozen=True, slots=True)
class Grant:
    what: str
    granted: bool
    why: str  # what it gives, or the reason it was refused and what to do


def ask_for_realtime(cpu: int | None = None) -> list[Grant]:
    """For the loop's own process, once, before the first tick."""
    return [ask_fifo(), ask_locked_memory(), ask_timer_slack(), freeze_garbage_collector(), *([pin(cpu)] if cpu is not None else [])]


def ask_fifo() -> Grant:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(FIFO_PRIORITY))  # helpers stay ordinary
    except (PermissionError, AttributeError, OSError) as error:
        return Grant("SCHED_FIFO", False, f"{error}; run as root or give the user an rtprio limit of at least {FIFO_PRIORITY}")
    return Grant("SCHED_FIFO", True, f"priority {FIFO_PRIORITY}")


def ask_not_to_be_starved() -> None:
    """For a helper thread of the loop's process, by itself. While it holds the interpreter the loop waits for it, so an ordinary process
    that keeps it off the processor keeps the loop off too: on a busy machine the loading of a policy cost a whole second of ticks.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(HELPER_PRIORITY))
    except (AttributeError, OSError):
        pass  # then the loop has not got it either, and has said so


def ask_locked_memory() -> Grant:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE) != 0:
        return Grant("mlockall", False, f"{os.strerror(ctypes.get_errno())}; raise the memlock limit")
    return Grant("mlockall", True, "no page of this process is swapped out")


def ask_timer_slack() -> Grant:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0) != 0:
        return Grant("timer slack", False, os.strerror(ctypes.get_errno()))
    return Grant("timer slack", True, "1 ns")


def freeze_garbage_collector() -> Grant:
    """The tick makes no reference cycles (a test counts them), so nothing needs collecting while the loop runs."""
    gc.collect()
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    return Grant("garbage collector", True, "frozen and off")


def pin(cpu: int) -> Grant:
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        return Grant(f"cpu {cpu}", False, f"{error}; this machine has {os.cpu_count()}")
    return Grant(f"cpu {cpu}", True, "pinned")


def release_realtime() -> None:
    """Back to an ordinary process, for the work after the last tick."""
    gc.enable()
    gc.unfreeze()
    ctypes.CDLL(None).munlockall()  # else every page of the work to come is locked as it is first touched, which is slow
    sys.setswitchinterval(0.005)
    if hasattr(os, "SCHED_OTHER") and os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO:
        # The flag stays: only root may take it back, and an ordinary process starts ordinary ones anyway.
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
