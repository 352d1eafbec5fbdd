"""The generated headers: fresh, complete, exact, and right for robots that do not ship."""

import re
import struct
from dataclasses import replace

import pytest
from firmware import reference
from firmware.board_in_c import BenchBoard, bench_bot

from edge_dsac.records import Fault
from edge_dsac.spec.robot import load_robot, shipped_robots
from firmware_bridge import build
from firmware_bridge.build import build_host_library, build_qemu_image
from firmware_bridge.errors import BuildFailed
from firmware_bridge.header import c_float, c_string, generated_files, make_messages_header, make_robot_header
from firmware_bridge.messages import LINK_TABLE, MESSAGES, LinkEvent, LinkState, MessageId
from firmware_bridge.session import facts_text


@pytest.mark.parametrize("path", generated_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_committed_headers_are_what_the_tables_and_robot_files_make(path):
    assert path.read_text() == generated_files()[path], f"{path} is stale: python -m firmware_bridge.header --write"


def test_every_shipped_robot_has_a_committed_header():
    assert {path.parent.name for path in generated_files()} == {"generated", *shipped_robots()}


def test_header_holds_every_message_with_its_size_by_hand():
    text = make_messages_header()
    for message in MessageId:
        assert f"    MSG_{message.name} = {int(message)},\n" in text
    sizes = dict(re.findall(r"_Static_assert\(sizeof\(struct msg_(\w+)\) == ([^,]+),", text))
    for joints, extras in ((1, 0), (2, 1), (12, 5)):
        for number, size in reference.sizes(joints, extras).items():
            expression = sizes.get(MessageId(number).name.lower(), "0").replace("JOINTS", str(joints)).replace("EXTRAS", str(extras))
            assert eval(expression, {}) == size  # an expression of two products that this very file has matched
    assert len(sizes) == sum(bool(table) for table in MESSAGES.values())


def test_header_holds_the_link_table_and_a_pair_that_is_not_in_it_stays():
    rows = re.search(r"LINK_NEXT\[4\]\[5\] = \{\n(.*?)\n\};", make_messages_header(), re.DOTALL).group(1).splitlines()
    for state, row in zip(LinkState, rows, strict=True):
        names = re.findall(r"LINK_(\w+)", row)
        assert names == [LINK_TABLE.get((state, event), state).name for event in LinkEvent]


def test_header_holds_every_fault_bit_with_no_fault_among_them():
    text = make_messages_header()
    assert "    FAULT_NONE = 0,\n" in text
    for fault in Fault:
        assert f"    FAULT_{fault.name} = {int(fault)},\n" in text


@pytest.mark.parametrize("value", [0.0, 1.0, 60.0, 1e-6, 1e6, 1 / 3754.94, 0.1, 123456789.0, 3.2])
def test_a_number_in_c_is_the_nearest_float_to_the_robot_file_s(value):
    text = c_float(value)
    assert text.endswith("f")
    assert "." in text or "e" in text  # `60f` is not C
    assert struct.pack("<f", float(text[:-1])) == struct.pack("<f", value)


def test_a_text_in_c_keeps_quotes_newlines_and_what_looks_like_a_trigraph():
    assert c_string('a "b" \\ ??/\n') == '"a \\"b\\" \\\\ \\?\\?/\\n"'


def test_a_changed_fact_changes_fingerprint_seed_and_text_of_the_header():
    spec = bench_bot()
    other = replace(spec, battery=replace(spec.battery, cutoff_v=8.5))
    ours, theirs = make_robot_header(spec), make_robot_header(other)
    for name in ("BATTERY_CUTOFF_RAW", "CLOSED_SEED", "FIRMWARE_FINGERPRINT"):
        line = re.compile(rf"^.*{name}.*$", re.MULTILINE)
        assert line.search(ours).group() != line.search(theirs).group()
    assert '"battery.cutoff_v = 8.5\\n"' in theirs


def test_header_of_bench_bot_has_the_numbers_of_its_file():
    text = make_robot_header(bench_bot())
    for line in (
        "#define JOINTS 2", "#define EXTRAS 1", "#define TICKS_PER_SENSOR 5", "#define COMMAND_TIMEOUT_US 60000", "#define BATTERY_CUTOFF_RAW 9000",
        "#define BAD_SENSOR_TICKS 20", "#define TILT_LIMIT_RAD 0.8f", "#define BALANCE_RAD 0.02f", "static const float JOINT_SIGN[2] = {1.0f, -1.0f};",
        "static const uint8_t IMU_AXIS[3] = {1, 0, 2};", "static const float IMU_SIGN[3] = {1.0f, -1.0f, 1.0f};",
        "static const float COMMAND_LIMIT[2] = {0.9f, 0.9f};",
    ):  # fmt: skip
        assert line in text


# Building.


def test_a_second_build_is_the_first_one_and_another_robot_is_another(tmp_path, monkeypatch):
    first = build_host_library(bench_bot())
    changed = replace(bench_bot(), battery=replace(bench_bot().battery, cutoff_v=8.5))
    monkeypatch.setattr(build.subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert build_host_library(bench_bot()) == first
    with pytest.raises(pytest.fail.Exception, match="compiled again"):
        build_host_library(changed, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.suffix] == []  # nothing half-built stays


def test_the_cache_follows_xdg_cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / "edge_dsac"


def test_without_zig_the_error_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BuildFailed, match="pip install"):
        build_host_library(bench_bot(), tmp_path)


@pytest.mark.slow
def test_a_build_that_fails_shows_the_compiler_s_words_and_the_command(tmp_path):
    with pytest.raises(BuildFailed, match=r"(?s)firmware of bench_bot: x.so does not compile:.*missing\.c.*the command was: .*ziglang cc"):
        build.build(bench_bot(), "x.so", ("missing.c",), build.HOST_FLAGS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def odd_robots():
    spec = bench_bot()
    damped = replace(spec.safety, fallback="damp")
    wheel = replace(spec.joints[0], command_unit="torque_nm", command_limit=3.5)
    many = tuple(replace(wheel, name=f"joint_{i}") for i in range(12))
    yield replace(spec, model="one_wheel", joints=(wheel,), extras=(), imu=None, drive=None, balance_pd=None, safety=damped)
    yield replace(spec, model="twelve", joints=many, extras=spec.extras * 7, drive=None, balance_pd=None, safety=damped)
    yield replace(spec, model="no_cutoff", battery=replace(spec.battery, cutoff_v=0.0))
    yield replace(spec, model="slow_board", rates=replace(spec.rates, board_hz=200, sensor_hz=200))


@pytest.mark.slow
@pytest.mark.parametrize("spec", list(odd_robots()), ids=lambda spec: spec.model)
def test_robots_that_do_not_ship_compile_and_run(spec, tmp_path):
    board = BenchBoard(spec, build_host_library(spec, tmp_path))
    board.raw_sensors()
    board.greet().run(20)
    assert board.telemetry["counts"] == [0] * len(spec.joints)
    assert board.arm() == 0
    assert build_qemu_image(spec, tmp_path).stat().st_size > 4000


@pytest.mark.slow
def test_a_robot_that_does_not_fit_one_packet_is_refused_by_name(tmp_path):
    spec = bench_bot()
    with pytest.raises(BuildFailed, match="more joints and extras than one packet holds"):
        build_host_library(replace(spec, extras=spec.extras * 120), tmp_path)


@pytest.mark.parametrize("model", shipped_robots())
def test_the_facts_a_board_can_tell_are_whole(model):
    spec = load_robot(model)
    lines = re.findall(r'^    "(.*)"$', make_robot_header(spec).split("SPEC_TEXT[] =")[1], re.MULTILINE)
    text = "".join(line.replace("\\n", "\n").replace('\\"', '"').replace("\\?", "?").replace("\\\\", "\\") for line in lines)
    assert text.encode() == facts_text(spec.firmware_facts)
