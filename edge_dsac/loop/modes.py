"""The host's modes as one written table: who may leave which mode, and how. Nothing else changes the mode.

Knows no link and no clock; the loop turns what it sees into events. A pair that is not in the table changes nothing.
Rule that must stay true: only an operator's event leads out of DAMPED, FAULT or ESTOP, and nothing leads out of ESTOP.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_dsac.records import Event, Mode

M, E = Mode, Event

MODES: dict[tuple[Mode, Event], Mode] = {
    (M.BOOT, E.LINK_UP): M.IDLE,
    (M.BOOT, E.LINK_REFUSED): M.FAULT,
    (M.IDLE, E.LINK_DOWN): M.BOOT,
    (M.IDLE, E.LINK_REFUSED): M.FAULT,
    (M.IDLE, E.BOARD_ARMED): M.ARMED,
    (M.IDLE, E.BOARD_FAULT): M.FAULT,
    (M.ARMED, E.FRAME_FRESH): M.RUNNING,
    (M.ARMED, E.COAST_EXHAUSTED): M.DAMPED,
    (M.ARMED, E.BOARD_STOPPED_OBEYING): M.DAMPED,
    (M.ARMED, E.BOARD_FAULT): M.FAULT,
    (M.ARMED, E.LINK_DOWN): M.DAMPED,
    (M.ARMED, E.LINK_REFUSED): M.FAULT,
    (M.ARMED, E.LOG_FULL): M.DAMPED,
    (M.ARMED, E.STOP): M.IDLE,
    (M.RUNNING, E.FRAME_MISSING): M.COASTING,
    (M.RUNNING, E.BOARD_STOPPED_OBEYING): M.DAMPED,
    (M.RUNNING, E.BOARD_FAULT): M.FAULT,
    (M.RUNNING, E.LINK_DOWN): M.DAMPED,
    (M.RUNNING, E.LINK_REFUSED): M.FAULT,
    (M.RUNNING, E.LOG_FULL): M.DAMPED,
    (M.RUNNING, E.STOP): M.IDLE,
    (M.RUNNING, E.COAST_EXHAUSTED): M.DAMPED,  # where max_coast_ticks is 0
    (M.COASTING, E.FRAME_FRESH): M.RUNNING,
    (M.COASTING, E.COAST_EXHAUSTED): M.DAMPED,
    (M.COASTING, E.BOARD_STOPPED_OBEYING): M.DAMPED,
    (M.COASTING, E.BOARD_FAULT): M.FAULT,
    (M.COASTING, E.LINK_DOWN): M.DAMPED,
    (M.COASTING, E.LINK_REFUSED): M.FAULT,
    (M.COASTING, E.LOG_FULL): M.DAMPED,
    (M.COASTING, E.STOP): M.IDLE,
    (M.DAMPED, E.BOARD_ARMED): M.ARMED,
    (M.DAMPED, E.BOARD_FAULT): M.FAULT,
    (M.DAMPED, E.LINK_REFUSED): M.FAULT,
    (M.DAMPED, E.STOP): M.IDLE,
    (M.FAULT, E.CLEAR): M.BOOT,
    **{(mode, E.LOOP_ERROR): M.FAULT for mode in M if mode not in (M.FAULT, M.ESTOP)},
    **{(mode, E.EMERGENCY): M.ESTOP for mode in M if mode != M.ESTOP},
}

MOVING = frozenset({Mode.RUNNING, Mode.COASTING})  # the only modes in which a command is sent


@dataclass(slots=True)
class ModeKeeper:
    """The one owner of the mode. `because` is the event that led here."""

    mode: Mode = Mode.BOOT
    because: Event = Event.LINK_DOWN
    changes: int = 0

    def on(self, event: Event) -> bool:
        """True if the mode changed."""
        following = MODES.get((self.mode, event))
        if following is None:
            return False
        self.mode, self.because = following, event
        self.changes += 1
        return True
