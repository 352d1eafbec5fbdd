"""What many tests share: the two robots, and a compiled board."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_dsac.spec.robot import load_robot

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # sim_flight: benches and tests fly alike


def pytest_configure(config):
    from realtime import Again

    config.pluginmanager.register(Again())


@pytest.fixture(scope="session")
def bot():
    return load_robot("balance_bot")


@pytest.fixture(scope="session")
def rover():
    return load_robot("rover")


@pytest.fixture(scope="session")
def bot_library(bot):
    from firmware_bridge.build import build_host_library

    return build_host_library(bot)


@pytest.fixture
def generator():
    """EDGE_DSAC_RANDOM=SEED changes the seed of every random test; it is printed."""
    seed = int(os.environ.get("EDGE_DSAC_RANDOM", "12345"))
    print(f"seed {seed}")
    return np.random.default_rng(seed)
