"""The plans a board keeps: found again, never mixed up, never half, never more than a bound."""

import json
import os

import pytest
from trt_fakes import FakeTrt

from edge_dsac.bundle.device import Device
from edge_dsac.bundle.plan_cache import NoPlan, PlanCache, load_or_build, make_key
from edge_dsac.bundle.tensorrt import BuiltPlan, PlanConfig, PlanError, Precision

ORIN = Device("Orin", 87, 12060, "NVIDIA Jetson Orin Nano Developer Kit")
TRT = FakeTrt("10.3.0")
KEY = make_key(TRT, b"onnx", PlanConfig(), ORIN)


@pytest.fixture
def cache(tmp_path):
    return PlanCache(tmp_path / "plans")


def test_a_plan_is_read_as_it_was_written(cache):
    assert "none was built yet" in cache.read(KEY).reason
    cache.write(KEY, b"a plan\nwith a line break\0", 551_296)
    assert cache.read(KEY) == b"a plan\nwith a line break\0"


OTHERS = {
    "another policy": make_key(TRT, b"onnx2", PlanConfig(), ORIN),
    "another version": make_key(FakeTrt("10.3.1"), b"onnx", PlanConfig(), ORIN),
    "the other flavour": make_key(FakeTrt("10.3.0", "tensorrt_rtx"), b"onnx", PlanConfig(), ORIN),
    "another chip": make_key(TRT, b"onnx", PlanConfig(), Device("Thor", 110, 12060, ORIN.board)),
    "another board": make_key(TRT, b"onnx", PlanConfig(), Device("Orin", 87, 12060, "NVIDIA Jetson AGX Orin")),
    "another precision": make_key(TRT, b"onnx", PlanConfig(Precision.FP16), ORIN),
    "another level": make_key(TRT, b"onnx", PlanConfig(optimisation_level=5), ORIN),
}


@pytest.mark.parametrize("other", OTHERS)
def test_nothing_that_a_plan_depends_on_may_differ(cache, other):
    cache.write(KEY, b"plan", None)
    assert isinstance(cache.read(OTHERS[other]), NoPlan)
    cache.path(KEY).rename(cache.path(OTHERS[other]))  # and a file under a wrong name is not taken by its name
    assert "was built for something else" in cache.read(OTHERS[other]).reason


@pytest.mark.parametrize("position", [0, 1, 40, -1, -4])
def test_one_changed_byte_anywhere_is_noticed(cache, position):
    cache.write(KEY, b"plan " * 100, None)
    data = bytearray(cache.path(KEY).read_bytes())
    data[position] ^= 1
    cache.path(KEY).write_bytes(data)
    assert isinstance(cache.read(KEY), NoPlan)


def test_a_file_cut_off_anywhere_is_noticed(cache):
    cache.write(KEY, b"plan " * 20, None)
    whole = cache.path(KEY).read_bytes()
    for length in (0, 1, 20, whole.index(b"\n"), whole.index(b"\n") + 1, len(whole) - 50, len(whole) - 1):
        cache.path(KEY).write_bytes(whole[:length])
        assert isinstance(cache.read(KEY), NoPlan), length


def test_json_that_is_no_header_is_noticed(cache):
    for head in (b"3", b"[]", b"null", b'{"format": 3}', b"\xff"):
        cache.path(KEY).write_bytes(head + b"\nplan")
        assert isinstance(cache.read(KEY), NoPlan)


def test_a_plan_that_others_could_write_is_not_opened(cache):
    cache.write(KEY, b"plan", None)
    assert cache.path(KEY).stat().st_mode & 0o077 == 0
    cache.path(KEY).chmod(0o666)
    assert "could be written by others" in cache.read(KEY).reason


def test_a_write_that_fails_leaves_the_old_plan_and_no_half_file(cache, monkeypatch):
    cache.write(KEY, b"old", None)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.write(KEY, b"new", None)
    monkeypatch.undo()
    assert cache.read(KEY) == b"old"
    assert [path.suffix for path in cache.folder.iterdir()] == [".plan"]


def test_the_folder_stays_within_its_bound_and_drops_what_was_unused_for_longest(tmp_path):
    cache = PlanCache(tmp_path, limit_bytes=3500)
    keys = list(OTHERS.values())[:4]
    for second, key in enumerate(keys[:3]):
        cache.write(key, b"x" * 500, None)
        os.utime(cache.path(key), (second, second))
    assert isinstance(cache.read(keys[0]), bytes)  # used: now the second is the oldest
    cache.write(keys[3], b"x" * 500, None)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3500
    assert [isinstance(cache.read(key), bytes) for key in keys] == [True, False, True, True]


def test_the_plan_just_written_stays_even_if_it_alone_is_too_large(tmp_path):
    cache = PlanCache(tmp_path, limit_bytes=10)
    cache.write(KEY, b"x" * 100, None)
    assert cache.read(KEY) == b"x" * 100


def test_a_plan_is_built_once_and_again_only_for_a_reason_that_is_said(cache):
    said, trt = [], FakeTrt("10.3.0")

    def load():
        return load_or_build(cache, trt, b"onnx", PlanConfig(), ORIN, said.append)

    assert load() == load() == b"plan of 10.3.0"
    assert trt.builds == 1
    assert said == ["building the fp32 plan: none was built yet for this policy, board and TensorRT"]
    path = next(cache.folder.iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    assert load() == b"plan of 10.3.0"
    assert trt.builds == 2
    assert said[-1].endswith("is damaged: its hash does not fit")


def test_a_build_that_is_refused_leaves_nothing_in_the_cache(cache):
    def refuse(*_):
        raise PlanError("no")

    with pytest.raises(PlanError):
        load_or_build(cache, TRT, b"onnx", PlanConfig(), ORIN, lambda _: None, refuse)
    assert list(cache.folder.iterdir()) == []


def test_what_the_builder_said_of_its_weights_is_kept_beside_the_plan(cache):
    load_or_build(cache, TRT, b"onnx", PlanConfig(), ORIN, lambda _: None, lambda *_: BuiltPlan(b"plan", 144_712, (), ()))
    assert json.loads(next(cache.folder.iterdir()).read_bytes().partition(b"\n")[0])["weights_memory"] == 144_712
