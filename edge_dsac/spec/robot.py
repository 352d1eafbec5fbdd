"""RobotSpec: the one description of a robot, read from `robots/<model>.toml` or from a file of your own.

Everything else is derived from it: the C header, the wire structs, the observation layout, the limiter, the check of the
MJCF. Knows nothing of masses (MJCF), of one unit's offsets (calibration), of ports or hyper-parameters.
Convention: body x forward, y left, z up; pitch about +y, so a positive pitch leans forward; a positive wheel turn drives forward.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from edge_dsac.spec.schema import Reader, SpecError, fact, parse_toml

Axis = Literal["+x", "-x", "+y", "-y", "+z", "-z"]
COMMAND_UNITS = ("duty", "torque_nm")


@dataclass(frozen=True, slots=True)
class Rates:
    control_hz: int = fact("policy ticks per second", low=1, high=2000)
    sensor_hz: int = fact("telemetry frames per second, a multiple of control_hz", low=1, high=4000)
    board_hz: int = fact("the board's own safety loop per second, a multiple of sensor_hz", low=50, high=8000)
    command_timeout_ms: int = fact("without a valid command for this long the board stops obeying the host", low=2, high=2000)
    max_coast_ticks: int = fact("control ticks the host may repeat a command without a fresh frame", low=0, high=100)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    baud: int = fact("UART bits per second", low=9600, high=12_000_000)


@dataclass(frozen=True, slots=True)
class Drive:
    wheel_radius_m: float = fact("wheel radius", low=0.005, high=1.0)
    track_m: float = fact("distance between the wheels' contact points", low=0.01, high=3.0)
    wheels_tilt_with_body: bool = fact("true where the encoder sits on a body that pitches (a balancing robot)")


@dataclass(frozen=True, slots=True)
class Imu:
    gyro_lsb_per_rad_s: float = fact("gyro counts per rad/s", low=1.0, high=1e6)
    accel_lsb_per_m_s2: float = fact("accelerometer counts per m/s^2", low=1.0, high=1e6)
    axes: tuple[Axis, Axis, Axis] = fact("which sensor axis points along body x, y, z")
    filter_s: float = fact("time constant of the complementary pitch filter", low=0.01, high=10.0)


@dataclass(frozen=True, slots=True)
class Battery:
    nominal_v: float = fact("voltage at which duty 1 gives nominal speed", low=1.0, high=100.0)
    lsb_per_v: float = fact("ADC counts per volt, as sent", low=1.0, high=1e5)
    cutoff_v: float = fact("below this the board refuses to drive", low=0.0, high=100.0)


@dataclass(frozen=True, slots=True)
class Joint:
    name: str = fact("as in the MJCF")
    sign: Literal[1, -1] = fact("-1 where the motor is mounted mirrored")
    counts_per_rad: float = fact("encoder counts per radian at the joint", low=0.1, high=1e6)
    home_rad: float = fact("position that observations call zero", low=-100.0, high=100.0)
    velocity_limit_rad_s: float = fact("no more command in the direction of a faster turn", low=0.1, high=1e4)
    overspeed_rad_s: float = fact("the board latches a fault above this", low=0.1, high=1e4)
    command_unit: Literal["duty", "torque_nm"] = fact("what a command is: duty in [-1, 1], or torque")
    command_limit: float = fact("largest command, in command_unit", low=1e-6, high=1e4)
    command_slew_per_s: float = fact("largest change of the command per second", low=1e-3, high=1e6)


@dataclass(frozen=True, slots=True)
class Extra:
    """A further reading in each telemetry frame, sent as one signed 16-bit count."""

    name: str = fact("what it is, with its unit as a suffix")
    lsb_per_unit: float = fact("counts per unit", low=1e-3, high=1e6)


@dataclass(frozen=True, slots=True)
class ActionPart:
    """One entry of the policy's action in [-1, 1] and what it does to each joint, as a share of command_limit."""

    name: str = fact("what this entry steers")
    mix: tuple[float, ...] = fact("one factor per joint, in joint order", low=-1.0, high=1.0)


@dataclass(frozen=True, slots=True)
class ObservationTerm:
    term: str = fact("a term of layout.TERMS")
    scale: float = fact("factor that brings it near [-1, 1]; applied inside the policy", low=1e-6, high=1e6)
    clip: float = fact("largest magnitude, in the term's own SI unit", low=1e-6, high=1e6)
    history: int = fact("how many ticks are stacked, newest first", low=1, high=64, default=1)


@dataclass(frozen=True, slots=True)
class Safety:
    tilt_limit_rad: float = fact("the board cuts the motors beyond this body angle", low=0.05, high=3.2)
    tilt_arm_rad: float = fact("the board refuses to arm beyond this body angle", low=0.02, high=3.2)
    bad_sensor_ms: int = fact("the board latches a fault after this long without a reading", low=1, high=1000)
    fallback: Literal["damp", "balance_pd"] = fact("what the board does when commands stop")


@dataclass(frozen=True, slots=True)
class BalancePd:
    """Gains of the cascaded PD: baseline policy on the host, fallback policy on the board. Outputs are duty shares."""

    pitch_kp: float = fact("duty per rad of lean error", low=0.0, high=100.0)
    pitch_kd: float = fact("duty per rad/s of lean rate", low=0.0, high=10.0)
    speed_kp: float = fact("rad of lean per m/s of speed error", low=0.0, high=10.0)
    speed_ki: float = fact("rad of lean per m of speed-error integral", low=0.0, high=10.0)
    lean_limit_rad: float = fact("largest lean the speed loop may ask for", low=0.01, high=1.0)
    yaw_kp: float = fact("duty per rad/s of yaw-rate error", low=0.0, high=10.0)
    yaw_ff: float = fact("duty per rad/s of the yaw rate asked for: tyres resist a turn", low=0.0, high=10.0)
    balance_rad: float = fact("lean at which the body stands still", low=-0.5, high=0.5)


@dataclass(frozen=True, slots=True)
class PurePursuit:
    """Gains of the rover's baseline: steer to a point ahead on the path, slow down and stop for what the radar sees."""

    cruise_m_s: float = fact("speed on a free path", low=0.0, high=10.0)
    lookahead: int = fact("which of the path points ahead to steer to (0 is the nearest)", low=0, high=3)
    speed_kp: float = fact("duty per m/s of speed error", low=0.0, high=100.0)
    speed_ff: float = fact("duty per m/s of wanted speed", low=0.0, high=100.0)
    yaw_kp: float = fact("duty per rad/s of yaw-rate error", low=0.0, high=100.0)
    yaw_ff: float = fact("duty per rad/s of wanted yaw rate", low=0.0, high=100.0)
    stop_m: float = fact("stand still with the obstacle nearer than this", low=0.0, high=10.0)
    slow_m: float = fact("begin to slow down at this distance", low=0.0, high=20.0)


@dataclass(frozen=True, slots=True)
class RewardTerm:
    term: str = fact("a term of learn/rewards.py")
    weight: float = fact("factor in the sum", low=-1e4, high=1e4)
    width: float = fact("magnitude at which the term is used up, in its own SI unit", low=1e-6, high=1e6, default=1.0)


@dataclass(frozen=True)
class RobotSpec:
    """One robot, checked. `text` is the file it came from, word for word; it travels in every log and bundle."""

    model: str = fact("name of the robot, as in the file name")
    description: str = fact("one line for people")
    mjcf: str = fact("file name of its MuJoCo model")
    rates: Rates = fact("how often what happens")
    link: LinkFacts = fact("the serial link")
    battery: Battery = fact("the battery")
    safety: Safety = fact("what the board enforces by itself")
    joints: tuple[Joint, ...] = fact("the joints, in THE order")
    actions: tuple[ActionPart, ...] = fact("what the policy steers")
    observations: tuple[ObservationTerm, ...] = fact("what the policy sees, in order")
    rewards: tuple[RewardTerm, ...] = fact("what is rewarded")
    extras: tuple[Extra, ...] = ()
    drive: Drive | None = None
    imu: Imu | None = None
    balance_pd: BalancePd | None = None
    pure_pursuit: PurePursuit | None = None
    text: str = dataclasses.field(default="", compare=False, repr=False)
    folder: str = dataclasses.field(default="", compare=False, repr=False)

    @cached_property
    def firmware_facts(self) -> dict[str, str]:
        """All that the C header holds, one line each: what two sides compare when their fingerprints differ."""
        kept = ("model", "rates", "link", "battery", "safety", "joints", "extras", "drive", "imu", "balance_pd")
        facts = flatten({name: getattr(self, name) for name in kept})
        return {key: value for key, value in facts.items() if key not in HOST_ONLY and not key.endswith("home_rad")}

    @cached_property
    def policy_facts(self) -> dict[str, str]:
        """All that a policy was trained against."""
        kept = ("model", "actions", "observations", "drive")
        facts = flatten({name: getattr(self, name) for name in kept})
        facts["rates.control_hz"] = canonical(self.rates.control_hz)
        if self.imu:
            facts["imu.filter_s"] = canonical(self.imu.filter_s)
        for i, joint in enumerate(self.joints):
            for key in ("name", "home_rad", "velocity_limit_rad_s", "command_unit", "command_limit", "command_slew_per_s"):
                facts[f"joints[{i}].{key}"] = canonical(getattr(joint, key))
        return facts

    @cached_property
    def calibration_facts(self) -> dict[str, str]:
        """All that turns counts into SI: signs, scales, offsets, mounting. With other ones the same motion is another row."""
        facts = flatten({"imu": self.imu, "extras": self.extras})
        facts["battery.lsb_per_v"] = canonical(self.battery.lsb_per_v)
        for i, joint in enumerate(self.joints):
            for key in ("name", "sign", "counts_per_rad", "home_rad"):
                facts[f"joints[{i}].{key}"] = canonical(getattr(joint, key))
        return facts

    @cached_property
    def calibration_id(self) -> int:
        """64 bits over them; every row learned from carries it."""
        return int(fingerprint(self.calibration_facts), 16)

    @cached_property
    def firmware_fingerprint(self) -> str:
        return fingerprint(self.firmware_facts)

    @cached_property
    def policy_fingerprint(self) -> str:
        return fingerprint(self.policy_facts)


HOST_ONLY = frozenset({"rates.control_hz", "rates.max_coast_ticks"})


def canonical(value: Any) -> str:
    """One spelling per value: full precision, so that two files that mean the same compare equal."""
    return json.dumps(float(value) if isinstance(value, float) else value)


def flatten(value: Any, path: str = "") -> dict[str, str]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        items = [(f"{path}.{key}" if path else key, item) for key, item in value.items()]
    elif isinstance(value, tuple) and any(dataclasses.is_dataclass(item) for item in value):
        items = [(f"{path}[{i}]", item) for i, item in enumerate(value)]
    else:
        return {path: canonical(list(value) if isinstance(value, tuple) else value)}
    return {key: text for where, item in items for key, text in flatten(item, where).items()}


def fingerprint(facts: dict[str, str]) -> str:
    """16 hex digits over the sorted facts."""
    text = "\n".join(f"{key} = {facts[key]}" for key in sorted(facts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differing(ours: dict[str, str], theirs: dict[str, str]) -> list[tuple[str, str, str]]:
    """(key, ours, theirs) for every fact that is not the same on both sides."""
    keys = sorted(set(ours) | set(theirs))
    return [(key, ours.get(key, "absent"), theirs.get(key, "absent")) for key in keys if ours.get(key) != theirs.get(key)]


def shipped_robots() -> list[str]:
    folder = resources.files("edge_dsac.spec") / "robots"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_robot(name_or_path: str) -> RobotSpec:
    """A shipped robot by its model name, or any robot file by its path (anything with a `/` or ending in .toml)."""
    path = Path(name_or_path)
    if path.suffix != ".toml" and "/" not in name_or_path:
        names = shipped_robots()
        if name_or_path not in names:
            guess = difflib.get_close_matches(name_or_path, names, 1)
            advice = f"did you mean {guess[0]!r}?" if guess else f"shipped: {', '.join(names)}; or give the path of a .toml file"
            raise SpecError(f"robot {name_or_path!r} is not known; {advice}")
        path = Path(str(resources.files("edge_dsac.spec") / "robots" / f"{name_or_path}.toml"))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}; give a model name or the path of a robot file") from None
    return robot_from_text(text, str(path), str(path.parent))


def robot_from_text(text: str, source: str = "robot file", folder: str = "") -> RobotSpec:
    from edge_dsac.spec.checks import check_robot  # the checks need the classes above

    reader = Reader(text, source)
    table = parse_toml(text, source)
    for hidden in ("text", "folder"):
        if hidden in table:
            raise reader.unknown_key("", hidden, [f.name for f in dataclasses.fields(RobotSpec) if f.name not in ("text", "folder")])
    spec = dataclasses.replace(reader.read(RobotSpec, table, ""), text=text, folder=folder)
    check_robot(spec, reader)
    return spec
