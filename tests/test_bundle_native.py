"""The generated C: the same bits as the reference on every processor that can be had here, and close to the float actor."""

import resource
import shutil
import subprocess

import numpy as np
import pytest
from actor_drill import (
    CLIP,
    QEMU_PARTS,
    as_hashes,
    drill_case,
    drill_program,
    drilled_here,
    made_integer,
    made_up_observations,
    random_actor,
)  # fmt: skip

from edge_dsac.bundle.actor import NONLINEARITY
from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.integer import LEAST_RANGE_BITS, MOST_RANGE_BITS, IntegerError, clip, make_integer, nonlinear
from edge_dsac.bundle.native_engine import NativeActor, NativeError, NativeNetwork
from edge_dsac.bundle.processor import cpu_flags
from edge_dsac.bundle.targets import TARGETS, CompileError, best_target, compile_actor, compile_for_all
from edge_dsac.records import Observation

ROBOT, PAPER = (14, 64, 64, 2), (17, 256, 256, 256, 6)
SMALL = (14, 32, 32, 2)  # for emulated processors
FORMS = [("gelu", "tanh"), ("relu", "tanh"), ("tanh", "tanh"), ("elu", "tanh"), ("elu", "clip"), ("gelu", "clip")]
HERE = [name for name, target in TARGETS.items() if best_target([target.file])]


def test_whole_numbers_stay_near_the_actor():
    for activation, squash in FORMS:
        actor = random_actor(ROBOT, activation, squash=squash)
        obs = np.random.default_rng(7).standard_normal((400, 14))
        errors = np.abs(made_integer(actor).act(obs) - actor.act(obs))
        assert errors.mean() < 0.012, (activation, squash)
        assert np.quantile(errors, 0.99) < 0.06, (activation, squash)


def test_sixteen_bits_are_ten_times_nearer():
    for activation, squash in FORMS:
        actor = random_actor(ROBOT, activation, squash=squash)
        obs = np.random.default_rng(7).standard_normal((400, 14))
        errors = np.abs(made_integer(actor, form="int16").act(obs) - actor.act(obs))
        assert errors.mean() < 0.0012, (activation, squash)
        assert np.quantile(errors, 0.99) < 0.006, (activation, squash)


def test_an_observation_of_a_small_term_is_not_lost_beside_a_large_one():
    """int8 observations would be: a term of 0.01 beside one of 10 has 12 steps of 32767, and none of 127."""
    actor = random_actor((2, 16, 1))
    first, bias = actor.layers[0]
    first[:, 0] *= 1000.0  # what the actor listens to is small
    integer = make_integer(actor, np.random.default_rng(0).uniform(-1, 1, (500, 2)) * [0.01, 10.0], np.array([10.0, 10.0]))
    small = np.stack([np.linspace(-0.01, 0.01, 21), np.zeros(21)], axis=1)
    assert np.abs(integer.act(small) - actor.act(small)).max() < 0.15
    assert len(np.unique(integer.act(small))) >= 12


def test_an_observation_that_is_no_number_or_beyond_its_clip_has_an_answer():
    integer = made_integer(random_actor(ROBOT))
    obs = np.zeros((4, 14), np.float32)
    obs[1, 0], obs[2, 0], obs[3, 0] = np.nan, np.inf, 1e30
    at_clip = np.zeros(14, np.float32)
    at_clip[0] = CLIP
    answers = integer.act(obs)
    assert np.array_equal(answers[1], answers[0])
    assert np.array_equal(answers[2], integer.act(at_clip))
    assert np.array_equal(answers[3], answers[2])


def test_no_sum_and_no_pair_of_products_can_overflow():
    """By the weights themselves, for the worst inputs there are."""
    for sizes, gain in ((ROBOT, 0.1), (ROBOT, 6.0), ((376, 256, 256, 17), 2.0)):
        integer = made_integer(random_actor(sizes, gain=gain))
        for i, layer in enumerate(integer.layers):
            size = np.abs(layer.weight.astype(np.int64))
            assert (size.sum(axis=1) * (32767 if i == 0 else 127) + np.abs(layer.bias.astype(np.int64))).max() < 2**31 - 2**30
            if layer.weight.dtype == np.int8:
                eights = size.reshape(len(size), -1, 2, 2, 2).sum(axis=(2, 4))
                assert eights.max() * 127 <= 32767


@pytest.mark.parametrize("bits", range(LEAST_RANGE_BITS, MOST_RANGE_BITS + 1))
def test_elu_of_every_whole_number_is_within_a_step_and_leaves_positive_ones_alone(bits):
    x = np.arange(-32768, 32768)
    step = 2.0 ** (bits - 15)
    found = nonlinear(x, bits, "elu")
    assert np.array_equal(found[x >= 0], x[x >= 0])
    wanted = np.expm1(np.minimum(x[x < 0] * step, 0.0))
    beyond = np.exp(-8.0)  # where the curve ends
    assert np.abs(found[x < 0] * step - wanted).max() <= 0.5 * step + max(1.2e-4, beyond if bits > 3 else 0.0)
    assert found.min() >= -(1 << (15 - bits))  # never below -1


def test_the_end_of_a_clipped_policy_is_exact_up_to_one():
    assert clip(np.array([0, 1, -1, 4095, 4096, -4095, -4096, 32767, -32768]), LEAST_RANGE_BITS).tolist() == [
        0, 8, -8, 32760, 32767, -32760, -32767, 32767, -32767
    ]  # fmt: skip


def test_sums_that_sixteen_bits_cannot_hold_are_refused():
    actor = random_actor(ROBOT, "elu")
    actor.layers[0][0][:] *= 1e5
    with pytest.raises(IntegerError, match="16 bits hold 16384; did it diverge"):
        made_integer(actor)


def test_weights_that_whole_numbers_cannot_hold_are_refused():
    actor = random_actor(ROBOT)
    actor.layers[-1][0][:] *= 1e6
    with pytest.raises(IntegerError, match="diverge"):
        made_integer(actor)


def test_the_c_file_is_the_same_for_the_same_actor():
    actor = random_actor(ROBOT)
    assert make_c(actor, made_integer(actor)) == make_c(actor, made_integer(actor))


def test_the_quickest_target_that_runs_here_is_taken():
    everything = [target.file for target in TARGETS.values()]
    assert best_target(everything, "x86_64", frozenset({"avx2", "fma", "bmi1", "bmi2", "ssse3", "sse4_1"})) is TARGETS["x86_64_v3"]
    assert best_target(everything, "x86_64", frozenset({"ssse3", "sse4_1"})) is TARGETS["x86_64_v2"]
    assert best_target(everything, "aarch64", frozenset({"asimddp"})) is TARGETS["aarch64_dotprod"]
    assert best_target(everything, "aarch64", frozenset()) is TARGETS["aarch64"]
    assert best_target(everything, "riscv64", frozenset()) is None
    assert best_target(["native/aarch64.so"], "x86_64", cpu_flags()) is None


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "squash"), FORMS)
@pytest.mark.parametrize("target", HERE)
def test_here_the_c_gives_the_references_bits_over_a_hundred_thousand_observations(target, activation, squash):
    actor, integer, wanted = drill_case(ROBOT, activation, squash)
    assert drilled_here(actor, integer, target, 100_000) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("target", HERE)
def test_in_sixteen_bits_too(target):
    for activation, squash in (("gelu", "tanh"), ("tanh", "tanh"), ("elu", "clip")):
        actor, integer, wanted = drill_case(ROBOT, activation, squash, "int16")
        assert drilled_here(actor, integer, target, 100_000) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [PAPER, (376, 256, 256, 256, 17), (3, 40, 7, 1), (1, 8, 1)])
def test_odd_and_large_sizes_give_the_references_bits(sizes):
    actor, integer, wanted = drill_case(sizes, count=3000)
    for target in HERE:
        assert drilled_here(actor, integer, target, 3000) == wanted


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-aarch64-static"), reason="qemu-aarch64-static is missing: apt-get install qemu-user-static")
@pytest.mark.parametrize("form", ["int8", "int16"])
@pytest.mark.parametrize(("activation", "squash"), [("gelu", "tanh"), ("elu", "clip")])
@pytest.mark.parametrize("cpu", ["generic", "generic+dotprod"])
def test_on_aarch64_the_bits_are_the_same(tmp_path, cpu, activation, squash, form):
    actor, integer, wanted = drill_case(SMALL, activation, squash, form)
    program = drill_program(actor, integer, 100_000, tmp_path, "aarch64-linux-musl", cpu, "-static", "-nostdlib", str(tmp_path / "actor.c"))
    done = subprocess.run(["qemu-aarch64-static", str(program)], capture_output=True, text=True, timeout=300, check=True)
    assert as_hashes(done.stdout) == wanted


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="qemu-system-arm is missing: apt-get install qemu-system-arm")
@pytest.mark.parametrize(("activation", "squash", "form"), [("gelu", "tanh", "int8"), ("elu", "clip", "int8"), ("elu", "clip", "int16")])
def test_on_a_cortex_m_the_bundles_own_object_gives_the_same_bits(tmp_path, activation, squash, form):
    actor, integer, wanted = drill_case(SMALL, activation, squash, form)
    thing = tmp_path / "cortex_m4.o"
    thing.write_bytes(compile_actor(make_c(actor, integer), TARGETS["cortex_m4"]))
    words = ["-ffreestanding", f"-I{QEMU_PARTS}", f"-Wl,-T,{QEMU_PARTS / 'mps2.ld'}", "-Wl,--gc-sections"]
    words += [str(QEMU_PARTS / "start.c"), str(thing)]
    image = drill_program(actor, integer, 100_000, tmp_path, "thumb-freestanding-eabi", "cortex_m4", *words)
    command = ["qemu-system-arm", "-M", "mps2-an386", "-kernel", str(image), "-display", "none", "-monitor", "none", "-serial", "stdio"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
    finally:
        process.kill()
        process.wait()
    assert as_hashes(line) == wanted


@pytest.fixture(scope="module")
def paper():
    actor = random_actor(PAPER)
    integer = made_integer(actor)
    return actor, integer, make_c(actor, integer)


@pytest.mark.slow
def test_every_target_compiles_within_half_a_minute_of_two_cores(paper):
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    made = compile_for_all(paper[2])
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (spent.ru_utime + spent.ru_stime - begun.ru_utime - begun.ru_stime) / 2 < 30.0  # processor time: others may be busy here
    assert set(made) == {target.file for target in TARGETS.values()}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is missing: apt-get install binutils")
def test_a_shared_object_has_nothing_to_look_up(paper, tmp_path):
    """Linked to nothing, undefined nothing: so it loads under any libc."""
    path = tmp_path / "actor.so"
    path.write_bytes(compile_actor(paper[2], TARGETS["aarch64"]))
    listed = subprocess.run(["readelf", "--dyn-syms", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in listed
    assert [line for line in listed.splitlines() if " UND " in line and "GLOBAL" in line] == []


@pytest.mark.slow
def test_the_engines_answer_as_the_actor_and_the_reference(paper):
    actor, integer, source = paper
    target = best_target([t.file for t in TARGETS.values()])
    library = compile_actor(source, target)
    _, obs = made_up_observations(60, PAPER[0])
    whole, real = (NativeActor(library, form, actor.sizes, 5) for form in ("integer", "float32"))
    given = NativeNetwork(library, actor, 5)  # the same network, its weights from outside
    for row in obs:
        seen = Observation(row, 0, True)
        assert np.array_equal(whole.act(seen), integer.act(row))
        assert np.abs(real.act(seen) - actor.act(row)).max() < 1e-5
        assert np.array_equal(given.act(seen), real.act(seen), equal_nan=True)
    first = whole.act(Observation(obs[0], 0, True))
    whole.act(Observation(obs[1], 0, True))
    assert np.array_equal(first, integer.act(obs[0]))  # an answer given away is not written over
    assert whole.bundle_id == 5


EVERY_FLOAT = """
EXPORT void actor_each(const float *obs, float *action) { for (int i = 0; i < ACTOR_OBSERVATIONS; i++) action[i] = elu_float(obs[i]); }
EXPORT void actor_end(const float *obs, float *action) { for (int i = 0; i < ACTOR_OBSERVATIONS; i++) action[i] = clip_float(obs[i]); }
"""


@pytest.mark.slow
@pytest.mark.parametrize("target", HERE)
def test_elu_and_clip_in_float32_are_right_everywhere_and_let_nan_through(target):
    count = 4096
    actor = random_actor((count, 2, 1), "elu", squash="clip")
    library = compile_actor(make_c(actor, made_integer(actor)) + EVERY_FLOAT, TARGETS[target])
    each, end = (NativeActor(library, form, (count, count), 1) for form in ("each", "end"))
    x = np.concatenate([np.linspace(-20, 4, 3000), -np.logspace(-30, 38, 1092), [0.0, np.nan, np.inf, -np.inf]]).astype(np.float32)
    seen = Observation(x, 0, True)
    found = each.act(seen)
    assert np.isnan(found[4093])
    assert np.delete(found, 4093) == pytest.approx(np.delete(NONLINEARITY["elu"](x.astype(np.float64)), 4093), abs=2e-7)
    assert np.array_equal(end.act(seen), np.clip(x, -1.0, 1.0), equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("target", HERE)
def test_elu_and_clip_in_float32_answer_as_the_actor(target):
    actor = random_actor(ROBOT, "elu", squash="clip")
    native = NativeActor(compile_actor(make_c(actor, made_integer(actor)), TARGETS[target]), "float32", ROBOT, 1)
    _, obs = made_up_observations(60, ROBOT[0])
    obs = np.nan_to_num(obs, nan=0.0, posinf=CLIP, neginf=-CLIP)
    wanted = actor.act(obs)
    assert ((np.abs(wanted) == 1.0).mean(), (np.abs(wanted) < 1.0).mean()) > (0.05, 0.05)
    assert np.array([native.act(Observation(row, 0, True)) for row in obs]) == pytest.approx(wanted, abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(17, 40, 6), (3, 7, 33, 64, 1), (5, 2)])
def test_a_network_of_any_size_runs_on_what_another_was_compiled_to(paper, sizes):
    library = compile_actor(paper[2], best_target([t.file for t in TARGETS.values()]))
    actor = random_actor(sizes, seed=9)
    network = NativeNetwork(library, actor, 1)
    assert NativeNetwork(bytes(bytearray(library)), actor, 2).library is network.library  # children carry it: loaded once
    obs = np.random.default_rng(2).standard_normal((50, sizes[0])).astype(np.float32)
    answers = np.array([network.act(Observation(row, 0, True)) for row in obs])
    assert answers == pytest.approx(actor.act(obs), abs=1e-5)


@pytest.mark.slow
def test_an_object_of_before_networks_took_weights_is_refused_with_advice():
    old = '__attribute__((visibility("default"))) void actor_float32(const float *obs, float *action) { action[0] = obs[0]; }'
    library = compile_actor(old, best_target([t.file for t in TARGETS.values()]))
    with pytest.raises(NativeError, match="of an older version; compile the policy again"):
        NativeNetwork(library, random_actor(ROBOT), 1)


def test_garbage_is_not_loaded():
    with pytest.raises(NativeError, match="cannot be loaded here"):
        NativeActor(b"\x7fELF garbage", "integer", ROBOT, 1)


@pytest.mark.slow
def test_c_that_does_not_compile_says_where():
    with pytest.raises(CompileError, match=r"x86_64_v2.so.*does not compile"):
        compile_actor("int actor(", TARGETS["x86_64_v2"])
