"""The runner of plans against a recorded driver: what it computes, in which order it calls, what it holds and gives back. No GPU."""

import gc
import threading

import numpy as np
import pytest
from trt_fakes import FakeCuda, FakeRuntime

from edge_dsac.bundle.cuda import CudaError
from edge_dsac.bundle.device import Device
from edge_dsac.bundle.tensorrt_engine import EngineError, TensorRtEngine
from edge_dsac.records import Observation

ORIN = Device("Orin", 87, 12060, "NVIDIA Jetson Orin Nano Developer Kit")
PLAIN_TICK = ["copy_in", "execute", "copy_out", "synchronise"]


@pytest.fixture(autouse=True, scope="module")
def only_what_is_made_here():
    """A collection then looks at nothing that other tests have imported: a millisecond instead of half a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def obs(*values):
    return Observation(np.array(values, np.float32), 0, True)


def make(cuda=None, **trt):
    cuda = cuda or FakeCuda()
    runtime = FakeRuntime(cuda, **trt)
    return TensorRtEngine(17, b"plan", ORIN, runtime, cuda), cuda, runtime


@pytest.mark.slow
def test_the_action_is_the_networks_answer_to_this_observation():
    engine, _, _ = make()
    assert engine.bundle_id == 17
    assert engine.act(obs(0.5, -1.0, 9.0)).tolist() == [0.25, -0.5]
    assert engine.act(obs(1.0, 1.0, 9.0)).tolist() == [0.5, 0.5]
    assert engine.act(obs(0.5, -1.0, 9.0)).tolist() == [0.25, -0.5]


@pytest.mark.slow
def test_the_network_runs_once_before_it_is_captured_and_a_tick_is_one_launch():
    engine, cuda, _ = make()
    calls = cuda.take()
    assert calls[:2] == ["enter_thread", "make_stream"]
    assert calls[6:] == [*PLAIN_TICK, "begin_capture", *PLAIN_TICK[:3], "end_capture"]
    assert sorted(calls[2:6]) == ["make_device_buffer", "make_device_buffer", "make_pinned_buffer", "make_pinned_buffer"]
    engine.act(obs(1, 2, 3))
    assert cuda.take() == ["launch", "synchronise"]
    assert engine.no_graph_because == ""


def test_an_answer_is_a_copy_and_the_observation_is_left_alone():
    engine, _, _ = make()
    given = obs(0.5, -1.0, 9.0)
    first = engine.act(given)
    engine.act(obs(1, 1, 1))
    assert first.tolist() == [0.25, -0.5]
    first[:] = 99.0
    assert engine.act(given).tolist() == [0.25, -0.5]
    assert given.vector.tolist() == [0.5, -1.0, 9.0]


def test_a_network_that_fails_within_a_capture_runs_without_one_and_says_why():
    engine, cuda, _ = make(fails_in_capture=True)
    calls = cuda.take()
    assert calls[calls.index("begin_capture") :] == ["begin_capture", "copy_in", "execute", "end_capture", *PLAIN_TICK]
    assert "the plan did not run" in engine.no_graph_because
    assert engine.act(obs(0.5, -1.0, 9.0)).tolist() == [0.25, -0.5]
    assert cuda.take() == PLAIN_TICK


def test_a_capture_that_the_driver_calls_invalid_costs_the_graph_and_not_the_policy():
    cuda = FakeCuda()
    cuda.forbidden = True
    engine, _, _ = make(cuda)
    assert "CAPTURE_INVALIDATED" in engine.no_graph_because
    assert engine.act(obs(0.5, -1.0, 9.0)).tolist() == [0.25, -0.5]


def test_a_plan_that_says_it_cannot_be_captured_is_not():
    engine, cuda, _ = make(capturable=False)
    assert "begin_capture" not in cuda.calls
    assert "cannot be captured" in engine.no_graph_because
    assert make(capturable=True)[0].no_graph_because == ""


def test_closing_lets_go_of_graph_network_buffers_and_stream_in_this_order_and_once():
    engine, cuda, runtime = make()
    cuda.take()
    engine.close()
    given_back = cuda.take()
    assert given_back[:4] == ["enter_thread", "synchronise", "free_graph", "(the network is gone)"]
    assert given_back[-1] == "free_stream"
    assert sorted(given_back[4:-1]) == ["free_device_buffer", "free_device_buffer", "free_pinned_buffer", "free_pinned_buffer"]
    assert cuda.held == 0
    assert runtime.living == []
    engine.close()
    assert cuda.take() == []


def test_an_engine_that_nobody_holds_gives_its_memory_back():
    engine, cuda, _ = make()
    assert cuda.held == 6  # a stream, a graph, two buffers for each of two tensors
    del engine
    gc.collect()
    assert cuda.held == 0


def test_closing_after_the_driver_has_broken_down_does_not_raise():
    engine, cuda, _ = make()
    cuda.take()
    cuda.broken = True
    engine.close()
    tried = cuda.take()
    assert tried[:3] == ["enter_thread", "synchronise", "free_graph"]  # each is tried, whatever became of the one before
    assert tried[-1] == "free_stream"


def calls_of_making():
    engine, cuda, _ = make()
    return cuda.take() if engine else []


@pytest.mark.parametrize("number", range(len(calls_of_making())), ids=[f"{i}-{name}" for i, name in enumerate(calls_of_making())])
def test_whichever_call_fails_while_it_is_made_nothing_stays_behind(number):
    cuda = FakeCuda(fail_at=number)
    try:
        engine, _, _ = make(cuda)
    except CudaError:
        gc.collect()
    else:
        assert engine.no_graph_because  # the failures that only cost the graph
        assert engine.act(obs(0.5, -1.0, 9.0)).tolist() == [0.25, -0.5]
        engine.close()
    assert cuda.held == 0


def test_another_thread_enters_the_context_once_before_its_first_launch():
    engine, cuda, _ = make()
    cuda.take()

    def two_ticks():
        engine.act(obs(1, 2, 3))
        engine.act(obs(1, 2, 3))

    thread = threading.Thread(target=two_ticks)
    thread.start()
    thread.join()
    assert cuda.take() == ["enter_thread", "launch", "synchronise", "launch", "synchronise"]


def test_an_error_of_the_driver_in_a_tick_is_raised_and_not_an_old_action():
    engine, cuda, _ = make()
    cuda.broken = True
    with pytest.raises(CudaError):
        engine.act(obs(1, 2, 3))


def test_of_two_outputs_the_one_called_action_is_taken():
    tensors = {"obs": ("INPUT", "FLOAT", (1, 3)), "command": ("OUTPUT", "FLOAT", (1, 2)), "action": ("OUTPUT", "FLOAT", (1, 2))}
    engine, cuda, _ = make(tensors=tensors)
    assert engine.act(obs(0.5, -1.0, 9.0)).tolist() == [0.25, -0.5]
    engine.close()
    assert cuda.held == 0


def tensor(mode, kind="FLOAT", shape=(1, 3)):
    return (mode, kind, shape)


BAD = {
    "unreadable": ({"readable": False}, "cannot read the plan: ERROR: the serialisation magic is wrong"),
    "no runtime": ({"starts": False}, "does not start"),
    "no context": ({"context": False}, "cannot run the plan"),
    "address refused": ({"refuses_address": True}, "refuses the buffer of obs"),
    "half observations": ({"tensors": {"obs": tensor("INPUT", "HALF"), "action": tensor("OUTPUT")}}, "obs is HALF"),
    "dynamic batch": ({"tensors": {"obs": tensor("INPUT", shape=(-1, 3)), "action": tensor("OUTPUT")}}, r"\(-1, 3\); expected FLOAT of a fixed"),
    "two inputs": ({"tensors": {"obs": tensor("INPUT"), "noise": tensor("INPUT"), "action": tensor("OUTPUT")}}, "expected one observation"),
    "no output": ({"tensors": {"obs": tensor("INPUT")}}, "expected one observation"),
    "two nameless outputs": ({"tensors": {"obs": tensor("INPUT"), "a": tensor("OUTPUT"), "b": tensor("OUTPUT")}}, "expected one observation"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_plan_that_does_not_fit_is_refused_by_name_and_leaves_nothing_behind(case):
    trt, said = BAD[case]
    cuda = FakeCuda()
    with pytest.raises(EngineError, match=said):
        make(cuda, **trt)
    gc.collect()
    assert cuda.held == 0
