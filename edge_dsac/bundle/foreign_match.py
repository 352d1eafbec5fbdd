"""A foreign policy against the robot file: which of its inputs is which of ours, and every difference, by name.

Orders are compared, never repaired: a robot file is edited in a minute, a swapped joint is found on the floor. Only what a robot
file cannot say is converted: scales, and the order inside a history. Rule that must stay true: `match` returns only if nothing
differs, and then foreign input = `inputs` @ our observation in SI.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from edge_dsac.bundle.foreign_file import ForeignError
from edge_dsac.bundle.foreign_graph import ForeignNetwork
from edge_dsac.bundle.foreign_parts import Parts
from edge_dsac.records import Float
from edge_dsac.spec.layout import TERMS, ActionLayout, ObservationLayout
from edge_dsac.spec.robot import RobotSpec

# What others call our terms. Both sides: body frame x forward, y left, z up, SI, before scaling.
SAME = {
    "gyro_rad_s": ("ang_vel", "base_ang_vel", "imu_ang_vel"),
    "joint_position_rad": ("dof_pos", "joint_pos", "joint_pos_rel"),
    "joint_velocity_rad_s": ("dof_vel", "joint_vel", "joint_vel_rel"),
    "applied_action": ("actions", "last_action", "prev_actions"),
    "commands": ("velocity_commands", "command"),
}
OURS = {name: term for term, names in SAME.items() for name in names}
COMMANDS = (("speed_target_m_s", 0), None, ("yaw_rate_target_rad_s", 0))  # x, y, yaw; nothing here is told to go sideways
Slot = tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Match:
    inputs: Float  # [foreign inputs, our observations]
    outputs: Float  # [foreign outputs, our actions]: action = foreign output @ this, before the end is squashed
    assumed: tuple[str, ...]


def slots_of(name: str, spec: RobotSpec) -> tuple[Slot, ...]:
    """The numbers of one foreign term; empty if the robot has nothing like it."""
    term = OURS.get(name, name)
    if term == "commands":
        return COMMANDS
    if term not in TERMS:
        return ()
    size = {"joints": len(spec.joints), "actions": len(spec.actions), "extras": len(spec.extras)}.get(TERMS[term].size)
    return tuple((term, i) for i in range(int(TERMS[term].size) if size is None else size))


def match(network: ForeignNetwork, parts: Parts, spec: RobotSpec, source: str) -> Match:
    """All parts are there (`foreign.py` asks first)."""
    raise_differences(differences(parts, spec), spec, source)
    outputs, problems = output_map(network, parts, spec)
    raise_differences(problems, spec, source)
    inputs, problems = input_map(network, parts, spec, outputs)
    raise_differences(problems, spec, source)
    names = parts["observation_names"].value
    assumed = [f"{name} is the robot file's {OURS[name]}" for name in names if OURS.get(name, "commands") != "commands"]
    assumed += [f"{name}: x, y, yaw; y is always 0 here" for name in names if OURS.get(name, name) == "commands"]
    if any(OURS.get(name, name) == "applied_action" for name in names):
        assumed.append("the last action is what the board reported to drive, not the network's last output")
    if network.squash == "none":
        assumed.append("the network ends in a plain layer: actions beyond -1 and 1 are clipped")
    return Match(inputs, outputs, tuple(assumed))


def raise_differences(problems: list[str], spec: RobotSpec, source: str) -> None:
    if problems:
        raise ForeignError(f"{source}: does not fit {spec.model}: {'; '.join(problems)}")


def differences(parts: Parts, spec: RobotSpec) -> list[str]:
    """Between what is known and the robot file; parts that are missing are not differences."""
    value = {name: part.value for name, part in parts.items()}
    found: list[str] = []
    found += name_differences("joint", value.get("joint_names"), [joint.name for joint in spec.joints])
    if "observation_names" in value:
        found += term_differences(value["observation_names"], spec)
    if "control_hz" in value and abs(value["control_hz"] / spec.rates.control_hz - 1.0) > 1e-3:
        found.append(f"it runs at {value['control_hz']:g} Hz, the robot file has control_hz = {spec.rates.control_hz}")
    if "default_position" in value:
        home, theirs = [joint.home_rad for joint in spec.joints], value["default_position"]
        if len(theirs) not in (1, len(home)):
            found.append(f"{len(theirs)} default positions for {len(home)} joints")
        else:
            for joint, their in zip(spec.joints, theirs * (len(home) // len(theirs)), strict=True):
                if abs(their - joint.home_rad) > parts["default_position"].tolerance:
                    found.append(
                        f"{joint.name} has its default position at {their:g} rad, the robot file has home_rad = {joint.home_rad:g}"
                    )
    units = sorted({joint.command_unit for joint in spec.joints})
    gains = [gain for name in ("stiffness", "damping") for gain in value.get(name, ())]
    if value.get("position_targets") or any(gains):
        kept = f" by gains up to {max(gains):g}" if gains else ""
        found.append(f"its outputs are target positions held{kept}, the board takes {' and '.join(units)}; train it for that")
    elif "command_unit" in value and units != [value["command_unit"]]:
        found.append(f"its commands are {value['command_unit']}, the robot file has {' and '.join(units)}")
    return found


def name_differences(kind: str, theirs: tuple[str, ...] | None, ours: list[str]) -> list[str]:
    if theirs is None or list(theirs) == ours:
        return []
    if sorted(theirs) == sorted(ours):
        at = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        return [f"{kind} {at} is {theirs[at]}, the robot file has {ours[at]} there: the same names in another order"]
    only = [name for name in theirs if name not in ours], [name for name in ours if name not in theirs]
    return [f"{kind}s: only the policy has {', '.join(only[0]) or 'none'}, only the robot file has {', '.join(only[1]) or 'none'}"]


def term_differences(names: tuple[str, ...], spec: RobotSpec) -> list[str]:
    unknown = [name for name in names if not slots_of(name, spec)]
    if unknown:
        return [f"nothing on the robot is called {name}; terms: {', '.join(TERMS)}" for name in unknown]
    theirs = tuple(dict.fromkeys(slot[0] for name in names for slot in slots_of(name, spec) if slot))
    return name_differences("observation", theirs, [entry.term for entry in spec.observations])


def output_map(network: ForeignNetwork, parts: Parts, spec: RobotSpec) -> tuple[Float, list[str]]:
    actions = len(spec.actions)
    if "outputs" in parts and parts["outputs"].value == "actions":
        if network.outputs != actions:
            return np.zeros(0), [f"{network.outputs} outputs, the robot file has {actions} actions"]
        return np.eye(actions), squash_differences(network, np.eye(actions), parts, np.ones(actions))
    joints = len(spec.joints)
    scale = np.asarray(parts["action_scale"].value, np.float64)
    if network.outputs != joints or scale.size not in (1, joints):
        return np.zeros(0), [f"{network.outputs} outputs and {scale.size} numbers in action_scale, the robot file has {joints} joints"]
    if joints != actions:
        return np.zeros(0), [f"it steers {joints} joints one by one, the robot file has {actions} actions for them"]
    if not (scale > 0.0).all():
        return np.zeros(0), [f"action_scale {scale.tolist()}: expected more than zero"]
    scale = np.broadcast_to(scale, (joints,))
    outputs = scale[:, None] * ActionLayout(spec).to_action
    if np.abs(outputs - np.eye(joints)).max() <= parts["action_scale"].tolerance:
        outputs = np.eye(joints)
    return outputs, squash_differences(network, outputs, parts, scale)


def squash_differences(network: ForeignNetwork, outputs: Float, parts: Parts, scale: Float) -> list[str]:
    """A tanh cannot be scaled afterwards, and a clip nearer than the robot's own cannot be kept."""
    if network.squash == "tanh" and not np.array_equal(outputs, np.eye(len(outputs))):
        return ["it ends in tanh, and tanh times action_scale is not the robot file's range of commands; set mix or command_limit to it"]
    reach = (
        np.ones(len(outputs)) if network.squash == "tanh" else np.abs(np.linalg.inv(outputs)).sum(axis=0)
    )  # of outputs, for actions in +-1
    clips = [network.output_clip, parts["action_clip"].value if "action_clip" in parts else inf]
    allowed = np.minimum(min(clips), (parts["command_clip"].value if "command_clip" in parts else inf) / scale)
    if (allowed < reach - 1e-6).any():
        return [
            f"its outputs are clipped at {allowed.min():g}, nearer than the robot file's commands ({reach.max():g}); make those smaller"
        ]
    return []


def input_map(network: ForeignNetwork, parts: Parts, spec: RobotSpec, outputs: Float) -> tuple[Float, list[str]]:
    names, ages = parts["observation_names"].value, parts["history"].value
    slots = [slots_of(name, spec) for name in names]
    if len(ages) == 1:
        ages = ages * len(names)
    if len(ages) != len(names):
        return np.zeros(0), [f"history has {len(ages)} entries for {len(names)} terms"]
    problems = history_differences(names, slots, ages, spec)
    sizes = [len(row) * len(stack) for row, stack in zip(slots, ages, strict=True)]
    if sum(sizes) != network.inputs:
        told = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
        problems.append(f"the network takes {network.inputs} numbers, its terms have {sum(sizes)} ({told})")
    frame = sum(map(len, slots))
    for name, size in (("frame_size", frame), ("observation_size", sum(sizes))):
        if name in parts and parts[name].value not in (size, sum(sizes)):
            problems.append(f"its file says {parts[name].value} observations, its terms have {size}")
    scales, wrong = scales_of(parts, slots)
    problems += wrong
    by_time = parts["history_by"].value == "time"
    if by_time and len(set(ages)) > 1:
        problems.append("stacked by time, terms cannot have histories of their own")
    if problems:
        return np.zeros(0), problems
    order = [(term, i, age) for age in ages[0] for term, row in enumerate(slots) for i in range(len(row))] if by_time else [
        (term, i, age) for term, row in enumerate(slots) for age in ages[term] for i in range(len(row))
    ]  # fmt: skip
    inputs = np.zeros((network.inputs, ObservationLayout(spec).size))
    for at, (term, i, age) in enumerate(order):
        if slots[term][i] is not None:
            fill_row(inputs[at], slots[term][i], age, scales[term][i], spec, outputs)
    return inputs, clip_differences(
        network, parts, spec, inputs, [names[term] for term, _, _ in order], [term for term, _, _ in order], scales
    )


def fill_row(row: Float, slot: Slot, age: int, scale: float, spec: RobotSpec, outputs: Float) -> None:
    assert slot is not None
    layout = ObservationLayout(spec)
    term, i = slot
    newest = layout.newest[term]
    begin = newest.start + age * (newest.stop - newest.start)
    if term == "applied_action":  # of ours in [-1, 1], back to what the network called its output
        row[begin : begin + len(outputs)] = scale * np.linalg.inv(outputs)[:, i]
    else:
        row[begin + i] = scale


def history_differences(
    names: tuple[str, ...], slots: list[tuple[Slot, ...]], ages: tuple[tuple[int, ...], ...], spec: RobotSpec
) -> list[str]:
    ours = {entry.term: entry.history for entry in spec.observations}
    found = []
    for name, row, stack in zip(names, slots, ages, strict=True):
        for term in dict.fromkeys(slot[0] for slot in row if slot):
            if sorted(stack) != list(range(ours[term])):
                found.append(
                    f"{name} stacks {len(stack)} steps, {sorted(stack)} back; the robot file has history = {ours[term]} for {term}"
                )
    return found


def scales_of(parts: Parts, slots: list[tuple[Slot, ...]]) -> tuple[list[tuple[float, ...]], list[str]]:
    """One number per term, or one per number of it; from answers also one flat list over all numbers of one step."""
    given = parts["observation_scales"].value
    sizes = [len(row) for row in slots]
    if len(given) != len(slots) and len(given) == sum(sizes) and all(len(row) == 1 for row in given):
        flat = [row[0] for row in given]
        given = [tuple(flat[sum(sizes[:i]) : sum(sizes[: i + 1])]) for i in range(len(sizes))]
    if len(given) != len(slots) or any(len(row) not in (1, size) for row, size in zip(given, sizes, strict=True)):
        return [], [f"observation_scales has {[len(row) for row in given]} numbers, its terms {sizes}"]
    return [row * size if len(row) == 1 else tuple(row) for row, size in zip(given, sizes, strict=True)], []


def clip_differences(
    network: ForeignNetwork,
    parts: Parts,
    spec: RobotSpec,
    inputs: Float,
    names: list[str],
    terms: list[int],
    scales: list[tuple[float, ...]],
) -> list[str]:
    """Its own clips must lie outside the robot file's: then they never act."""
    reach = np.abs(inputs) @ ObservationLayout(spec).clip.astype(np.float64)  # of each scaled input
    scaled = parts["scaled_observation_clip"].value if "scaled_observation_clip" in parts else inf
    high, low = np.minimum(network.input_high, scaled), np.maximum(network.input_low, -scaled)
    if "observation_clip" in parts:
        clips = parts["observation_clip"].value
        if len(clips) != len(scales):
            return [f"{len(clips)} clips of observations for {len(scales)} terms"]
        bound = np.array([clips[term] for term in terms]) * np.array([max(map(abs, scales[term])) for term in terms])
        high, low = np.minimum(high, bound), np.maximum(low, -bound)
    nearer = (reach > high * (1 + 1e-6)) | (-reach < low * (1 + 1e-6))
    return [
        f"its observations of {name} are clipped nearer than the robot file's clip; make that smaller"
        for name in dict.fromkeys(np.array(names)[nearer].tolist())
    ]
