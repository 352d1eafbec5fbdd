"""What may differ between robots: drawn within its range, read as strictly as a robot file."""

import dataclasses
from importlib import resources

import numpy as np
import pytest

from edge_dsac.spec.schema import SpecError
from sim.plant import Plant
from sim.randomize import PER_AXIS, Ranges, draw, load_ranges, shipped_ranges

NAMES = [field.name for field in dataclasses.fields(Ranges)]


def file_with(folder, old, new):
    text = (resources.files("sim") / "randomization" / "full.toml").read_text(encoding="utf-8")
    assert old in text
    path = folder / "mine.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return str(path)


def refusal(path):
    with pytest.raises(SpecError) as caught:
        load_ranges(path)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_draw_stays_in_its_range_and_uses_it(name, generator):
    ranges = load_ranges("full")
    low, high = getattr(ranges, name)
    values = draw(ranges, 4000, generator)[name]
    assert values.shape == ((4000, 3) if name in PER_AXIS else (4000,))
    assert values.min() >= low
    assert values.max() <= high
    # Of 4000 uniform numbers none in the outer hundredth: 0.99 ** 4000 = 3e-18.
    assert values.min() <= low + 0.01 * (high - low)
    assert values.max() >= high - 0.01 * (high - low)


def test_a_bias_is_drawn_anew_for_each_axis(generator):
    bias = draw(load_ranges("full"), 50, generator)["gyro_bias_rad_s"]
    assert abs(np.corrcoef(bias.T) - np.eye(3)).max() < 0.6
    assert not np.allclose(bias[:, 0], bias[:, 1])


def test_a_range_of_one_value_is_that_value_and_draws_nothing():
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    drawn = draw(load_ranges("nominal"), 3, one)
    assert drawn["mass_scale"].tolist() == [1.0, 1.0, 1.0]
    assert drawn["delay_s"].tolist() == [0.002, 0.002, 0.002]
    assert one.random() == other.random()


def test_every_shipped_set_loads_and_the_nominal_robot_lies_within_full():
    assert shipped_ranges() == ["full", "hidden", "narrow", "nominal"]
    full, nominal = load_ranges("full"), load_ranges("nominal")
    load_ranges("hidden")
    for name in NAMES:
        assert getattr(full, name)[0] <= getattr(nominal, name)[0]
        assert getattr(nominal, name)[1] <= getattr(full, name)[1]


def test_what_is_drawn_reaches_each_robots_own_physics(bot):
    plant = Plant(bot, 4, 11, load_ranges("full"))
    drawn, fields, base = plant.drawn, plant.fields, plant.base
    for i in range(4):
        assert fields["body_mass"][i] == pytest.approx(base["body_mass"] * drawn["mass_scale"][i])
        assert fields["actuator_gainprm"][i, :, 1] == pytest.approx(base["actuator_gainprm"][:, 1] * drawn["motor_constant_scale"][i])
        assert fields["actuator_delay"][i] == pytest.approx([drawn["delay_s"][i]] * 2)
        assert fields["dof_damping"][i] == pytest.approx(base["dof_damping"] * drawn["damping_scale"][i])
        assert fields["dof_frictionloss"][i] == pytest.approx(base["dof_frictionloss"] * drawn["friction_scale"][i])
        for tyre in plant.tyres:
            assert fields["geom_size"][i, tyre, 0] == pytest.approx(0.04 * drawn["wheel_radius_scale"][i])
            assert fields["geom_friction"][i, tyre, 0] == pytest.approx(0.9 * drawn["ground_friction_scale"][i])
        moved = fields["body_ipos"][i, plant.chassis] - base["body_ipos"][plant.chassis]
        assert moved == pytest.approx([drawn["com_forward_m"][i], 0.0, drawn["com_up_m"][i]])
    assert len(set(drawn["mass_scale"])) == 4


def test_drawing_again_scales_the_designed_robot_and_not_the_last_one(bot):
    plant = Plant(bot, 2, 3, load_ranges("full"))
    for _ in range(20):
        plant.reset()
    assert plant.fields["body_mass"][0] == pytest.approx(plant.base["body_mass"] * plant.drawn["mass_scale"][0])
    assert plant.fields["body_ipos"][1, plant.chassis, 2] == pytest.approx(
        plant.base["body_ipos"][plant.chassis, 2] + plant.drawn["com_up_m"][1]
    )


def test_an_unknown_key_is_refused_with_its_line_and_a_guess(tmp_path):
    message = refusal(file_with(tmp_path, "mass_scale", "mas_scale"))
    assert "mine.toml:2" in message
    assert "'mas_scale'" in message
    assert "did you mean 'mass_scale'?" in message


def test_a_missing_key_is_named(tmp_path):
    assert "dead_band" in refusal(file_with(tmp_path, "dead_band = [0.0, 0.09]\n", ""))


def test_a_range_the_wrong_way_round_is_refused_by_key(tmp_path):
    message = refusal(file_with(tmp_path, "mass_scale = [0.8, 1.5]", "mass_scale = [1.5, 0.8]"))
    assert "mass_scale" in message
    assert "[1.5, 0.8]" in message


@pytest.mark.parametrize("bad", ["[0.8]", "[0.8, 1.0, 1.5]", "1.0", "[0.8, 50.0]", '["a", "b"]', "[nan, 1.0]"])
def test_a_value_that_is_no_range_is_refused_by_key(tmp_path, bad):
    assert "mass_scale" in refusal(file_with(tmp_path, "mass_scale = [0.8, 1.5]", f"mass_scale = {bad}"))


def test_an_unknown_set_gets_a_guess_and_a_missing_file_its_path(tmp_path):
    assert "did you mean 'nominal'?" in refusal("nominl")
    assert "full, hidden, narrow, nominal" in refusal("zzz")
    assert "none.toml" in refusal(str(tmp_path / "none.toml"))


def test_a_file_that_is_no_text_is_refused_by_path(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "binary.toml" in refusal(str(path))
