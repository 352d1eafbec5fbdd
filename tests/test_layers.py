"""Who may import whom, read from the source: imports inside functions count, there is no list of exceptions.

The two tables below are section 2 of the design. A new package is an error here until it has a row.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = ("edge_dsac", "firmware_bridge", "sim", "calibration", "tools")

# package or module (the longest name that fits counts) -> what of this project it may import, besides itself
MAY_IMPORT = {
    "edge_dsac": (),
    "edge_dsac.records": (),
    "edge_dsac.spec": ("edge_dsac.records",),
    "edge_dsac.steplog": ("edge_dsac.records", "edge_dsac.spec"),
    "edge_dsac.bundle": ("edge_dsac.records", "edge_dsac.spec"),
    "edge_dsac.loop": ("edge_dsac.records", "edge_dsac.spec", "edge_dsac.steplog", "edge_dsac.bundle"),
    "edge_dsac.learn": ("edge_dsac.records", "edge_dsac.spec", "edge_dsac.steplog", "edge_dsac.bundle"),
    "edge_dsac.profile": ("edge_dsac.records", "edge_dsac.spec", "edge_dsac.steplog", "edge_dsac.bundle"),
    "edge_dsac.watch": ("edge_dsac.records", "edge_dsac.spec", "edge_dsac.steplog"),
    "edge_dsac.cli": ("edge_dsac", "firmware_bridge", "sim", "calibration"),  # the one composition root
    "firmware_bridge": ("edge_dsac.records", "edge_dsac.spec"),
    "calibration": ("edge_dsac.records", "edge_dsac.spec", "firmware_bridge"),
    # The simulation runs the robot's own observer, limiter and rewards; `path` is the observer's geometry.
    "sim": (
        "edge_dsac.records", "edge_dsac.spec", "edge_dsac.loop.observer", "edge_dsac.loop.path", "edge_dsac.loop.limiter",
        "edge_dsac.learn.rewards",
    ),
    "tools": ("edge_dsac", "firmware_bridge", "sim", "calibration"),
}  # fmt: skip

# foreign package -> who may import it. What is not here is not a dependency of this project.
FOREIGN = {
    "numpy": TREES,
    "tomli": ("edge_dsac.spec.schema",),
    "serial": ("firmware_bridge.port", "firmware_bridge.flash", "tools"),
    "cobs": ("firmware_bridge.framing",),
    "cryptography": ("edge_dsac.bundle",),
    "mcap": ("edge_dsac.steplog.export",),
    "matplotlib": ("edge_dsac.watch", "edge_dsac.profile", "tools"),
    "PIL": ("sim", "edge_dsac.watch", "tools"),
    "mujoco": ("sim", "tools"),
    "gymnasium": ("sim", "tools"),
    "mujoco_warp": ("sim.warp",),
    "warp": ("sim.warp", "tools"),
    # torch_trt hands a torch module to torch_tensorrt: a desktop GPU's engine, whose functions import torch when they are called.
    "torch": ("edge_dsac.learn", "edge_dsac.bundle.export", "edge_dsac.bundle.quantize", "edge_dsac.bundle.torch_trt", "tools"),
    "stable_baselines3": ("tools",),  # peers in benchmarks
    "sb3_contrib": ("tools",),
    "tyro": ("edge_dsac.cli.train",),  # the desktop's; a robot's verbs use argparse
    "sbx": ("tools",),
    "jax": ("tools",),
    "yaml": ("edge_dsac.bundle.safe_yaml",),
    "google": ("edge_dsac.bundle.foreign_file",),  # protobuf, which onnx brings
    "onnx": ("edge_dsac.bundle", "tools"),
    "onnxruntime": ("edge_dsac.bundle", "tools"),
    "tensorrt": ("edge_dsac.bundle", "tools"),
    "tensorrt_rtx": ("edge_dsac.bundle", "tools"),
    "torch_tensorrt": ("edge_dsac.bundle", "tools"),
}


def within(module, package):
    return module == package or module.startswith(package + ".")


def modules_of(root):
    """Dotted name -> file."""
    found = {}
    for tree in TREES:
        for path in sorted((root / tree).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name, path, modules):
    """(line, what is imported) wherever it stands in the file; what is a name and not a module is reported as its module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield node.lineno, full if full in modules else source
        elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name)):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called in ("import_module", "__import__"):
                target = node.args[0] if node.args else None
                yield node.lineno, target.value if isinstance(target, ast.Constant) else "(a name made at run time)"


def verdict(name, imported):
    """Why this import is not allowed; empty if it is."""
    rules = [package for package in MAY_IMPORT if within(name, package)]
    # Only `edge_dsac` itself and its row fit both `edge_dsac` and an unknown edge_dsac.newcomer.
    rule = max(rules, key=len, default=None)
    if rule is None or (rule == "edge_dsac" and name != "edge_dsac"):
        return "has no row in MAY_IMPORT"
    top = imported.split(".")[0]
    if imported == "(a name made at run time)":
        return "" if within(name, "edge_dsac.cli") or within(name, "tools") else "imports what cannot be checked"
    if top in TREES:
        own = rule if rule != "edge_dsac" else ""
        allowed = any(within(imported, package) for package in (own, *MAY_IMPORT[rule]) if package) or imported == "edge_dsac"
        return "" if allowed and top != "tools" else f"may import {', '.join(MAY_IMPORT[rule]) or 'nothing of this project'}"
    if top in sys.stdlib_module_names:
        return ""
    if within(name, "tools") and (ROOT / "tools" / f"{top}.py").exists():
        return ""  # run by path, tools find their neighbours
    if top in FOREIGN:
        return "" if any(within(name, user) for user in FOREIGN[top]) else f"{top} is for {', '.join(FOREIGN[top])}"
    return f"{top} is not a dependency of this project"


def violations(root):
    modules = modules_of(root)
    return [
        f"{path.relative_to(root)}:{line}: imports {imported}: {why}"
        for name, path in modules.items()
        for line, imported in imports_of(name, path, modules)
        if (why := verdict(name, imported))
    ]


def test_every_import_keeps_to_its_layer():
    assert violations(ROOT) == []


@pytest.mark.slow
def test_the_check_sees_the_imports_there_are():
    """So that an empty answer is not an empty search."""
    modules = modules_of(ROOT)
    assert len(modules) > 60
    seen = {(name, imported) for name, path in modules.items() for _, imported in imports_of(name, path, modules)}
    assert ("edge_dsac.spec.robot", "edge_dsac.spec.checks") in seen  # inside a function
    assert ("edge_dsac.cli.spec", "sim.mjcf") in seen
    assert ("edge_dsac.cli.main", "(a name made at run time)") in seen
    assert ("firmware_bridge.port", "serial") in seen


PLANTED = [
    ("edge_dsac/loop/sly.py", "import edge_dsac.learn.losses", "edge_dsac.learn.losses"),
    ("edge_dsac/loop/sly.py", "def f():\n    from edge_dsac.learn import losses", "edge_dsac.learn"),
    ("edge_dsac/loop/sly.py", "from edge_dsac import learn", "edge_dsac.learn"),
    ("edge_dsac/loop/sly.py", "from ..learn import losses", "edge_dsac.learn"),
    ("edge_dsac/loop/__init__.py", "from ..learn import losses", "edge_dsac.learn"),
    ("edge_dsac/loop/sly.py", "import importlib\nimportlib.import_module('edge_dsac.learn.losses')", "edge_dsac.learn.losses"),
    ("edge_dsac/loop/sly.py", "from importlib import import_module\nimport_module('edge_dsac' + '.learn')", "cannot be checked"),
    ("edge_dsac/loop/sly.py", "if 0:\n    import firmware_bridge.link", "firmware_bridge.link"),
    ("edge_dsac/loop/sly.py", "def f():\n    import torch", "torch is for"),
    ("edge_dsac/loop/sly.py", "import pandas", "pandas is not a dependency"),
    ("edge_dsac/learn/sly.py", "from edge_dsac.loop.control import ControlLoop", "edge_dsac.loop.control"),
    ("edge_dsac/learn/sly.py", "import mujoco.batch", "mujoco is for"),
    ("edge_dsac/records.py", "from edge_dsac.spec.robot import RobotSpec", "nothing of this project"),
    ("edge_dsac/spec/sly.py", "import edge_dsac.loop.observer", "edge_dsac.loop.observer"),
    ("edge_dsac/steplog/sly.py", "import edge_dsac.watch.line", "edge_dsac.watch.line"),
    ("edge_dsac/bundle/sly.py", "import edge_dsac.loop.slot", "edge_dsac.loop.slot"),
    ("edge_dsac/bundle/engines.py", "import torch", "torch is for"),
    ("edge_dsac/cli/sly.py", "import tools.bench_loop", "tools.bench_loop"),
    ("edge_dsac/cli/sly.py", "import serial", "serial is for"),
    ("edge_dsac/newcomer/sly.py", "import json", "has no row"),
    ("firmware_bridge/sly.py", "import sim.plant", "sim.plant"),
    ("firmware_bridge/session.py", "import serial", "serial is for"),
    ("sim/sly.py", "import edge_dsac.loop.control", "edge_dsac.loop.control"),
    ("sim/sly.py", "import edge_dsac.learn.losses", "edge_dsac.learn.losses"),
    ("calibration/sly.py", "import sim", "imports sim"),
    ("edge_dsac/learn/sly.py", "import stable_baselines3", "stable_baselines3 is for tools"),
    ("tools/sly.py", "import tests.board_rig", "tests is not a dependency"),
]


@pytest.mark.parametrize(("path", "source", "named"), PLANTED, ids=[f"{path}-{i}" for i, (path, *_) in enumerate(PLANTED)])
def test_a_planted_violation_is_found(tmp_path, path, source, named):
    for package in ("edge_dsac/learn", "edge_dsac/loop"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    found = violations(tmp_path)
    assert found
    assert found[-1].startswith(f"{path}:{len(source.splitlines())}:")
    assert named in found[-1]


ALLOWED = [
    ("edge_dsac/loop/fine.py", "from edge_dsac.spec.robot import RobotSpec\nfrom . import control\nimport numpy.typing, os.path"),
    ("edge_dsac/cli/fine.py", "def f():\n    import sim.plant, edge_dsac.learn.losses"),
    ("edge_dsac/learn/fine.py", "import torch.nn\nfrom edge_dsac import __version__"),
    ("sim/fine.py", "from edge_dsac.loop.observer import Observer\nfrom sim.plant import Plant\nimport mujoco"),
    ("tools/fine.py", "import bench_loop, torch, mujoco, edge_dsac.loop.control"),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED, ids=[path for path, _ in ALLOWED])
def test_a_good_import_is_left_alone(tmp_path, path, source):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert violations(tmp_path) == []


def test_only_the_board_side_of_the_bridge_knows_the_port():
    """`Link` is declared by the loop: the loop runs against anything that has its three methods."""
    modules = modules_of(ROOT)
    for name, path in modules.items():
        if within(name, "edge_dsac.loop"):
            assert not [imported for _, imported in imports_of(name, path, modules) if within(imported, "firmware_bridge")]
