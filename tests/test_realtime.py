"""What is done again, how often, and that it is said."""

import signal
import subprocess
import sys
import time

import pytest

pytest_plugins = ["pytester"]
PLUGIN = """
import sys; sys.path.insert(0, {tests!r})
import realtime
class Seen(realtime.Standstills):
    def __exit__(self, *words):
        super().__exit__(*words)
        self.longest_s = {standstill}
realtime.Standstills = Seen
def pytest_configure(config):
    config.addinivalue_line("markers", "realtime: flies")
    config.pluginmanager.register(realtime.Again())
"""
FLIGHT = """
import pytest
tries = []
@pytest.fixture
def fresh():
    return []
{mark}
def test_it(fresh):
    fresh.append(1)
    assert len(fresh) == 1
    tries.append(1)
    assert len(tries) > {fails}, "fell"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "standstill", "fails", "passed", "again"),
    [
        ("@pytest.mark.realtime", 0.1, 0, True, 0),
        ("@pytest.mark.realtime", 0.1, 1, True, 1),
        ("@pytest.mark.realtime", 0.1, 2, True, 2),
        ("@pytest.mark.realtime", 0.1, 3, False, 2),
        ("@pytest.mark.realtime", 0.001, 1, False, 0),  # the machine ran: it is the test's own failure
        ("", 0.1, 1, False, 0),
    ],
)
def test_a_failure_is_forgiven_only_where_the_machine_stood_still(pytester, request, mark, standstill, fails, passed, again):
    pytester.makeconftest(PLUGIN.format(tests=str(request.path.parent), standstill=standstill))
    pytester.makepyfile(FLIGHT.format(mark=mark, fails=fails))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=int(passed), failed=int(not passed))
    told = [line for line in result.outlines if "done again" in line]
    assert len(told) == again
    assert all("stood still for 100 ms" in line and "fell" in line for line in told)


STOPPED = """
import time
from realtime import Standstills
with Standstills() as seen:
    print("ready", flush=True)
    time.sleep(0.5)
print(seen.longest_s)
"""


@pytest.mark.slow
def test_a_process_that_was_stopped_knows_for_how_long(request):
    child = subprocess.Popen([sys.executable, "-c", STOPPED], cwd=request.path.parent, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    child.send_signal(signal.SIGCONT)
    assert float(child.communicate(timeout=20)[0]) > 0.15
