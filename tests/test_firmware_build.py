"""Headers that are fresh, warnings that are errors, and a core that asks nothing of libc but memcpy and memset."""

import re
import subprocess
import sys

import pytest

from firmware_bridge.build import HOST_FLAGS, build
from firmware_bridge.errors import BuildFailed
from firmware_bridge.header import FIRMWARE, c_float, generated_files


def test_every_committed_header_is_what_the_sources_make_of_it():
    stale = [str(path) for path, text in generated_files().items() if not path.exists() or path.read_text() != text]
    assert not stale, f"run: python -m firmware_bridge.header --write ({stale})"


def test_a_float_of_a_robot_file_reaches_c_exactly():
    import numpy as np

    for value in (0.1, 1 / 3, 2607.594, 1e-7, 3.0, 0.00026631584, 123456789.0):
        assert np.float32(c_float(value).rstrip("f")) == np.float32(value)
        assert re.fullmatch(r"-?[\d.]+(e[+-]\d+)?f", c_float(value))


def test_the_core_includes_no_library_beyond_string_h():
    for source in FIRMWARE.glob("*.c"):
        included = set(re.findall(r"#include <(.+?)>", source.read_text()))
        assert included <= {"string.h"}, source.name
        assert not re.search(r"\b(malloc|free|printf|memcmp|memmove|strlen|sinf|sqrtf)\s*\(", source.read_text()), source.name


@pytest.mark.slow
def test_a_firmware_that_does_not_compile_says_why(bot, tmp_path):
    source = tmp_path / "broken.c"
    source.write_text('#include "board.h"\nint tick_of(struct board *board) { return board->no_such_field; }\n')
    with pytest.raises(BuildFailed, match="(?s)x.so does not compile.*no member named 'no_such_field'.*the command was"):
        build(bot, "x.so", (str(source),), HOST_FLAGS, tmp_path)
    assert not list(tmp_path.glob("*.so"))


@pytest.mark.slow
def test_undefined_behaviour_ends_the_sanitised_board_and_a_long_fuzz_does_not(bot):
    """Random bytes, garbage frames and extreme sensors through the UBSan build, in a process of its own."""
    code = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
from board_rig import BoardRig
from edge_dsac.spec.robot import load_robot
from firmware_bridge.build import build_host_library
spec = load_robot("balance_bot")
board = BoardRig(spec, build_host_library(spec, sanitize=True)).ready()
generator = np.random.default_rng(7)
for i in range(4000):
    if i % 3 == 0:
        board.tick(generator.integers(0, 256, int(generator.integers(0, 300)), dtype=np.uint8).tobytes())
    elif i % 3 == 1:
        board.drive(*(generator.standard_normal(2) * 10.0 ** generator.integers(-40, 38)))
    else:
        board.readings["position_rad"] = generator.uniform(-1e9, 1e9, 2)
        board.readings["gyro_rad_s"] = generator.uniform(-1e3, 1e3, 3)
        board.pitch = generator.uniform(-10, 10)
        board.now_us += int(generator.integers(0, 1 << 31))
        board.tick()
    if i % 50 == 0:
        board.send(5, session=0xABCD); board.send(6)
print("survived", board.mode.name)
"""
    from pathlib import Path

    done = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("survived")
