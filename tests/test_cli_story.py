"""The means a demo is told with: every wait has a limit and a reason, every child is ended, nothing of the user's is touched."""

import io
import os
import signal
import sys
import time

import pytest

from edge_dsac.cli.story import KEYS, Story, StoryError, end

SHELL = ("sh", "-c")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def story_in(folder, to=None):
    return Story(folder / "out", 3, to or io.StringIO(), SHELL)


def to_a_file(folder):
    return (folder / "said").open("w+")


def test_a_command_is_printed_as_a_user_would_type_it(tmp_path):
    with to_a_file(tmp_path) as to:
        assert story_in(tmp_path, to).do(["echo drives; exit 1"], 30.0, may_end_with=(0, 1)) == 1
    assert (tmp_path / "said").read_text() == "     $ edge-dsac echo drives; exit 1\ndrives\n"


def test_a_command_that_fails_ends_the_story(tmp_path):
    with to_a_file(tmp_path) as to, pytest.raises(StoryError, match="ended with 7; its message is above"):
        story_in(tmp_path, to).do(["exit 7"], 30.0)


def test_a_command_that_takes_too_long_is_ended_and_named(tmp_path):
    begun = time.monotonic()
    with to_a_file(tmp_path) as to, pytest.raises(StoryError, match=r"exec sleep 100: not done within 0.05 s"):
        story_in(tmp_path, to).do(["exec sleep 100"], 0.05)
    assert time.monotonic() - begun < 50.0  # it was waited for until it was gone


@pytest.mark.slow
def test_who_does_not_end_when_asked_is_killed(tmp_path):
    story = story_in(tmp_path)
    child = story.start("deaf", ["trap '' TERM; echo listens; while :; do sleep 0.05; done"])
    story.until(lambda: "listens" in child.log.read_text() or None, "it listened", 30.0, child)
    assert end(child.process, 0.1) == -signal.SIGKILL


@pytest.mark.slow
def test_a_wait_for_somebody_who_ended_says_what_he_said(tmp_path):
    story = story_in(tmp_path)
    child = story.start("board", ["echo no such robot; exit 4"])
    with pytest.raises(StoryError, match=r"ended with 4 before the board was ready; it said: no such robot \(.*board.log\)"):
        story.until(lambda: None, "the board was ready", 30.0, child)


@pytest.mark.slow
def test_a_wait_has_a_limit(tmp_path):
    with pytest.raises(StoryError, match=r"the policy drove: not within 0.2 s"):
        story_in(tmp_path).until(lambda: None, "the policy drove", 0.2)


def test_what_was_ready_in_its_last_moment_counts(tmp_path):
    story = story_in(tmp_path)
    child = story.start("quick", ["true"])
    child.process.wait()
    assert story.until(lambda: "there", "it was there", 1.0, child) == "there"


@pytest.mark.parametrize("why", [KeyboardInterrupt, StoryError])
def test_whatever_ends_the_story_ends_its_children(tmp_path, why):
    children = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(why), story_in(tmp_path) as story:  # noqa: PT012
        children += [story.start(name, ["exec sleep 100"]) for name in ("board", "loop")]
        assert all(child.code is None for child in children)
        raise why
    assert [child.code for child in children] == [-signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_story_that_is_told_to_end_ends_as_by_ctrl_c(tmp_path):
    with pytest.raises(KeyboardInterrupt), story_in(tmp_path) as story:  # noqa: PT012
        child = story.start("board", ["exec sleep 100"])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5.0)
    assert child.code == -signal.SIGTERM


@pytest.mark.slow
def test_a_second_signal_leaves_no_child_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), story_in(tmp_path) as story:  # noqa: PT012
        last = story.start(
            "sends one more", [f"trap 'kill -INT {os.getpid()}; kill {os.getpid()}; exit 3' TERM; echo here; while :; do sleep 0.05; done"]
        )
        children = [story.start("board", ["exec sleep 100"]), last]
        story.children.remove(last)
        story.children.append(last)  # ended first
        story.until(lambda: "here" in last.log.read_text() or None, "it listened", 30.0, last)
        raise KeyboardInterrupt
    assert [child.code for child in children] == [-signal.SIGTERM, 3]


def test_keys_are_the_storys_own(tmp_path):
    story = story_in(tmp_path)
    child = story.start("keys", [f"echo ${KEYS}"])
    child.process.wait()
    assert child.log.read_text().strip() == str(tmp_path / "out" / "keys")
    assert os.environ.get(KEYS) != str(tmp_path / "out" / "keys")


def test_piped_progress_is_a_line_now_and_then(tmp_path):
    story = story_in(tmp_path)
    for rows in (1, 2, 3):
        story.progress(f"{rows} rows")
    story.tell("done")
    assert story.to.getvalue() == "     1 rows\ndone\n"


def test_on_a_terminal_progress_is_one_line_that_makes_way_for_what_lasts(tmp_path):
    story = story_in(tmp_path, Terminal())
    story.progress("1 rows")
    story.tell("done")
    story.tell("again")
    assert story.to.getvalue() == "\r\x1b[K     1 rows\r\x1b[Kdone\nagain\n"


def test_steps_are_numbered(tmp_path):
    story = story_in(tmp_path)
    story.heading("it learns")
    story.heading("it drives")
    assert story.to.getvalue() == "\n1/3  [0:00]  it learns\n\n2/3  [0:00]  it drives\n"


def test_the_command_is_this_very_program(tmp_path):
    assert Story(tmp_path, 1).command == (sys.executable, "-m", "edge_dsac.cli.main")
