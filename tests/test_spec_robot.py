"""The robot file: what is good loads, what is not says where, what was expected, what was found and what to do."""

import ast
import dataclasses
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from edge_dsac.spec.layout import TERMS, ActionLayout, ObservationLayout
from edge_dsac.spec.robot import RobotSpec, load_robot, robot_from_text, shipped_robots
from edge_dsac.spec.schema import UNITS, SpecError, without_unit

ROOT = Path(__file__).parents[1]


def edited(spec, old, new):
    """The robot file with one place changed: the first that is written so."""
    assert old in spec.text, f"the robot file has no {old!r}: this test is out of date"
    return spec.text.replace(old, new, 1)


def complaint(text):
    with pytest.raises(SpecError) as error:
        robot_from_text(text, "here.toml")
    return str(error.value)


# ---- what is good ----


def test_the_shipped_robots_load_and_are_named_like_their_files():
    assert shipped_robots() == ["balance_bot", "rover"]
    for name in shipped_robots():
        assert load_robot(name).model == name


def test_balance_bot_says_what_its_file_says(bot):
    assert [joint.name for joint in bot.joints] == ["left_wheel", "right_wheel"]
    assert [joint.sign for joint in bot.joints] == [1, -1]
    assert bot.actions[1].mix == (-0.2, 0.2)
    assert (bot.rates.control_hz, bot.rates.command_timeout_ms, bot.link.baud) == (100, 60, 921600)
    assert (bot.imu.axes, bot.safety.fallback, bot.extras, bot.pure_pursuit) == (("+x", "+y", "+z"), "balance_pd", (), None)
    assert bot.observations[0].history == 1  # not in the file: the default
    assert bot.rewards[0].width == 1.0


def test_a_robot_can_be_named_by_the_path_of_its_file(bot, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(bot.text)
    loaded = load_robot(str(path))
    assert loaded == bot
    assert loaded.folder == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("balance_bott", "robot 'balance_bott' is not known; did you mean 'balance_bot'?"),
        ("quadcopter", "shipped: balance_bot, rover; or give the path of a .toml file"),
        ("./nowhere.toml", "nowhere.toml: cannot be read: .*No such file.*give a model name or the path of a robot file"),
        ("./", "cannot be read"),
    ],
)
def test_a_robot_that_is_not_there_is_a_named_error(name, said):
    with pytest.raises(SpecError, match=said):
        load_robot(name)


def test_a_robot_file_that_is_no_text_is_a_named_error(tmp_path):
    (tmp_path / "photo.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(SpecError, match=r"photo\.toml: cannot be read: .*give a model name"):
        load_robot(str(tmp_path / "photo.toml"))


def test_whole_numbers_may_stand_for_fractions(bot):
    assert robot_from_text(edited(bot, "wheel_radius_m = 0.04", "wheel_radius_m = 1")).drive.wheel_radius_m == 1.0


# ---- what is broken: (robot, old, new, key, expected, got, advice, the line that is named if it is not the changed one) ----

SAME = None
BROKEN = [
    # keys
    ("bot", "filter_s = 0.5", "filter_s = 0.5\ncolour = 3", "imu.colour", "a known key", "'colour'", "known keys: gyro_lsb", "colour = 3"),
    ("bot", "track_m = 0.17", "trak_m = 0.17", "drive.trak_m", "a known key", "'trak_m'", "did you mean 'track_m'?", SAME),
    ("bot", "[battery]", "[batery]", "batery", "a known key", "'batery'", "did you mean 'battery'?", SAME),
    ("bot", "[[rewards]]", "[[reward]]", "reward", "a known key", "'reward'", "did you mean 'rewards'?", SAME),
    ("bot", "clip = 1.0", "clip = 1.0\nweight = 2.0", "observations[0].weight", "a known key", "'weight'", "known keys: term, scale", "weight = 2.0"),
    ("bot", 'mjcf = "balance_bot.xml"', 'mjcf = "a.xml"\ntext = "x"', "text", "a known key", "'text'", "", 'text = "x"'),
    ("bot", 'mjcf = "balance_bot.xml"', 'mjcf = "a.xml"\nfolder = "/"', "folder", "a known key", "'folder'", "", 'folder = "/"'),
    # units
    ("bot", "wheel_radius_m = 0.04", "wheel_radius_mm = 40", "drive.wheel_radius_mm", "the key 'wheel_radius_m'", "'wheel_radius_mm'", "wrong unit: convert", SAME),
    ("bot", "tilt_limit_rad = 0.80", "tilt_limit_deg = 45.8", "safety.tilt_limit_deg", "the key 'tilt_limit_rad'", "'tilt_limit_deg'", "wrong unit", SAME),
    ("bot", "command_timeout_ms = 60", "command_timeout_s = 0.06", "rates.command_timeout_s", "the key 'command_timeout_ms'", "'command_timeout_s'", "wrong unit", SAME),
    ("bot", "nominal_v = 11.1", "nominal_mv = 11100", "battery.nominal_mv", "the key 'nominal_v'", "'nominal_mv'", "wrong unit", SAME),
    ("bot", "control_hz = 100", "control_khz = 0.1", "rates.control_khz", "the key 'control_hz'", "'control_khz'", "wrong unit", SAME),
    # missing
    ("bot", "track_m = 0.17\n", "", "drive.track_m", "a value (distance between the wheels' contact points)", "nothing", "add the key", "[drive]"),
    ("bot", 'model = "balance_bot"\n', "", "model", "a value (name of the robot", "nothing", "add the key", ""),
    ("bot", "[link]\nbaud = 921600", "", "link", "a value (the serial link)", "nothing", "add the key", ""),
    ("bot", "sign = 1\n", "", "joints[0].sign", "a value (-1 where", "nothing", "add the key", "[[joints]]"),
    ("rover", "lsb_per_unit = 1000.0\n", "", "extras[0].lsb_per_unit", "a value (counts per unit)", "nothing", "add the key", "[[extras]]"),
    # types
    ("bot", "sensor_hz = 200", "sensor_hz = 200.0", "rates.sensor_hz", "a value of type int", "200.0", "", SAME),
    ("bot", "filter_s = 0.5", 'filter_s = "0.5"', "imu.filter_s", "a value of type float", "'0.5'", "", SAME),
    ("bot", "filter_s = 0.5", "filter_s = true", "imu.filter_s", "a value of type float", "True", "", SAME),
    ("bot", "wheels_tilt_with_body = true", "wheels_tilt_with_body = 1", "drive.wheels_tilt_with_body", "a value of type bool", "1", "", SAME),
    ("bot", "mix = [0.8, 0.8]", "mix = 0.8", "actions[0].mix", "a list", "0.8", "", SAME),
    ("bot", "[link]\nbaud = 921600", "", "link", "a table", "921600", "", "link = 921600"),
    ("bot", "sign = 1\n", "sign = true\n", "joints[0].sign", "one of 1, -1", "True", "", SAME),
    ("bot", "sign = 1\n", "sign = 1.0\n", "joints[0].sign", "one of 1, -1", "1.0", "", SAME),
    # values
    ("bot", "filter_s = 0.5", "filter_s = nan", "imu.filter_s", "0.01 to 10 (time constant", "nan", "", SAME),
    ("bot", "filter_s = 0.5", "filter_s = inf", "imu.filter_s", "0.01 to 10 (time constant", "inf", "", SAME),
    ("bot", "baud = 921600", "baud = 300", "link.baud", "9600 to 1.2e+07 (UART bits per second)", "300", "", SAME),
    ("bot", "baud = 921600", f"baud = 1{'0' * 400}", "link.baud", "9600 to 1.2e+07", "1000", "", SAME),
    ("bot", "filter_s = 0.5", f"filter_s = 1{'0' * 400}", "imu.filter_s", "0.01 to 10", "1000", "", SAME),
    ("bot", "sign = -1", "sign = 2", "joints[1].sign", "one of 1, -1", "2", "", SAME),
    ("bot", 'command_unit = "duty"', 'command_unit = "duti"', "joints[0].command_unit", "one of 'duty', 'torque_nm'", "'duti'", "did you mean 'duty'?", SAME),
    ("bot", 'fallback = "balance_pd"', 'fallback = "balance"', "safety.fallback", "one of 'damp', 'balance_pd'", "'balance'", "did you mean 'balance_pd'?", SAME),
    ("bot", 'axes = ["+x", "+y", "+z"]', 'axes = ["+x", "+y"]', "imu.axes", "3 entries", "2", "", SAME),
    ("bot", 'axes = ["+x", "+y", "+z"]', 'axes = ["+x", "+y", "z"]', "imu.axes[2]", "one of '+x'", "'z'", "did you mean", SAME),
    ("bot", "mix = [0.8, 0.8]", "mix = [0.8, 1.8]", "actions[0].mix[1]", "-1 to 1 (one factor per joint", "1.8", "", SAME),
    # names
    ("bot", 'model = "balance_bot"', 'model = "balance bot"', "model", "a name of letters, digits and _", "'balance bot'", "", SAME),
    ("bot", 'model = "balance_bot"', 'model = "balance_bot_mark2"', "model", "at most 15", "'balance_bot_mark2'", "", SAME),
    ("bot", 'name = "right_wheel"', 'name = "left_wheel"', "joints[1].name", "a name used once", "'left_wheel' a second time", "rename or remove one", "sign = -1"),
    ("bot", 'name = "differential" ', 'name = "common" ', "actions[1].name", "a name used once", "'common' a second time", "rename", "# positive turns left"),
    ("bot", 'term = "pitch_rate_rad_s"', 'term = "pitch_rad"', "observations[1].term", "a name used once", "'pitch_rad' a second time", "rename", "scale = 0.5"),
    ("rover", 'name = "radar_y_m"', 'name = "radar_x_m"', "extras[1].name", "a name used once", "'radar_x_m' a second time", "rename", "radar 1"),
    # rates
    ("bot", "sensor_hz = 200", "sensor_hz = 150", "rates.sensor_hz", "a multiple of control_hz (100)", "150", "choose rates that divide", SAME),
    ("bot", "board_hz = 1000", "board_hz = 500", "rates.board_hz", "a multiple of sensor_hz (200)", "500", "choose rates that divide", SAME),
    ("bot", "command_timeout_ms = 60", "command_timeout_ms = 19", "rates.command_timeout_ms", "at least 20 (two control periods)", "19", "one late command must not", SAME),
    ("bot", "max_coast_ticks = 4", "max_coast_ticks = 7", "rates.max_coast_ticks", "at most 6 (rates.command_timeout_ms)", "7", "the host may not coast", SAME),
    ("bot", "baud = 921600", "baud = 57600", "link.baud", "for 200 telemetry frames a second", "57600", "raise the baud rate or lower sensor_hz", SAME),
    # limits that contradict one another
    ("bot", "command_limit = 1.0", "command_limit = 1.5", "joints[0].command_limit", "at most 1 for command_unit duty", "1.5", "", SAME),
    ("bot", "overspeed_rad_s = 60.0", "overspeed_rad_s = 40.0", "joints[0].overspeed_rad_s", "more than velocity_limit_rad_s (40)", "40", "must not be a fault", SAME),
    ("bot", "tilt_arm_rad = 0.35", "tilt_arm_rad = 0.9", "safety.tilt_arm_rad", "less than tilt_limit_rad (0.8)", "0.9", "", SAME),
    ("bot", "cutoff_v = 9.0", "cutoff_v = 11.1", "battery.cutoff_v", "less than nominal_v (11.1)", "11.1", "", SAME),
    ("rover", 'fallback = "damp"', 'fallback = "balance_pd"', "safety.fallback", "the tables balance_pd, drive and imu", "a robot without them", 'set fallback = "damp"', SAME),
    ("bot", 'axes = ["+x", "+y", "+z"]', 'axes = ["+x", "+y", "-x"]', "imu.axes", "x, y and z once each", "['+x', '+y', '-x']", "", SAME),
    ("bot", "mix = [0.8, 0.8]", "mix = [0.8]", "actions[0].mix", "2 factors, one per joint", "1", "", SAME),
    ("bot", "mix = [-0.2, 0.2]", "mix = [0.4, 0.4]", "actions", "independent parts", "a mix that maps different actions to the same command", "could not be recovered", "[[actions]]"),
    # observations
    ("bot", 'term = "yaw_rate_rad_s"', 'term = "yaw_rate"', "observations[3].term", "a known term", "'yaw_rate'", "did you mean 'yaw_rate_rad_s'?", SAME),
    ("bot", 'term = "yaw_rate_rad_s"', 'term = "moon_phase"', "observations[3].term", "a known term", "'moon_phase'", "known terms: pitch_rad", SAME),
    ("bot", 'term = "yaw_rate_rad_s"', 'term = "obstacle"', "observations[3].term", "extras.radar_x_m in the robot file", "nothing", "obstacle needs it", SAME),
    ("bot", "history = 2", "history = 65", "observations[7].history", "1 to 64 (how many ticks", "65", "", SAME),
]  # fmt: skip


def line_number(text, wanted):
    return next(i for i, line in enumerate(text.splitlines(), 1) if wanted in line)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("robot", "old", "new", "key", "expected", "got", "advice", "named"), BROKEN, ids=[f"{row[3]}-{i}" for i, row in enumerate(BROKEN)]
)
def test_a_broken_robot_file_is_named_with_line_key_expected_and_got(request, robot, old, new, key, expected, got, advice, named):
    spec = request.getfixturevalue(robot)
    text = edited(spec, old, new)
    if named == "link = 921600":  # a value where a table should be must stand before the first table
        text = "link = 921600\n" + text
    said = complaint(text)
    place, _, rest = said.partition(": ")
    assert rest.startswith(f"{key}: expected "), said
    _, _, tail = rest.partition(": expected ")
    assert expected in tail, said
    assert f", got {got}" in tail, said
    assert advice in said
    assert len(said) < 1500
    if named is SAME:
        assert place == f"here.toml:{line_number(text, new.strip())}", said
    elif named == "radar 1":
        assert place == f"here.toml:{[i for i, line in enumerate(text.splitlines(), 1) if 'radar_x_m' in line][1]}", said
    elif key.endswith(("joints[1].name", "observations[1].term")):
        assert place == f"here.toml:{line_number(text, named) - 1}", said  # the line above, whose text stands twice
    elif named:
        assert place == f"here.toml:{line_number(text, named)}", said
    else:
        assert place == "here.toml"  # nothing there to point at


def test_every_broken_file_is_a_different_one():
    assert len(BROKEN) >= 25
    assert len({row[:3] + row[-1:] for row in BROKEN}) == len(BROKEN)


def test_text_that_is_no_toml_is_named_with_its_line(bot):
    assert re.match(r"here\.toml: not valid TOML: .*line 7", complaint(edited(bot, "\n[rates]", "\n[rates")))
    assert "not valid TOML" in complaint(edited(bot, "track_m = 0.17", "track_m = 0.17\ntrack_m = 0.18"))


def test_no_joints_and_too_many_joints_are_named(bot):
    joint = bot.text.split("[[joints]]")[1]
    many = "".join(f"[[joints]]{joint.replace('left_wheel', f'joint_{i}')}" for i in range(11))
    head, rest = bot.text.split("[[actions]]", 1)
    assert "joints: expected 1 to 12 joints, got 13" in complaint(head + many + "[[actions]]" + rest)
    without = "joints = []\n" + re.sub(r"\[\[joints\]\][^\[]*", "", bot.text)
    assert "joints: expected 1 to 12 joints, got 0" in complaint(without)


def test_no_observations_and_no_actions_are_named(bot):
    assert "observations: expected at least one term, got none" in complaint(
        "observations = []\n" + re.sub(r"\[\[observations\]\][^\[]*", "", bot.text)
    )
    assert "actions: expected independent parts" in complaint("actions = []\n" + re.sub(r"\[\[actions\]\][^\[]*\[[^\]]*\]", "", bot.text))


def test_the_link_must_carry_the_telemetry_by_hand(rover):
    """6 + 2 * (4 + 4 + 2) + 6 + 6 + 2 + 3 * 2 = 46 payload, 16 around it; 62 * 200 * 10 bits = 124 000; nine tenths: 137 778."""
    assert "at least 137778 for 200" in complaint(edited(rover, "baud = 921600", "baud = 137700"))
    assert robot_from_text(edited(rover, "baud = 921600", "baud = 137800")).link.baud == 137800


@pytest.mark.slow
@pytest.mark.parametrize("robot", shipped_robots())
def test_any_line_left_out_or_doubled_is_a_spec_error_or_a_good_robot(robot):
    """Whatever is done to the file: never a traceback of another kind."""
    lines = load_robot(robot).text.splitlines()
    edits = [edit for i in range(len(lines)) for edit in (lines[:i] + lines[i + 1 :], [*lines[: i + 1], *lines[i:]])]
    complaints = [said for edit in edits if (said := complaint_or_none("\n".join(edit)))]
    assert len(complaints) > len(lines) / 2
    assert not [said for said in complaints if not said.startswith("here.toml")]


def complaint_or_none(text):
    try:
        robot_from_text(text, "here.toml")
    except SpecError as error:
        return str(error)
    return None


# ---- every key is a key, in every table ----


def tables_of(kind=RobotSpec, path=""):
    """(path, dataclass) of every table a robot file may have."""
    yield path, kind
    for name, hint in typing.get_type_hints(kind).items():
        for inner in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(inner):
                yield from tables_of(inner, f"{path}.{name}" if path else name)


@pytest.mark.slow
def test_a_key_that_no_table_knows_is_an_error_in_every_table(bot, rover):
    seen = set()
    for spec in (bot, rover):
        for header in re.findall(r"^\[+\w+\]+", spec.text, re.MULTILINE):
            said = complaint(spec.text.replace(header, f"{header}\nzzz = 1", 1))
            assert ".zzz: expected a known key, got 'zzz'" in said
            seen.add(header.strip("[]"))
    assert seen == {path for path, _ in tables_of() if path}


def test_every_key_has_a_meaning():
    for path, kind in tables_of():
        for field in dataclasses.fields(kind):
            has_table = any(
                dataclasses.is_dataclass(a)
                for a in (typing.get_type_hints(kind)[field.name], *typing.get_args(typing.get_type_hints(kind)[field.name]))
            )
            assert field.metadata.get("meaning") or has_table or field.name in ("text", "folder"), f"{path}.{field.name}"


def attributes_read():
    """Every `.name` that is read anywhere but in the schema itself."""
    files = [path for top in ("edge_dsac", "firmware_bridge", "sim", "calibration") for path in (ROOT / top).rglob("*.py")]
    return {
        node.attr
        for path in files
        if path != ROOT / "edge_dsac/spec/robot.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


@pytest.mark.slow
def test_every_key_is_read_by_somebody():
    """A fact that nobody reads is a promise that nobody keeps."""
    read = attributes_read()
    assert [f"{path}.{field.name}" for path, kind in tables_of() for field in dataclasses.fields(kind) if field.name not in read] == []


def test_units_are_taken_off_a_key_longest_first():
    assert without_unit("velocity_limit_rad_s") == "velocity_limit"
    assert without_unit("accel_m_s2") == "accel"
    assert without_unit("command_timeout_ms") == "command_timeout"
    assert without_unit("history") == "history"
    for i, unit in enumerate(UNITS):
        assert not [shorter for shorter in UNITS[:i] if unit.endswith(shorter)], f"{unit} would never be found"


# ---- fingerprints: (robot, old, new, changes the firmware's, changes the policy's) ----

FINGERPRINTS = [
    ("bot", "# balance_bot:", "# Balance_bot:", False, False),
    ("bot", "sensor_hz = 200", "sensor_hz = 200   # often", False, False),
    ("bot", "control_hz = 100         # learns in about a minute of two cores at this rate; see docs\nsensor_hz = 200", "sensor_hz = 200\ncontrol_hz = 100", False, False),
    ("bot", "[link]\nbaud = 921600\n", "", False, False),  # moved to the end, see below
    ("bot", "wheel_radius_m = 0.04", "wheel_radius_m = 4e-2", False, False),
    ("bot", "tilt_limit_rad = 0.80", "tilt_limit_rad = 0.8", False, False),
    ("bot", "nominal_v = 11.1", "nominal_v = 11.100", False, False),
    ("bot", 'description = "two', 'description = "Two', False, False),
    ("bot", 'mjcf = "balance_bot.xml"', 'mjcf = "other.xml"', False, False),
    ("bot", "max_coast_ticks = 4", "max_coast_ticks = 3", False, False),
    ("bot", "weight = -0.1", "weight = -0.2", False, False),
    ("rover", "cruise_m_s = 0.6", "cruise_m_s = 0.5", False, False),
    ("bot", "command_timeout_ms = 60", "command_timeout_ms = 70", True, False),
    ("bot", "sensor_hz = 200", "sensor_hz = 500", True, False),
    ("bot", "board_hz = 1000", "board_hz = 2000", True, False),
    ("bot", "baud = 921600", "baud = 460800", True, False),
    ("bot", "tilt_limit_rad = 0.80", "tilt_limit_rad = 0.81", True, False),
    ("bot", "cutoff_v = 9.0", "cutoff_v = 9.1", True, False),
    ("bot", "sign = 1\n", "sign = -1\n", True, False),
    ("bot", "counts_per_rad = 2607.594", "counts_per_rad = 2607.5940000001", True, False),
    ("bot", "overspeed_rad_s = 60.0", "overspeed_rad_s = 61.0", True, False),
    ("bot", 'axes = ["+x", "+y", "+z"]', 'axes = ["+x", "-y", "-z"]', True, False),
    ("bot", "pitch_kp = 7.0", "pitch_kp = 7.5", True, False),
    ("rover", 'name = "radar_y_m"\nlsb_per_unit = 1000.0', 'name = "radar_y_m"\nlsb_per_unit = 100.0', True, False),
    ("bot", "home_rad = 0.0", "home_rad = 0.1", False, True),
    ("bot", "control_hz = 100", "control_hz = 200", False, True),
    ("bot", "mix = [0.8, 0.8]", "mix = [0.7, 0.7]", False, True),
    ("bot", "scale = 4.0", "scale = 4.1", False, True),
    ("bot", "clip = 1.0", "clip = 1.1", False, True),
    ("bot", "history = 2", "history = 3", False, True),
    ("bot", 'term = "pitch_rate_rad_s"', 'term = "battery_v"', False, True),
    ("bot", 'model = "balance_bot"', 'model = "balance_two"', True, True),
    ("bot", "wheel_radius_m = 0.04", "wheel_radius_m = 0.041", True, True),
    ("bot", "filter_s = 0.5", "filter_s = 0.6", True, True),
    ("bot", "velocity_limit_rad_s = 40.0", "velocity_limit_rad_s = 41.0", True, True),
    ("bot", "command_limit = 1.0", "command_limit = 0.9", True, True),
    ("bot", "command_slew_per_s = 50.0", "command_slew_per_s = 51.0", True, True),
    ("bot", 'name = "left_wheel"', 'name = "port_wheel"', True, True),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("robot", "old", "new", "firmware", "policy"),
    FINGERPRINTS,
    ids=[row[2].splitlines()[0][:40] if row[2] else "table moved" for row in FINGERPRINTS],
)
def test_what_changes_which_fingerprint(request, robot, old, new, firmware, policy):
    spec = request.getfixturevalue(robot)
    other = robot_from_text(edited(spec, old, new) + ("" if new else old))  # "": the table is moved to the end
    assert (other.firmware_fingerprint != spec.firmware_fingerprint, other.policy_fingerprint != spec.policy_fingerprint) == (
        firmware,
        policy,
    )


def test_every_fact_of_the_two_sides_is_in_a_fingerprint_or_known_to_be_the_hosts(bot):
    """A key that is in neither is one that the other side never learns about: it must be on this list for a reason."""
    from edge_dsac.spec.robot import flatten

    hosts = {"description", "mjcf", "rates.max_coast_ticks"}
    every = {key for key in flatten(bot) if not key.startswith(("rewards", "pure_pursuit", "text", "folder"))}
    assert every - set(bot.firmware_facts) - set(bot.policy_facts) == hosts


def test_joints_in_another_order_are_another_robot(bot):
    first, second = bot.text.split("[[joints]]")[1:3]
    joint, tail = second.split("\n\n", 1)
    swapped = bot.text.replace(f"[[joints]]{first}[[joints]]{second}", f"[[joints]]{joint}\n\n[[joints]]{first}{tail}")
    other = robot_from_text(swapped)
    assert [j.name for j in other.joints] == ["right_wheel", "left_wheel"]
    assert other.firmware_fingerprint != bot.firmware_fingerprint
    assert other.policy_fingerprint != bot.policy_fingerprint


@pytest.mark.slow
def test_fingerprints_are_sixteen_hex_digits_and_do_not_depend_on_the_process(bot):
    assert re.fullmatch(r"[0-9a-f]{16}", bot.firmware_fingerprint)
    code = "from edge_dsac.spec.robot import load_robot as l; print(l('balance_bot').firmware_fingerprint, l('balance_bot').policy_fingerprint)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}
    ).stdout
    assert out.split() == [bot.firmware_fingerprint, bot.policy_fingerprint]


# ---- layouts ----


def test_observation_layout_by_hand(bot):
    """Seven terms of one number, then two actions of now and two of the tick before: 11."""
    layout = ObservationLayout(bot)
    assert layout.size == 11
    assert layout.newest["speed_m_s"] == slice(2, 3)
    assert layout.newest["applied_action"] == slice(7, 9)
    assert layout.stacked["applied_action"] == slice(7, 11)
    assert layout.labels[6:] == (
        "speed_error_integral_m",
        "applied_action[0]",
        "applied_action[1]",
        "applied_action[0]@-1",
        "applied_action[1]@-1",
    )
    assert layout.scale.tolist() == pytest.approx([4.0, 0.5, 1.5, 0.4, 1.5, 0.4, 1.5, 1, 1, 1, 1])
    assert layout.clip.tolist() == pytest.approx([1, 10, 3, 10, 2, 5, 2, 1, 1, 1, 1])


def test_observation_layout_of_the_rover_by_hand(rover):
    """5 of one, heading 2, path 8, obstacle 4 + 5 + 3, action 2 x 2: 5 + 2 + 8 + 12 + 4 = 31."""
    layout = ObservationLayout(rover)
    assert layout.size == len(layout.labels) == len(set(layout.labels)) == 31
    assert layout.newest["obstacle"] == slice(15, 19)
    assert layout.labels[29] == "applied_action[0]@-1"


def test_action_layout_by_hand(bot):
    layout = ActionLayout(dataclasses.replace(bot, joints=tuple(dataclasses.replace(joint, command_limit=0.5) for joint in bot.joints)))
    # common 1, differential 0.5: left 0.8 - 0.1 = 0.7, right 0.8 + 0.1 = 0.9; of a limit of 0.5: 0.35 and 0.45.
    assert ([1.0, 0.5] @ layout.to_command).tolist() == pytest.approx([0.35, 0.45])
    assert ([0.35, 0.45] @ layout.to_action).tolist() == pytest.approx([1.0, 0.5])


def test_every_term_says_what_it_is_and_needs_things_that_exist():
    tables = {path for path, _ in tables_of() if path}
    for name, term in TERMS.items():
        assert term.meaning, name
        assert term.size in ("joints", "actions", "extras") or int(term.size) > 0, name
        assert all(need in tables or need.startswith("extras.") for need in term.needs), name
