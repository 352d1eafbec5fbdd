"""The mode table: what may lead where, checked as a whole and by its rules."""

import itertools

import pytest

from edge_dsac.loop.modes import MODES, MOVING, ModeKeeper
from edge_dsac.records import Event, Mode

OPERATORS = {Event.BOARD_ARMED, Event.STOP, Event.CLEAR, Event.EMERGENCY}


def test_only_an_operator_leads_out_of_damped_but_into_fault():
    for (mode, event), following in MODES.items():
        if mode == Mode.DAMPED:
            assert event in OPERATORS or following == Mode.FAULT


def test_only_a_clear_leads_out_of_fault_and_only_to_the_beginning():
    ways = {event: following for (mode, event), following in MODES.items() if mode == Mode.FAULT}
    assert ways == {Event.CLEAR: Mode.BOOT, Event.EMERGENCY: Mode.ESTOP}


def test_nothing_leads_out_of_an_emergency_stop():
    assert not [key for key in MODES if key[0] == Mode.ESTOP]


def test_every_way_into_running_goes_through_an_armed_board():
    sources = {mode for (mode, _), following in MODES.items() if following == Mode.RUNNING}
    assert sources == {Mode.ARMED, Mode.COASTING}
    assert {mode for (mode, _), following in MODES.items() if following == Mode.ARMED} == {Mode.IDLE, Mode.DAMPED}
    assert {event for (_, event), following in MODES.items() if following == Mode.ARMED} == {Event.BOARD_ARMED}


@pytest.mark.parametrize(
    "event",
    [Event.LINK_DOWN, Event.BOARD_FAULT, Event.BOARD_STOPPED_OBEYING, Event.LOG_FULL, Event.LOOP_ERROR, Event.STOP, Event.EMERGENCY],
)
@pytest.mark.parametrize("mode", sorted(MOVING))
def test_every_bad_event_ends_motion(mode, event):
    keeper = ModeKeeper(mode)
    assert keeper.on(event)
    assert keeper.mode not in MOVING
    assert keeper.because == event


def test_a_pair_that_is_not_in_the_table_changes_nothing():
    for mode, event in itertools.product(Mode, Event):
        keeper = ModeKeeper(mode)
        changed = keeper.on(event)
        assert changed == ((mode, event) in MODES)
        assert changed or (keeper.mode == mode and keeper.changes == 0)


def test_every_mode_can_be_reached():
    reached, edge = {Mode.BOOT}, {Mode.BOOT}
    while edge:
        edge = {following for (mode, _), following in MODES.items() if mode in edge} - reached
        reached |= edge
    assert reached == set(Mode)
