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
    drill_program,
    drilled_here,
    expected,
    made_integer,
    made_up_observations,
    random_actor,
)  # fmt: skip

from edge_dsac.bundle.codegen import make_c
from edge_dsac.bundle.integer import IntegerError, make_integer
from edge_dsac.bundle.native_engine import NativeActor, NativeError
from edge_dsac.bundle.targets import TARGETS, CompileError, best_target, compile_actor, compile_for_all, cpu_flags
from edge_dsac.records import Observation

ROBOT, PAPER = (14, 64, 64, 2), (17, 256, 256, 256, 6)
SMALL = (14, 32, 32, 2)  # for emulated processors
HERE = [name for name, target in TARGETS.items() if best_target([target.file])]


def test_whole_numbers_stay_near_the_actor():
    for activation in ("gelu", "relu", "tanh"):
        actor = random_actor(ROBOT, activation)
        obs = np.random.default_rng(7).standard_normal((400, 14))
        errors = np.abs(made_integer(actor).act(obs) - actor.act(obs))
        assert errors.mean() < 0.012, activation
        assert np.quantile(errors, 0.99) < 0.06, activation


def test_sixteen_bits_are_ten_times_nearer():
    for activation in ("gelu", "relu", "tanh"):
        actor = random_actor(ROBOT, activation)
        obs = np.random.default_rng(7).standard_normal((400, 14))
        errors = np.abs(made_integer(actor, form="int16").act(obs) - actor.act(obs))
        assert errors.mean() < 0.0012, activation
        assert np.quantile(errors, 0.99) < 0.006, activation


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
@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
@pytest.mark.parametrize("target", HERE)
def test_here_the_c_gives_the_references_bits_over_a_hundred_thousand_observations(target, activation):
    actor = random_actor(ROBOT, activation)
    integer = made_integer(actor)
    assert drilled_here(actor, integer, target, 100_000) == expected(integer, 100_000)


@pytest.mark.slow
@pytest.mark.parametrize("target", HERE)
def test_in_sixteen_bits_too(target):
    for activation in ("gelu", "tanh"):
        actor = random_actor(ROBOT, activation)
        integer = made_integer(actor, form="int16")
        assert drilled_here(actor, integer, target, 100_000) == expected(integer, 100_000)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [PAPER, (376, 256, 256, 256, 17), (3, 40, 7, 1), (1, 8, 1)])
def test_odd_and_large_sizes_give_the_references_bits(sizes):
    actor = random_actor(sizes)
    integer = made_integer(actor)
    for target in HERE:
        assert drilled_here(actor, integer, target, 3000) == expected(integer, 3000)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-aarch64-static"), reason="qemu-aarch64-static is missing: apt-get install qemu-user-static")
@pytest.mark.parametrize("cpu", ["generic", "generic+dotprod"])
def test_on_aarch64_the_bits_are_the_same(tmp_path, cpu):
    actor = random_actor(SMALL)
    integer = made_integer(actor)
    program = drill_program(actor, integer, 100_000, tmp_path, "aarch64-linux-musl", cpu, "-static", str(tmp_path / "actor.c"))
    done = subprocess.run(["qemu-aarch64-static", str(program)], capture_output=True, text=True, timeout=300, check=True)
    assert as_hashes(done.stdout) == expected(integer, 100_000)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="qemu-system-arm is missing: apt-get install qemu-system-arm")
def test_on_a_cortex_m_the_bundles_own_object_gives_the_same_bits(tmp_path):
    actor = random_actor(SMALL)
    integer = made_integer(actor)
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
    assert as_hashes(line) == expected(integer, 100_000)


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
    for row in obs:
        seen = Observation(row, 0, True)
        assert np.array_equal(whole.act(seen), integer.act(row))
        assert np.abs(real.act(seen) - actor.act(row)).max() < 1e-5
    first = whole.act(Observation(obs[0], 0, True))
    whole.act(Observation(obs[1], 0, True))
    assert np.array_equal(first, integer.act(obs[0]))  # an answer given away is not written over
    assert whole.bundle_id == 5


def test_garbage_is_not_loaded():
    with pytest.raises(NativeError, match="cannot be loaded here"):
        NativeActor(b"\x7fELF garbage", "integer", ROBOT, 1)


@pytest.mark.slow
def test_c_that_does_not_compile_says_where():
    with pytest.raises(CompileError, match=r"x86_64_v2.so.*does not compile"):
        compile_actor("int actor(", TARGETS["x86_64_v2"])
