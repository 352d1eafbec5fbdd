"""What a robot carries: numpy, pyserial, cobs and cryptography on Python 3.10; no torch, no MuJoCo, no compiler."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_flight import flight_folder
from test_layers import ROOT, modules_of, within

NOT_ON_A_ROBOT = (
    "torch",
    "onnx",
    "onnxruntime",
    "yaml",
    "mujoco",
    "gymnasium",
    "matplotlib",
    "PIL",
    "ziglang",
    "mcap",
    "hypothesis",
    "tyro",
    "tensorboard",
    "tensorrt",
    "tensorrt_rtx",
    "torch_tensorrt",
)
# What only a desktop imports. All other modules of edge_dsac and firmware_bridge are the robot's.
DESKTOP = (
    "edge_dsac.learn", "edge_dsac.cli.train", "edge_dsac.watch.picture", "edge_dsac.watch.training", "edge_dsac.bundle.export",
    "edge_dsac.bundle.quantize", "edge_dsac.bundle.quantize_fp8", "edge_dsac.cli.judging", "edge_dsac.cli.compile", "edge_dsac.watch.compiled", "edge_dsac.watch.tuned",
    "edge_dsac.cli.budget", "edge_dsac.cli.distilling", "edge_dsac.cli.from_logs", "edge_dsac.cli.source",
    "sim", "tools", "calibration",
)  # fmt: skip

WITHOUT = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {NOT_ON_A_ROBOT!r} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def robot_modules():
    return {name: path for name, path in modules_of(ROOT).items() if not any(within(name, desktop) for desktop in DESKTOP)}


def on_a_robot(code, *arguments):
    """A fresh interpreter in which nothing that a robot lacks can be imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )


@pytest.mark.slow
def test_what_a_robot_needs_imports_without_what_a_robot_lacks():
    names = sorted(robot_modules())
    for wanted in (
        "edge_dsac.records", "edge_dsac.spec.robot", "edge_dsac.loop.control", "edge_dsac.bundle.engines", "edge_dsac.bundle.package", "edge_dsac.cli.bundle", "edge_dsac.cli.keys", "edge_dsac.steplog.recorder",
        "edge_dsac.cli.main", "edge_dsac.cli.run", "edge_dsac.cli.log", "edge_dsac.watch.line", "firmware_bridge.link",
        "firmware_bridge.port", "firmware_bridge.session", "firmware_bridge.wire",
    ):  # fmt: skip
        assert wanted in names
    done = on_a_robot(
        "import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
        f"print(sorted(set({NOT_ON_A_ROBOT!r}) & set(sys.modules)))",
        *names,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_check_would_notice():
    for code in ("import torch", "import mujoco.batch", "import edge_dsac.learn.losses", "import sim.plant"):
        done = on_a_robot(code)
        assert done.returncode == 1
        assert re.search(r"No module named '(torch|mujoco)", done.stderr)


MAIN = "from edge_dsac.cli.main import main\nsys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["log", "--help"], ["watch", "--help"], ["spec", "--help"], ["verify", "--help"], ["keys", "--help"]],
    ids=" ".join,
)
def test_help_is_there_on_a_robot(words):
    done = on_a_robot(MAIN, *words)
    assert done.returncode == 0, done.stderr
    assert "usage: edge-dsac" in done.stdout


@pytest.mark.slow
def test_a_dry_run_of_the_loop_works_on_a_robot():
    done = on_a_robot(MAIN, "run", "--robot", "balance_bot", "--port", "/dev/nothing", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing was opened" in done.stdout


@pytest.mark.slow
def test_on_a_robot_the_robot_file_is_checked_and_the_model_is_said_to_be_not():
    done = on_a_robot(MAIN, "spec", "check", "balance_bot", "rover")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("MuJoCo model NOT checked: mujoco is not installed") == 2


@pytest.mark.slow
def test_a_desktop_verb_on_a_robot_says_what_is_missing(bot, tmp_path):
    folder = flight_folder(tmp_path / "flight", bot, 2)
    for verb, words, said in (
        (
            "mcu",
            ["--robot", "balance_bot", "--link", str(tmp_path / "board")],
            "pip install 'edge_dsac[sim]'",
        ),  # a compiler or MuJoCo, as it comes
        ("log", ["plot", str(folder), "-o", str(tmp_path / "x.png")], "needs the package matplotlib: pip install 'edge_dsac[sim]'"),
    ):
        done = on_a_robot(MAIN, verb, *words)
        assert done.returncode == 1
        assert done.stderr.startswith(f"edge-dsac {verb}: ")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_mcap_on_a_robot_says_what_is_missing(bot, tmp_path):
    folder = flight_folder(tmp_path / "flight", bot, 2)
    done = on_a_robot(MAIN, "log", "export", str(folder), "--format", "mcap", "-o", str(tmp_path / "x.mcap"))
    assert done.returncode == 1
    assert done.stderr.strip() == "edge-dsac log: MCAP export needs the package mcap: pip install 'edge_dsac[log]'"


@pytest.mark.slow
def test_the_robots_code_is_python_3_10():
    """Grammar alone; ast knows no newer one than asked for."""
    with pytest.raises(SyntaxError):
        ast.parse("try: pass\nexcept* ValueError: pass", feature_version=(3, 10))
    for path in robot_modules().values():
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))


TOMLI = """
from typing import Any
class TOMLDecodeError(ValueError): ...
def loads(text: str, /) -> dict[str, Any]: ...
"""


@pytest.mark.slow
def test_the_robots_code_passes_mypy_as_python_3_10(tmp_path):
    """The library as of 3.10: no tomllib, no StrEnum, no Self, no ExceptionGroup."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "tomli.pyi").write_text(TOMLI)  # installed on 3.10 alone
    words = [sys.executable, "-m", "mypy", "--python-version", "3.10", "--cache-dir", str(ROOT / ".mypy_cache" / "as-3.10")]
    for name in sorted(robot_modules()):
        words += ["-m", name]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "MYPYPATH": f"{ROOT}:{tmp_path}"}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def real_python_3_10():
    places = [
        *sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python")),
        Path("/usr/bin/python3.10"),
        Path("/usr/local/bin/python3.10"),
    ]
    return next((place for place in places if place.exists()), None)


@pytest.mark.slow
def test_a_real_python_3_10_compiles_all_of_it(tmp_path):
    python = real_python_3_10()
    if python is None:
        pytest.skip("no Python 3.10 in ~/.pyenv/versions, /usr/bin or /usr/local/bin")
    files = [str(path) for path in robot_modules().values()]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}  # or it would write beside the sources
    done = subprocess.run([str(python), "-m", "compileall", "-q", *files], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.rglob("*.pyc"))) == len(files)
