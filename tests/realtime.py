"""Tests that fly in real time, on a machine that others use too.

A machine that stands still for longer than a board is patient ends a flight, rightly. So a `realtime` test that failed while this process
saw such a standstill is done again, twice at most, and the summary says so; one that fails on a machine that ran has failed.
"""

import threading
import time

import pytest
from _pytest.runner import runtestprotocol

TRIES = 3
STANDSTILL_S = 0.025  # half a board's patience: the loop's process may have stood longer than this one
LOOK_S = 0.002


class Standstills:
    """The longest time for which a thread that only sleeps was not woken."""

    def __enter__(self):
        self.longest_s, self.over = 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self):
        last = time.monotonic()
        while not self.over.wait(LOOK_S):
            now = time.monotonic()
            self.longest_s, last = max(self.longest_s, now - last - LOOK_S), now

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


class Again:
    def __init__(self):
        self.told = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        if item.get_closest_marker("realtime") is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for number in range(1, TRIES + 1):
            item._initrequest()  # fixtures of its own for every try
            with Standstills() as seen:
                reports = runtestprotocol(item, log=False, nextitem=nextitem)
            if number == TRIES or seen.longest_s < STANDSTILL_S or not any(report.failed for report in reports):
                break
            failed = next(report for report in reports if report.failed)
            why = getattr(failed.longrepr, "reprcrash", None)
            said = why.message.splitlines()[0] if why else failed.when
            self.told.append(
                f"{item.nodeid}: done again, as the machine stood still for {seen.longest_s * 1e3:.0f} ms while it failed: {said}"
            )
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_terminal_summary(self, terminalreporter):
        for line in self.told:
            terminalreporter.write_line(line, yellow=True)
