"""Writes the two files of a new robot: a commented robot file and its MuJoCo model, which pass every check as they are.

The start is a differential drive; the owner changes numbers, adds joints and terms, and is told by `edge-dsac spec check`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from edge_dsac.spec.robot import robot_from_text
from edge_dsac.spec.schema import SpecError


def make_files(name: str) -> dict[str, str]:
    """File name -> text."""
    if not name.isidentifier() or len(name) > 15:
        raise SpecError(f"robot name {name!r}: expected letters, digits and _, at most 15, not starting with a digit")
    folder = resources.files("edge_dsac.spec") / "templates"
    files = {
        f"{name}{suffix}": (folder / f"robot{suffix}").read_text(encoding="utf-8").replace("NAME", name) for suffix in (".toml", ".xml")
    }
    robot_from_text(files[f"{name}.toml"], f"{name}.toml")
    return files


def free_paths(files: dict[str, str], folder: Path) -> list[Path]:
    """Where they would be written: never over something that is there."""
    paths = [folder / name for name in files]
    present = [str(path) for path in paths if path.exists()]
    if present:
        raise SpecError(f"{', '.join(present)}: already there; choose another name or folder")
    return paths


def write_files(files: dict[str, str], folder: Path) -> list[Path]:
    paths = free_paths(files, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, files.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths
