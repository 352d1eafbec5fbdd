"""The torch_tensorrt engine: PyTorch's side for real on the CPU, torch_tensorrt as a stand-in that answers with the exported program."""

from types import SimpleNamespace

import numpy as np
import pytest

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.device import Device, NoDevice
from edge_dsac.bundle.torch_trt import TorchTrtError, compile_actor, why_not
from edge_dsac.records import Observation

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge_dsac[train]'")
SCALE = np.array([1.0, 0.1, 20.0], np.float32)


def make_actor(seed=1, sizes=(3, 16, 16, 2), activation="gelu", identity=7, squash="tanh"):
    generator = np.random.default_rng(seed)
    layers = tuple(
        ((generator.normal(size=(b, a)) / np.sqrt(a)).astype(np.float32), generator.normal(size=b).astype(np.float32) * 0.1)
        for a, b in zip(sizes, sizes[1:], strict=False)
    )
    return Actor(layers, activation, SCALE, "f" * 8, identity, squash)


class FakeTorchTensorrt:
    """`wrong`: what compiling or refitting hands back instead of the new weights."""

    def __init__(self, wrong=None):
        self.asked, self.refits, self.wrong = {}, [], wrong
        self.dynamo = SimpleNamespace(compile=self.compile, refit_module_weights=self.refit)

    def compile(self, program, *, arg_inputs, **settings):
        self.asked = settings
        (example,) = arg_inputs
        assert isinstance(program, torch.export.ExportedProgram)
        assert tuple(example.shape) == (1, 3)
        return program.module()

    def refit(self, module, program):
        self.refits.append(module)
        return {None: program.module(), "old weights": module, "nan": lambda x: torch.full((1, 2), torch.nan)}[self.wrong]


def observations(count=20):
    generator = np.random.default_rng(5)
    return [Observation((generator.uniform(-2, 2, 3) / SCALE).astype(np.float32), 0, True) for _ in range(count)]


@pytest.fixture(scope="module")
def compiled():
    fake, actor = FakeTorchTensorrt(), make_actor()
    return compile_actor(actor, fake, "cpu"), actor, fake


@pytest.mark.slow
def test_the_compiled_actor_answers_as_the_actor_does(compiled):
    engine, actor, _ = compiled
    assert engine.bundle_id == 7
    answers = [engine.act(obs) for obs in observations()]
    for obs, action in zip(observations(), answers, strict=True):
        assert action == pytest.approx(actor.act(obs.vector), abs=1e-6)
        assert action.shape == (2,)


@pytest.mark.slow
def test_it_is_compiled_whole_refittable_and_without_tf32(compiled):
    assert compiled[2].asked == {
        "device": "cpu", "immutable_weights": False, "require_full_compilation": True, "min_block_size": 1, "disable_tf32": True,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "squash"), [("relu", "tanh"), ("tanh", "tanh"), ("elu", "tanh"), ("elu", "clip")])
def test_other_nonlinearities_come_through(activation, squash):
    actor = make_actor(activation=activation, squash=squash)
    compile_actor(actor, FakeTorchTensorrt(), "cpu")  # compares its answers with the actor's itself


@pytest.mark.slow
def test_fine_tuned_weights_go_in_without_compiling_and_the_running_engine_is_left_alone(compiled):
    engine, actor, fake = compiled
    tuned = make_actor(seed=2, identity=8)
    new = engine.refitted(tuned)
    assert fake.refits[-1] is engine.module
    assert new.bundle_id == 8
    for obs in observations():
        assert new.act(obs) == pytest.approx(tuned.act(obs.vector), abs=1e-6)
        assert engine.act(obs) == pytest.approx(actor.act(obs.vector), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["old weights", "nan"])
def test_a_refit_that_hands_back_something_else_is_noticed(wrong):
    engine = compile_actor(make_actor(), FakeTorchTensorrt(wrong), "cpu")
    with pytest.raises(TorchTrtError, match="actions are off by"):
        engine.refitted(make_actor(seed=2))


@pytest.mark.slow
def test_a_refit_needs_the_same_network(compiled):
    engine = compiled[0]
    for other in (make_actor(sizes=(3, 16, 2)), make_actor(activation="relu"), make_actor(squash="clip")):
        with pytest.raises(TorchTrtError, match=r"refit: the engine is \(3, 16, 16, 2\) gelu"):
            engine.refitted(other)


def test_without_a_gpu_it_is_not_even_imported():
    none, thor = NoDevice("no NVIDIA driver"), Device("Thor", 110, 13000, "board")
    assert why_not(none, True) == "no NVIDIA driver"
    assert "pip install 'edge_dsac[torch-tensorrt]'" in why_not(thor, False)
    assert why_not(thor, True) == ""
