"""The YAML beside policies of rl_sar, unitree_rl_lab (deploy.yaml) and unitree_rl_gym, as parts.

The keys were read in these projects' public repositories in 2026; rl_sar has two files, base.yaml and config.yaml. There are many
forks, so a key that is not known is listed as not read. Knows no robot (`foreign_match.py` compares).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edge_dsac.bundle.foreign_file import ForeignError
from edge_dsac.bundle.foreign_parts import (
    Part,
    Parts,
    Stated,
    listed,
    narrowest,
    not_read,
    number,
    oldest_first,
    period,
    step,
    unused_mapping,
)


def metadata_of_yaml(documents: list[tuple[str, dict[str, Any]]]) -> Stated:
    """Several documents are one, the later ones win: rl_sar's base.yaml and a policy's config.yaml."""
    settings: dict[str, Any] = {}
    for source, document in documents:
        settings |= unwrapped(document, source)
    source = " and ".join(name for name, _ in documents)
    if isinstance(settings.get("observations"), dict):
        return of_unitree_rl_lab(settings, source)
    if "num_obs" in settings or "default_angles" in settings:
        return of_unitree_rl_gym(settings, source)
    if "num_observations" in settings or "rl_kp" in settings or "default_dof_pos" in settings:
        return of_rl_sar(settings, source)
    raise ForeignError(
        f"{source}: neither of rl_sar (num_observations, rl_kp), nor unitree_rl_lab (a table observations), nor unitree_rl_gym (num_obs)"
    )


def unwrapped(document: dict[str, Any], source: str) -> dict[str, Any]:
    """rl_sar puts all below one key, `go2/himloco:`."""
    if len(document) == 1 and isinstance(next(iter(document.values())), dict):
        document = next(iter(document.values()))
    if not all(isinstance(key, str) for key in document):
        raise ForeignError(f"{source}: expected names as keys, got {', '.join(repr(key) for key in document if not isinstance(key, str))}")
    return document


def of_rl_sar(settings: dict[str, Any], source: str) -> Stated:
    figures = {"default_dof_pos": "default_position", "action_scale": "action_scale", "rl_kp": "stiffness", "rl_kd": "damping"}
    parts = number_parts(settings, figures, source)
    parts |= name_parts(settings, {"joint_names": "joint_names", "observations": "observation_names"}, source)
    assumed: list[str] = []
    if settings.get("wheel_indices"):
        raise ForeignError(
            f"{source}: wheel_indices {settings['wheel_indices']}: wheels driven by velocity beside joints by position; not taken over"
        )
    if "dt" in settings and "decimation" in settings:
        parts["control_hz"] = Part(1.0 / (period(settings, "dt", source) * period(settings, "decimation", source)), source, 1e-3)
    if "num_observations" in settings:
        parts["frame_size"] = Part(settings["num_observations"], source)
    scales = named_scales(settings, "commands_scale", source)
    parts["named_scales"] = Part(scales, source)
    ages = settings.get("observations_history")
    names = parts["observation_names"].value if "observation_names" in parts else ()
    if ages is not None:
        stacked = tuple(step(age, f"{source}: observations_history") for age in listed(ages)) or (0,)
        parts["history"] = Part((stacked,) * max(1, len(names)), source)
        if len(stacked) == 1:
            parts["history_by"] = Part("term", source)
        elif settings.get("observations_history_priority") in ("time", "term"):
            parts["history_by"] = Part(settings["observations_history_priority"], source)
        else:  # its versions before that key read the list from either end: nobody but the user can know
            del parts["history"]
    if "clip_obs" in settings:
        parts["scaled_observation_clip"] = Part(number(settings["clip_obs"], f"{source}: clip_obs"), source)
    for key in ("clip_actions_lower", "clip_actions_upper", "clip_actions"):
        if key in settings:
            least = min(abs(number(value, f"{source}: {key}")) for value in listed(settings[key]))
            parts["action_clip"] = Part(min(least, parts["action_clip"].value if "action_clip" in parts else math.inf), source)
    mappings = [line for key in ("joint_mapping", "command_mapping", "state_mapping") for line in unused_mapping(settings, key)]
    if mappings and "joint_names" in parts:  # of the policy or of the motors? Its own versions differ
        del parts["joint_names"]
        mappings.append("with a mapping, joint_names may be in the motors' order: they are not used")
    assumed += mappings
    if settings.get("hip_scale_reduction", 1.0) != 1.0:
        raise ForeignError(
            f"{source}: hip_scale_reduction {settings['hip_scale_reduction']}; write it into action_scale, one number a joint"
        )
    read = {
        *figures, "joint_names", "observations", "wheel_indices", "dt", "decimation", "num_observations", "lin_vel_scale",
        "ang_vel_scale", "dof_pos_scale", "dof_vel_scale", "commands_scale", "observations_history", "observations_history_priority",
        "clip_obs", "clip_actions_lower", "clip_actions_upper", "clip_actions", "joint_mapping", "command_mapping", "state_mapping",
        "hip_scale_reduction", "hip_scale_reduction_indices", "model_name", "framework", "num_of_dofs", "fixed_kp", "fixed_kd",
        "torque_limits", "joint_controller_names", "action_scale_wheel", "default_commands",
    }  # fmt: skip
    return Stated(parts, (*assumed, *not_read(settings, read, source)))


def of_unitree_rl_lab(settings: dict[str, Any], source: str) -> Stated:
    figures = {"default_joint_pos": "default_position", "stiffness": "stiffness", "damping": "damping"}
    parts = number_parts(settings, figures, source)
    assumed = unused_mapping(settings, "joint_ids_map")
    if "step_dt" in settings:
        parts["control_hz"] = Part(1.0 / period(settings, "step_dt", source), source, 1e-3)
    actions = settings.get("actions")
    if isinstance(actions, dict) and actions:
        if len(actions) != 1:
            raise ForeignError(f"{source}: actions {', '.join(map(str, actions))}; expected one kind for all joints")
        kind, action = next(iter(actions.items()))
        if kind == "JointVelocityAction":
            raise ForeignError(f"{source}: its actions are target velocities; a board of this project takes duty or torque")
        action = action if isinstance(action, dict) else {}
        parts |= number_parts(action, {"scale": "action_scale"}, source)
        parts |= name_parts({key: value for key, value in action.items() if value != [".*"]}, {"joint_names": "joint_names"}, source)
        if kind == "JointPositionAction":
            parts["position_targets"] = Part(True, source)
        elif kind == "JointEffortAction" and any(number(value, f"{source}: offset") for value in listed(action.get("offset") or 0.0)):
            raise ForeignError(f"{source}: an effort with a constant offset; not taken over")
        if action.get("clip") is not None:
            parts["command_clip"] = Part(narrowest([v for row in listed(action["clip"]) for v in listed(row)], source), source)
    terms = dict(settings["observations"])
    by_time = terms.pop("use_gym_history", False) is True
    if terms.pop("scale_first", False):
        raise ForeignError(f"{source}: scale_first is not read; write clips in SI units before the scale")
    if not all(isinstance(term, dict) for term in terms.values()):
        raise ForeignError(f"{source}: observations: expected a table for every term")
    parts["observation_names"] = Part(tuple(map(str, terms)), source)
    if all(term.get("scale") is not None for term in terms.values()):
        where = f"{source}: observations: scale"
        parts["observation_scales"] = Part(tuple(tuple(number(v, where) for v in listed(term["scale"])) for term in terms.values()), source)
    if all("history_length" in term for term in terms.values()):
        parts["history"] = Part(
            tuple(oldest_first(number(term["history_length"], f"{source}: history_length")) for term in terms.values()), source
        )
        parts["history_by"] = Part("time" if by_time else "term", source)
    clips = [term.get("clip") for term in terms.values()]
    if any(clip is not None for clip in clips):
        parts["observation_clip"] = Part(tuple(math.inf if clip is None else narrowest(clip, source) for clip in clips), source)
    read = {*figures, "joint_ids_map", "step_dt", "actions", "observations", "commands"}
    return Stated(parts, (*assumed, *not_read(settings, read, source)))


def of_unitree_rl_gym(settings: dict[str, Any], source: str) -> Stated:
    """States no joint names and no order of observations: both are in that project's code."""
    figures = {"default_angles": "default_position", "action_scale": "action_scale", "kps": "stiffness", "kds": "damping"}
    parts = number_parts(settings, figures, source)
    if "control_dt" in settings:
        parts["control_hz"] = Part(1.0 / period(settings, "control_dt", source), source, 1e-3)
    elif "simulation_dt" in settings and "control_decimation" in settings:
        seconds = period(settings, "simulation_dt", source) * period(settings, "control_decimation", source)
        parts["control_hz"] = Part(1.0 / seconds, source, 1e-3)
    parts["named_scales"] = Part(named_scales(settings, "cmd_scale", source), source)
    if "num_obs" in settings:
        parts["observation_size"] = Part(settings["num_obs"], source)
    assumed = [line for key in ("leg_joint2motor_idx", "joint2motor_idx") for line in unused_mapping(settings, key)]
    read = {
        *figures, "control_dt", "simulation_dt", "control_decimation", "simulation_duration", "ang_vel_scale", "dof_pos_scale",
        "dof_vel_scale", "lin_vel_scale", "cmd_scale", "num_obs", "num_actions", "cmd_init", "max_cmd", "leg_joint2motor_idx",
        "joint2motor_idx", "policy_path", "xml_path", "msg_type", "imu_type", "lowcmd_topic", "lowstate_topic",
    }  # fmt: skip
    return Stated(parts, (*assumed, *not_read(settings, read, source)))


def number_parts(settings: Mapping[str, Any], names: Mapping[str, str], source: str) -> Parts:
    return {
        name: Part(tuple(number(value, f"{source}: {key}") for value in listed(settings[key])), source)
        for key, name in names.items()
        if settings.get(key) is not None
    }


def name_parts(settings: Mapping[str, Any], names: Mapping[str, str], source: str) -> Parts:
    return {name: Part(tuple(map(str, listed(settings[key]))), source) for key, name in names.items() if settings.get(key)}


def named_scales(settings: dict[str, Any], commands: str, source: str) -> dict[str, tuple[float, ...]]:
    keys = {
        "lin_vel": "lin_vel_scale",
        "ang_vel": "ang_vel_scale",
        "dof_pos": "dof_pos_scale",
        "dof_vel": "dof_vel_scale",
        "commands": commands,
    }
    scales = {term: tuple(number(v, f"{source}: {key}") for v in listed(settings[key])) for term, key in keys.items() if key in settings}
    return scales | {"actions": (1.0,), "gravity_vec": (1.0,)}  # these two have no key: both projects' code feeds them unscaled
