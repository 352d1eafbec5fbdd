"""The metadata that mjlab and BeyondMimic (whole_body_tracking) attach to an ONNX file, as parts.

Comma-separated text; entries that are lists themselves have semicolons (forks of mjlab). Keys read in their public sources in
2026: joint_names, joint_stiffness, joint_damping, default_joint_pos, command_names, observation_names, action_scale and, in
BeyondMimic, observation_history_lengths. No rate, and no scale of an observation, except in forks. Knows no robot.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_dsac.bundle.foreign_file import ForeignError
from edge_dsac.bundle.foreign_parts import ROUNDED, Part, Parts, Stated, narrowest, not_read, number, oldest_first


def metadata_of_onnx(props: Mapping[str, str], source: str) -> Stated:
    """joint_names, joint_stiffness, ... as mjlab and whole_body_tracking (BeyondMimic) attach them."""
    texts = {"joint_names": "joint_names", "observation_names": "observation_names"}
    figures = {
        "default_joint_pos": "default_position",
        "action_scale": "action_scale",
        "joint_stiffness": "stiffness",
        "joint_damping": "damping",
    }
    parts: Parts = {}
    assumed: list[str] = []
    for key, name in texts.items():
        if props.get(key):
            parts[name] = Part(tuple(word.strip() for word in props[key].split(",")), source)
    for key, name in figures.items():
        if props.get(key):
            parts[name] = Part(tuple(number(word, f"{source}: {key}") for word in props[key].split(",")), source, ROUNDED)
    lengths = props.get("observation_history_lengths") or props.get("observation_terms_history_length")
    if lengths:
        parts["history"] = Part(tuple(oldest_first(number(word, f"{source}: history")) for word in lengths.split(",")), source)
        parts["history_by"] = Part("term", source)
        assumed.append("history: each term's own, oldest first, as mjlab and Isaac Lab stack it")
    if props.get("observation_terms_scale"):
        rows = [
            [number(word, f"{source}: observation_terms_scale") for word in entry.split(";")]
            for entry in props["observation_terms_scale"].split(",")
        ]
        parts["observation_scales"] = Part(tuple(map(tuple, rows)), source, ROUNDED)
    if props.get("observation_terms_clip"):
        parts["observation_clip"] = Part(
            tuple(narrowest(entry.split(";"), source) for entry in props["observation_terms_clip"].split(",")), source, ROUNDED
        )
    if "motion" in props.get("command_names", "").split(","):
        raise ForeignError(f"{source}: its command is a recorded motion; a policy for this robot follows the robot file's own targets")
    if any(name in parts for name in figures.values()):
        assumed.append("numbers in the ONNX metadata are rounded to 3 decimals; full ones can be given as answers")
    read = {
        *texts, *figures, "observation_history_lengths", "observation_terms_history_length", "observation_terms_scale",
        "observation_terms_clip", "observation_terms_flatten_history_dim", "command_names", "run_path",
    }  # fmt: skip
    return Stated(parts, (*assumed, *not_read(props, read, source)))
