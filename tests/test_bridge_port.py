"""Real pseudo-terminals: who may open one, what a vanished one says, what a full one costs, and how a link finds its board again."""

import os

import pytest
from firmware import reference
from firmware.board_in_c import bench_bot

from firmware_bridge import port as port_module
from firmware_bridge.errors import BridgeError, PortBusy, PortGone, PortMissing
from firmware_bridge.framing import Deframer, FrameErrors, Framer
from firmware_bridge.link import SerialLink
from firmware_bridge.messages import LinkEvent, LinkState, MessageId, Role
from firmware_bridge.port import EMPTIES, open_port
from firmware_bridge.session import LinkDown, LinkUp, Session
from firmware_bridge.virtual_mcu import Pty

SPEC = bench_bot()
MS = 1_000_000
FRAME = reference.frame(MessageId.SPEC_TEXT, bytes(range(1, 134)), 0)


@pytest.fixture
def cable(tmp_path):
    cable = Pty(tmp_path / "board")
    cable.plug()
    yield cable
    cable.unplug()


@pytest.fixture
def port(cable):
    port = open_port(str(cable.link), 921_600)
    yield port
    port.close()


def drain(cable):
    return b"".join(iter(cable.read, b""))


def test_bytes_pass_both_ways_unchanged(cable, port):
    """Every value: a terminal that is not raw would eat or double some of them."""
    everything = bytes(range(256))
    assert port.read() == b""
    port.write(everything)
    assert drain(cable) == everything
    assert cable.write(everything) == 0
    assert port.wait(1.0)
    assert port.read() == everything
    assert port.read() == b""
    assert not port.wait(0.0)


def test_a_read_of_nothing_is_a_real_one_only_now_and_then(cable, port, monkeypatch):
    """A real one waits for the kernel's worker."""
    asked = []
    real = os.read
    monkeypatch.setattr("firmware_bridge.port.os.read", lambda fd, size: asked.append(1) or real(fd, size))
    assert [port.read() for _ in range(3 * (EMPTIES + 1))] == [b""] * 3 * (EMPTIES + 1)
    assert len(asked) == 3
    cable.write(b"x")
    assert port.wait(1.0)
    assert port.read() == b"x"
    assert [port.read() for _ in range(EMPTIES)] == [b""] * EMPTIES
    assert len(asked) == 4


def test_what_comes_in_the_moment_after_is_not_left_for_the_next_read(cable, port, monkeypatch):
    def late(seconds):
        assert seconds < 1e-3
        cable.write(b"x")
        assert port.wait(1.0)

    monkeypatch.setattr("firmware_bridge.port.time.sleep", late)
    assert port.read() == b"x"


def test_the_report_says_what_was_got(cable, port):
    assert port.report.path == str(cable.link)
    assert (port.report.baud, port.report.exclusive, port.report.latency_timer_ms) == (921_600, True, None)
    assert port.report.low_latency == "not a UART"


def test_a_second_opener_is_told_that_the_port_is_held(cable, port):
    for path in (str(cable.link), cable.path):  # by either of its names
        with pytest.raises(PortBusy, match="another process holds it") as caught:
            open_port(path, 921_600)
        assert path in str(caught.value)
        assert f"fuser {path}" in str(caught.value)
    port.write(b"still ours")
    assert drain(cable) == b"still ours"


def test_a_closed_port_can_be_opened_again(cable, port):
    port.close()
    again = open_port(str(cable.link), 921_600)
    again.write(b"hello")
    assert drain(cable) == b"hello"
    again.close()


@pytest.mark.parametrize(("present", "said"), [(["/dev/ttyACM0", "/dev/ttyUSB3"], "/dev/ttyACM0, /dev/ttyUSB3"), ([], "none")])
def test_a_missing_device_is_named_beside_those_that_are_present(tmp_path, monkeypatch, present, said):
    monkeypatch.setattr(port_module, "list_ports", lambda: present)
    with pytest.raises(PortMissing) as caught:
        open_port(str(tmp_path / "ttyUSB9"), 921_600)
    assert str(caught.value) == f"{tmp_path}/ttyUSB9: no such device; present: {said}"


def test_a_file_that_is_no_terminal_is_a_named_error(tmp_path):
    (tmp_path / "notes").write_text("not a port")
    with pytest.raises(BridgeError, match="cannot be opened at 921600 baud"):
        open_port(str(tmp_path / "notes"), 921_600)


def test_every_port_error_is_of_one_family():
    assert all(issubclass(error, BridgeError) and issubclass(error, OSError) for error in (PortBusy, PortGone, PortMissing))


def test_a_port_whose_other_end_went_away_is_gone(cable, port):
    path = str(cable.link)
    cable.unplug()
    with pytest.raises(PortGone, match=f"{path}: .*check cable and power"):
        port.read()
    with pytest.raises(PortGone, match=f"{path}: .*check cable and power"):
        port.write(b"anybody?")
    port.close()
    port.close()


def test_a_port_that_we_closed_is_gone_too(port):
    port.close()
    with pytest.raises(PortGone):
        port.read()
    with pytest.raises(PortGone):
        port.write(b"x")


def fill(port, frame):
    """Until nobody takes any more; how many were taken whole. 2000 frames are more than a pty could hold."""
    before = port.short_writes
    for number in range(2000):
        port.write(frame)
        if port.short_writes > before:
            return number
    raise AssertionError("2000 frames and never full")


def test_a_full_output_buffer_is_counted_and_does_not_block(cable, port):
    taken = fill(port, FRAME)
    for _ in range(100):
        port.write(FRAME)
    lost = port.short_writes
    assert lost > 90  # the kernel moves bytes when it likes, and then there is room for a few
    assert len(Deframer(SPEC).feed(drain(cable))) == taken + 101 - lost


def torn_frames(port, cable, dropped_too):
    """What arrived, and how many whole frames were in it, wherever the kernel tore the last: it moves bytes when it likes, so not each filling
    ends in a torn frame, and room may come up again for one of those that are to be lost."""
    for length in range(22, 60):
        taken = fill(port, FRAME[:length] + b"\0")
        lost = port.short_writes + dropped_too
        for _ in range(dropped_too):
            port.write(FRAME[:length] + b"\0")
        received = drain(cable)
        if port.short_writes == lost and received[-1:] != b"\0" and received.count(b"\0") == taken:
            yield received, taken


@pytest.mark.parametrize("dropped_too", [0, 3])
def test_a_torn_frame_costs_itself_only(cable, port, dropped_too):
    """The kernel takes the beginning of the last frame. The next one that fits is led by a delimiter, so it arrives."""
    deframer, framer, seen = Deframer(SPEC), Framer(SPEC), 0
    for received, taken in torn_frames(port, cable, dropped_too):
        seen += 1
        deframer.errors = FrameErrors()
        assert deframer.feed(received) == []
        assert deframer.errors.total == taken
        port.write(framer.frame(MessageId.ESTOP))
        port.write(framer.frame(MessageId.DISARM))
        assert [packet.message for packet in deframer.feed(drain(cable))] == [MessageId.ESTOP, MessageId.DISARM]
        assert deframer.errors.total == taken + 1  # the torn one
    assert seen >= 3, "this kernel hardly ever tears: the test has shown nothing"


def test_a_frame_that_was_not_torn_is_not_led_by_a_delimiter(cable, port):
    port.write(FRAME)
    port.write(FRAME)
    assert drain(cable) == FRAME + FRAME


# SerialLink: the clock is the test's, the pty and the board's session are real.


class Reunion:
    def __init__(self, cable):
        self.cable, self.now_ns = cable, 50_000 * MS
        self.link = SerialLink(SPEC, lambda: open_port(str(cable.link), 921_600), clock=lambda: self.now_ns, session_id=7)
        self.reboot(1)

    def reboot(self, session):
        self.board, self.ear = Session(SPEC, Role.BOARD, session), Deframer(SPEC)

    def live(self, milliseconds):
        """Both sides, a millisecond at a time."""
        for _ in range(milliseconds):
            self.now_ns += MS
            for packet in self.ear.feed(self.cable.read()):
                self.board.receive(packet, self.now_ns)
            for data in self.board.poll(self.now_ns):
                self.cable.write(data)
            self.link.receive()
            self.link.reopen_if_gone(self.now_ns)


@pytest.fixture
def reunion(cable):
    reunion = Reunion(cable)
    yield reunion
    reunion.link.close()


def test_a_link_whose_port_vanished_says_so_and_raises_nothing(cable, reunion):
    reunion.live(20)
    assert reunion.link.events() == [LinkUp("bench_bot")]
    cable.unplug()
    assert reunion.link.receive() is None
    assert reunion.link.state == LinkState.DOWN
    assert reunion.link.events() == [LinkDown(LinkEvent.PORT_GONE)]
    assert "check cable and power" in reunion.link.last_error
    reunion.link.request_arm()
    reunion.link.request_estop()
    assert reunion.link.receive() is None
    assert not reunion.link.wait(0.0)


def test_a_port_that_vanishes_while_writing_is_the_same(cable, reunion):
    reunion.live(20)
    reunion.link.events()
    cable.unplug()
    reunion.link.request_disarm()
    assert reunion.link.events() == [LinkDown(LinkEvent.PORT_GONE)]


def test_it_is_tried_every_200_ms_and_is_up_again_with_the_board(cable, reunion):
    reunion.live(20)
    reunion.link.events()
    cable.unplug()
    reunion.live(1000)
    assert reunion.link.events() == [LinkDown(LinkEvent.PORT_GONE)]
    assert reunion.link.reopen_tries == 4  # the first 200 ms after it was lost, a millisecond into this second
    assert reunion.link.reconnects == 0
    assert "no such device" in reunion.link.last_error
    cable.plug()
    reunion.live(250)
    assert reunion.link.reconnects == 1
    assert reunion.link.is_up()
    assert [type(event) for event in reunion.link.events()] == [LinkUp]
    assert reunion.link.counters()["frame_errors"] == dict.fromkeys(reference.ERRORS, 0)


def test_half_a_frame_of_the_old_port_is_not_glued_to_the_new_one(cable, reunion):
    reunion.live(20)
    cable.write(FRAME[:50])
    reunion.live(1)
    cable.unplug()
    reunion.live(1)
    cable.plug()
    reunion.live(450)
    assert reunion.link.is_up()
    assert sum(reunion.link.counters()["frame_errors"].values()) == 0


def test_a_port_that_somebody_else_took_meanwhile_is_waited_for(cable, reunion):
    reunion.live(20)
    cable.unplug()
    reunion.live(1)
    cable.plug()
    thief = open_port(str(cable.link), 921_600)
    reunion.live(250)
    assert "another process holds it" in reunion.link.last_error
    thief.close()
    reunion.live(250)
    assert reunion.link.is_up()


def test_the_first_opening_s_error_is_the_caller_s(tmp_path):
    with pytest.raises(PortMissing):
        SerialLink(SPEC, lambda: open_port(str(tmp_path / "none"), 921_600))
