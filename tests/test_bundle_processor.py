"""A PC, a Jetson and a machine that says nothing."""

import platform

import pytest

from edge_dsac.bundle.processor import board_model, cpu_flags, cpu_kind, cpu_name

CORE = "processor\t: {i}\nmodel name\t: Xeon: the 3rd\ncpu MHz\t\t: 3{i}00.0\nflags\t\t: fpu avx2\n\n"
ARM = "processor\t: {i}\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd\nCPU part\t: 0xd42\n\n"


@pytest.fixture
def machine(tmp_path):
    def of(core, cores=2):
        path = tmp_path / f"cpuinfo{abs(hash(core))}"
        path.write_text("".join(core.format(i=i) for i in range(cores)))
        return path

    return of


def test_a_pc(machine):
    assert cpu_name(machine(CORE)) == "Xeon: the 3rd"
    assert cpu_flags(machine(CORE)) == {"fpu", "avx2"}


def test_the_kind_is_what_rounds_and_not_the_clock_or_the_number_of_cores(machine):
    assert cpu_kind(machine(CORE)) == "flags: fpu avx2\nmodel name: Xeon: the 3rd"
    assert cpu_kind(machine(CORE + "#", cores=4)) == cpu_kind(machine(CORE))


def test_an_arm_has_features_and_parts_and_no_name(machine):
    assert cpu_flags(machine(ARM)) == {"fp", "asimd"}
    assert cpu_kind(machine(ARM)) == "CPU part: 0xd42\nFeatures: fp asimd"
    assert cpu_name(machine(ARM)) == (platform.processor() or "unknown processor")


def test_elsewhere_nothing_is_known_and_nothing_fails(tmp_path):
    assert cpu_flags(tmp_path / "absent") == frozenset()
    assert cpu_kind(tmp_path / "absent") == platform.processor()


def test_a_board_says_its_name_and_a_pc_has_none(tmp_path):
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert board_model(tmp_path / "model") == "NVIDIA Jetson Orin Nano Developer Kit"
    assert board_model(tmp_path / "absent") == ""
