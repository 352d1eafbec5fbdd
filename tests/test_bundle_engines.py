"""The engine contract, which every engine passes, and what each promises beyond it."""

import dataclasses
import io
import math

import numpy as np
import pytest

from edge_dsac.bundle.actor import NONLINEARITY, SQUASH, ActorError, gelu, load_actor, make_actor_file
from edge_dsac.bundle.baselines import CascadedPd, PurePursuit, make_baseline
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.export import make_onnx
from edge_dsac.bundle.integer import make_integer
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.bundle.ort_engine import OrtEngine
from edge_dsac.records import Observation
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import load_robot

BOT, ROVER = load_robot("balance_bot"), load_robot("rover")


def make_layers(spec, widths=(16, 16), outputs=None, seed=3):
    generator = np.random.default_rng(seed)
    sizes = [ObservationLayout(spec).size, *widths, outputs or len(spec.actions)]
    return [(generator.normal(size=(b, a)) / np.sqrt(a), generator.normal(size=b) * 0.1) for a, b in zip(sizes, sizes[1:], strict=False)]


def write(tmp_path, spec, layers, activation="gelu", squash="tanh"):
    path = tmp_path / "policy.npz"
    path.write_bytes(make_actor_file(layers, activation, spec, squash))
    return path


def mlp(tmp_path, spec, activation="gelu", squash="tanh"):
    return NumpyMlp(load_actor(write(tmp_path, spec, make_layers(spec), activation, squash), spec))


def ort(tmp_path, spec, activation="gelu", squash="tanh"):
    actor = load_actor(write(tmp_path, spec, make_layers(spec), activation, squash), spec)
    return OrtEngine(make_onnx(actor, spec), spec, actor.identity)


ENGINES = {
    "numpy on balance_bot": (BOT, lambda tmp: mlp(tmp, BOT)),
    "numpy on rover": (ROVER, lambda tmp: mlp(tmp, ROVER)),
    "numpy with elu and a clip": (BOT, lambda tmp: mlp(tmp, BOT, "elu", "clip")),
    "onnxruntime on balance_bot": (BOT, lambda tmp: ort(tmp, BOT)),
    "onnxruntime with elu and a clip": (BOT, lambda tmp: ort(tmp, BOT, "elu", "clip")),
    "onnxruntime on rover": (ROVER, lambda tmp: ort(tmp, ROVER)),
    "cascaded PD": (BOT, lambda tmp: CascadedPd(BOT)),
    "pure pursuit": (ROVER, lambda tmp: PurePursuit(ROVER)),
}


@pytest.fixture(params=ENGINES)
def case(request, tmp_path):
    spec, make = ENGINES[request.param]
    return spec, make(tmp_path)


def observations(spec, count=50):
    layout = ObservationLayout(spec)
    generator = np.random.default_rng(9)
    return [Observation(generator.uniform(-layout.clip, layout.clip).astype(np.float32), 0, True) for _ in range(count)]


@pytest.mark.slow
def test_every_engine_answers_one_entry_per_action_within_one(case):
    spec, engine = case
    for obs in observations(spec):
        action = engine.act(obs)
        assert action.shape == (len(spec.actions),)
        assert np.isfinite(action).all()
        assert np.abs(action).max() <= 1.0


@pytest.mark.slow
def test_every_engine_forgets_and_changes_nothing(case):
    spec, engine = case
    first, *others = observations(spec)
    before = first.vector.copy()
    answer = engine.act(first).copy()
    for obs in others:
        engine.act(obs)
    assert np.array_equal(engine.act(first), answer)
    assert np.array_equal(first.vector, before)


def test_every_engine_has_a_name_that_fits_the_log(case):
    assert 0 < case[1].bundle_id < 1 << 64


@pytest.mark.slow
def test_gelu_is_exact_to_float32():
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    exact = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(float)])
    assert (np.abs(gelu(x) - exact) / np.maximum(np.abs(x), 1.0)).max() < 3e-7


def test_the_network_is_what_the_weights_say(tmp_path):
    layers = make_layers(BOT)
    engine = mlp(tmp_path, BOT)
    obs = observations(BOT, 1)[0]
    x = obs.vector.astype(float) * ObservationLayout(BOT).scale
    for weight, bias in layers[:-1]:
        z = weight @ x + bias
        x = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in z])
    assert engine.act(obs) == pytest.approx(np.tanh(layers[-1][0] @ x + layers[-1][1]), abs=2e-6)


def test_elu_and_clip_are_what_they_say(tmp_path):
    weight, bias = np.zeros((2, ObservationLayout(BOT).size)), np.array([-1.0, 0.5])
    layers = [(weight, bias), (np.array([[1.0, 1.0], [0.0, 4.0]]), np.zeros(2))]
    path = write(tmp_path, BOT, layers, "elu", "clip")
    obs = observations(BOT, 1)[0]
    # elu(-1) = 1/e - 1, elu(0.5) = 0.5; their sum is 1/e - 0.5; 4 times 0.5 is 2, clipped
    assert NumpyMlp(load_actor(path, BOT)).act(obs) == pytest.approx([math.exp(-1) - 0.5, 1.0], abs=1e-6)
    assert load_actor(path, BOT).act(obs.vector) == pytest.approx([math.exp(-1) - 0.5, 1.0], abs=1e-6)


@pytest.mark.parametrize(
    ("activation", "squash", "said"), [("swish", "tanh", "the actor has swish"), ("gelu", "none", "the actor in none")]
)
def test_forms_that_do_not_know_an_actor_refuse_it(tmp_path, activation, squash, said):
    plain = load_actor(write(tmp_path, BOT, make_layers(BOT)), BOT)
    some = np.stack([obs.vector for obs in observations(BOT)])
    integer = make_integer(plain, some, ObservationLayout(BOT).clip)
    other = dataclasses.replace(plain, activation=activation, squash=squash)
    with pytest.raises(ActorError, match=f"whole numbers: .*{said}"):
        make_integer(other, some, ObservationLayout(BOT).clip)
    with pytest.raises(ActorError, match=f"the C file: .*{said}"):
        make_c(other, integer)


@pytest.mark.slow
@pytest.mark.parametrize("squash", SQUASH)
@pytest.mark.parametrize("activation", NONLINEARITY)
def test_every_actor_that_can_be_loaded_can_be_written_in_every_form(tmp_path, activation, squash):
    actor = load_actor(write(tmp_path, BOT, make_layers(BOT), activation, squash), BOT)
    some = np.stack([obs.vector for obs in observations(BOT)])
    for form in ("int8", "int16"):
        assert f"{squash}_int16(" in make_c(actor, make_integer(actor, some, ObservationLayout(BOT).clip, form))
    for precision in ("float32", "float16"):
        assert make_onnx(actor, BOT, precision)


def test_the_log_deviations_of_a_stochastic_actor_do_not_drive_motors(tmp_path):
    layers = make_layers(BOT, outputs=4)
    whole = NumpyMlp(load_actor(write(tmp_path, BOT, layers), BOT))
    means = [*layers[:-1], (layers[-1][0][:2], layers[-1][1][:2])]
    only = NumpyMlp(load_actor(write(tmp_path, BOT, means), BOT))
    obs = observations(BOT, 1)[0]
    assert whole.act(obs) == pytest.approx(only.act(obs), abs=1e-7)


def test_the_pd_leans_into_the_speed_it_wants_and_turns_left_for_a_positive_yaw():
    layout, engine = ObservationLayout(BOT), CascadedPd(BOT)
    vector = np.zeros(layout.size, np.float32)
    vector[layout.newest["pitch_rad"]] = 0.05
    assert engine.act(Observation(vector, 0, True))[0] > 0  # falling forward: drive forward, under the body
    vector[:] = 0
    vector[layout.newest["speed_target_m_s"]] = 0.5
    assert engine.act(Observation(vector, 0, True))[0] < 0  # to go forward, first lean forward: wheels back
    vector[:] = 0
    vector[layout.newest["yaw_rate_target_rad_s"]] = 1.0
    assert engine.act(Observation(vector, 0, True))[1] > 0


def test_pure_pursuit_steers_to_the_path_and_stops_for_an_obstacle():
    layout, engine = ObservationLayout(ROVER), PurePursuit(ROVER)
    vector = np.zeros(layout.size, np.float32)
    vector[layout.newest["path_ahead_m"]] = [0.15, 0.02, 0.4, 0.1, 0.7, 0.3, 1.0, 0.8]
    forward, left = engine.act(Observation(vector, 0, True))
    assert forward > 0
    assert left > 0
    vector[layout.newest["obstacle"]] = [0.3, 0.0, -0.5, 1.0]
    assert engine.act(Observation(vector, 0, True)) == pytest.approx([0.0, 0.0])


def test_a_robot_gets_the_baseline_its_file_has_gains_for():
    assert isinstance(make_baseline(BOT), CascadedPd)
    assert isinstance(make_baseline(ROVER), PurePursuit)


def test_weights_for_another_robot_are_refused(tmp_path):
    path = write(tmp_path, ROVER, make_layers(ROVER))
    with pytest.raises(ActorError, match=f"made for policy {ROVER.policy_fingerprint}, balance_bot has {BOT.policy_fingerprint}"):
        load_actor(path, BOT)


def test_weights_with_nan_are_refused(tmp_path):
    layers = make_layers(BOT)
    layers[1][0][3, 4] = np.nan
    with pytest.raises(ActorError, match="layer 1 holds NaN"):
        load_actor(write(tmp_path, BOT, layers), BOT)


def test_weights_of_the_wrong_shape_are_refused(tmp_path):
    layers = make_layers(BOT)
    layers[1] = (layers[1][0][:, :-1], layers[1][1])
    with pytest.raises(ActorError, match="layer 1 expected"):
        load_actor(write(tmp_path, BOT, layers), BOT)


def test_a_truncated_file_and_garbage_are_refused_by_name(tmp_path):
    whole = make_actor_file(make_layers(BOT), "gelu", BOT)
    path = tmp_path / "bad.npz"
    for data in (b"", b"garbage", whole[:-200], whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(ActorError):
            load_actor(path, BOT)
    with pytest.raises(ActorError, match="cannot be read"):
        load_actor(tmp_path / "absent.npz", BOT)


def test_a_file_with_a_pickled_object_is_refused(tmp_path):
    out = io.BytesIO()
    np.savez(out, w0=np.array([{"a": 1}], dtype=object))
    path = tmp_path / "evil.npz"
    path.write_bytes(out.getvalue())
    with pytest.raises(ActorError):
        load_actor(path, BOT)
