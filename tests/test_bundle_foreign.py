"""Foreign policies against a robot file: what is known, missing, assumed; and that what is taken over drives as it did where it came from."""

import dataclasses
import re

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'edge_dsac[compile]'")
pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'edge_dsac[compile]'")

from foreign_files import (
    FRAME,
    MJLAB_ANSWERS,
    RL_SAR,
    RL_SAR_BASE,
    UNITREE_RL_GYM,
    UNITREE_RL_LAB,
    mjlab_metadata,
    normaliser,
    plain,
    random_layers,
    two_torques,
)

from edge_dsac.bundle.actor import ActorError, load_actor
from edge_dsac.bundle.foreign import import_policy
from edge_dsac.bundle.foreign_answers import answers_from_text, make_template
from edge_dsac.bundle.foreign_file import ForeignError
from edge_dsac.bundle.numpy_engine import NumpyMlp
from edge_dsac.records import Observation
from edge_dsac.spec.layout import ActionLayout, ObservationLayout
from edge_dsac.spec.robot import load_robot, robot_from_text
from edge_dsac.spec.schema import SpecError

BOT = load_robot("balance_bot")
ONE, THREE = two_torques(), two_torques(history=3)
MEAN, STD = np.linspace(-0.2, 0.2, FRAME), np.linspace(0.5, 1.5, FRAME)


def taken(tmp_path, spec, model, *yaml, answers=""):
    (tmp_path / "policy.onnx").write_bytes(model)
    paths = []
    for i, text in enumerate(yaml):
        paths.append(tmp_path / f"{i}.yaml")
        paths[-1].write_text(text)
    return import_policy(tmp_path / "policy.onnx", paths, spec, answers_from_text(answers, "answers.toml"))


def mjlab(layers=None, after=None, before=None, **metadata):
    return plain(layers or random_layers(FRAME), before=before, after=after).model(FRAME, mjlab_metadata(**metadata))


def rl_sar(**more):
    return plain(random_layers(3 * FRAME)).model(3 * FRAME, **more)


def what(imported):
    return [entry.what for entry in imported.missing]


# ---- the robot as the other project's runtime sees it


@dataclasses.dataclass
class Tick:
    gyro: np.ndarray
    speed: float
    yaw_rate: float
    position: np.ndarray  # from home
    velocity: np.ndarray
    applied: np.ndarray  # in [-1, 1]


def ticks(count, seed=4):
    generator = np.random.default_rng(seed)
    return [
        Tick(
            generator.uniform(-4, 4, 3),
            *generator.uniform(-0.9, 0.9, 2),
            generator.uniform(-1, 1, 2),
            generator.uniform(-20, 20, 2),
            generator.uniform(-1, 1, 2),
        )
        for _ in range(count)
    ]  # newest first


def ours(spec, history):
    """Each term, its newest step first: the robot file's layout."""
    rows = ([t.gyro for t in history], [[t.speed] for t in history], [[t.yaw_rate] for t in history], [t.position for t in history],
            [t.velocity for t in history], [t.applied for t in history])  # fmt: skip
    vector = np.concatenate([np.concatenate(row) for row in rows])
    assert len(vector) == ObservationLayout(spec).size
    return vector


def frame(tick, gyro=0.25, commands=(2.0, 2.0, 0.25), action_scale=1.5):
    """One step of theirs. The last action is a raw output: full command is 2 N m here, 1.5 N m an output of 1 there."""
    command = np.array([tick.speed, 0.0, tick.yaw_rate]) * commands
    return [tick.gyro * gyro, command, tick.position, tick.velocity * 0.05, tick.applied * 2.0 / action_scale]


def torques(layers, seen, action_scale=1.5):
    x = seen
    for weight, bias in layers[:-1]:
        sums = weight @ x + bias
        x = np.where(sums > 0, sums, np.exp(np.minimum(sums, 0)) - 1)
    return np.clip((layers[-1][0] @ x + layers[-1][1]) * action_scale, -2.0, 2.0)


def agrees(imported, spec, history, wanted):
    engine = NumpyMlp(imported.actor)
    action = engine.act(Observation(ours(spec, history).astype(np.float32), 0, True))
    assert action @ ActionLayout(spec).to_command == pytest.approx(wanted, abs=2e-5)
    assert imported.actor.act(ours(spec, history)) @ ActionLayout(spec).to_command == pytest.approx(wanted, abs=2e-5)


@pytest.mark.slow
def test_a_policy_of_mjlab_with_answers_drives_as_it_did_there(tmp_path):
    layers = random_layers(FRAME)
    imported = taken(tmp_path, ONE, mjlab(layers, before=normaliser(MEAN, STD)), answers=MJLAB_ANSWERS)
    assert imported.missing == []
    assert imported.largest_error < 1e-5
    seen_different = set()
    for seed in range(8):
        history = ticks(1, seed)
        seen = np.concatenate(frame(history[0], commands=(1.0, 1.0, 1.0)))
        wanted = torques(layers, (seen - MEAN) / (STD + 0.01))
        agrees(imported, ONE, history, wanted)
        seen_different.add(tuple(np.round(wanted, 3)))
    assert len(seen_different) > 4  # not all at the clip


@pytest.mark.slow
def test_a_policy_of_rl_sar_sees_whole_steps_oldest_first(tmp_path):
    imported = taken(tmp_path, THREE, rl_sar(), RL_SAR_BASE, RL_SAR, answers='command_unit = "torque_nm"')
    assert imported.missing == []
    history = ticks(3)
    seen = np.concatenate([np.concatenate(frame(tick)) for tick in reversed(history)])
    agrees(imported, THREE, history, torques(random_layers(3 * FRAME), seen))


@pytest.mark.slow
def test_rl_sar_may_list_the_newest_first_or_stack_by_term(tmp_path):
    newest = RL_SAR.replace("[2, 1, 0]", "[0, 1, 2]")
    history = ticks(3)
    imported = taken(tmp_path, THREE, rl_sar(), RL_SAR_BASE, newest, answers='command_unit = "torque_nm"')
    seen = np.concatenate([np.concatenate(frame(tick)) for tick in history])
    agrees(imported, THREE, history, torques(random_layers(3 * FRAME), seen))
    by_term = RL_SAR.replace('priority: "time"', 'priority: "term"')
    imported = taken(tmp_path, THREE, rl_sar(), RL_SAR_BASE, by_term, answers='command_unit = "torque_nm"')
    seen = np.concatenate([np.concatenate(row) for row in zip(*(frame(tick) for tick in reversed(history)), strict=True)])
    agrees(imported, THREE, history, torques(random_layers(3 * FRAME), seen))


@pytest.mark.slow
@pytest.mark.parametrize("by_time", [False, True])
def test_a_policy_of_unitree_rl_lab_sees_each_terms_steps_unless_told_otherwise(tmp_path, by_time):
    text = UNITREE_RL_LAB.replace("observations:\n", "observations:\n  use_gym_history: true\n") if by_time else UNITREE_RL_LAB
    answers = 'joint_names = ["left_wheel", "right_wheel"]\ncommand_unit = "torque_nm"'
    imported = taken(tmp_path, THREE, rl_sar(), text, answers=answers)
    assert any("joint_ids_map" in line for line in imported.assumed)
    history = ticks(3)
    frames = [frame(tick, gyro=0.2, commands=(1.0, 1.0, 1.0)) for tick in reversed(history)]
    rows = frames if by_time else zip(*frames, strict=True)
    seen = np.concatenate([np.concatenate(row) for row in rows])
    agrees(imported, THREE, history, torques(random_layers(3 * FRAME), seen))


@pytest.mark.slow
def test_a_policy_of_unitree_rl_gym_gets_its_order_from_answers_and_its_scales_from_the_file(tmp_path):
    model = plain(random_layers(FRAME)).model(FRAME)
    imported = taken(tmp_path, ONE, model, UNITREE_RL_GYM)
    assert what(imported) == ["joint_names", "observation_names", "observation_scales", "history", "history_first", "command_unit"]
    answers = """
    joint_names = ["left_wheel", "right_wheel"]
    observation_names = ["ang_vel", "commands", "dof_pos", "dof_vel", "actions"]
    history = [1, 1, 1, 1, 1]
    command_unit = "torque_nm"
    """
    imported = taken(tmp_path, ONE, model, UNITREE_RL_GYM, answers=answers)
    assert imported.missing == []
    history = ticks(1)
    agrees(imported, ONE, history, torques(random_layers(FRAME), np.concatenate(frame(history[0]))))


def test_joint_efforts_become_the_robots_mixed_actions(tmp_path):
    """balance_bot's actions are common and differential; a plain last layer takes any mix."""
    size = ObservationLayout(BOT).size
    names = ",".join(entry.term for entry in BOT.observations)
    layers = [(weight * 0.2, bias) for weight, bias in random_layers(size)]
    metadata = mjlab_metadata(observation_names=names, default_joint_pos="0.000,0.000", action_scale="0.700")
    answers = """
    control_hz = 100
    observation_scales = [1, 1, 1, 1, 1, 1, 1, 1]
    history = [1, 1, 1, 1, 1, 1, 1, 2]
    history_by = "term"
    history_first = "newest"
    command_unit = "duty"
    """
    imported = taken(tmp_path, BOT, plain(layers).model(size, metadata), answers=answers)
    obs = np.random.default_rng(2).uniform(-1, 1, size)
    seen = obs.copy()
    for age in range(2):  # common and differential back to duties over 0.7
        common, differential = obs[7 + 2 * age : 9 + 2 * age]
        seen[7 + 2 * age : 9 + 2 * age] = np.array([0.8 * common - 0.2 * differential, 0.8 * common + 0.2 * differential]) / 0.7
    left, right = torques(layers, seen, action_scale=0.7)
    assert max(abs(left), abs(right)) < 0.5
    assert imported.actor.act(obs) == pytest.approx([(left + right) / 1.6, np.clip((right - left) / 0.4, -1, 1)], abs=1e-5)


def test_outputs_that_are_the_robots_actions_end_in_tanh_as_ours_do(tmp_path):
    size = ObservationLayout(BOT).size
    layers = random_layers(size)
    names = ",".join(entry.term for entry in BOT.observations)
    model = plain(layers, "gelu in pieces", after=lambda graph: graph.add("Tanh")).model(size, {"observation_names": names})
    answers = """
    outputs = "actions"
    control_hz = 100
    observation_scales = [4, 0.5, 1.5, 0.4, 1.5, 0.4, 1.5, 1]
    history = [1, 1, 1, 1, 1, 1, 1, 2]
    history_by = "term"
    history_first = "newest"
    """
    imported = taken(tmp_path, BOT, model, answers=answers)
    assert (imported.actor.activation, imported.actor.squash) == ("gelu", "tanh")
    for (weight, bias), (theirs, their_bias) in zip(imported.actor.layers, layers, strict=True):
        assert weight == pytest.approx(theirs, abs=1e-6)
        assert bias == pytest.approx(their_bias, abs=1e-6)


def test_the_weights_are_a_file_the_loop_loads_with_its_assumptions(tmp_path):
    imported = taken(tmp_path, ONE, mjlab(), answers=MJLAB_ANSWERS)
    (tmp_path / "actor.npz").write_bytes(imported.file)
    actor = load_actor(tmp_path / "actor.npz", ONE)
    assert actor.identity == imported.actor.identity
    assert (actor.activation, actor.squash) == ("elu", "clip")
    assert list(actor.assumed) == imported.assumed
    assert any("clipped" in line for line in actor.assumed)
    assert any("rounded to 3 decimals" in line for line in actor.assumed)
    with pytest.raises(ActorError, match="made for policy"):
        load_actor(tmp_path / "actor.npz", THREE)


# ---- what is missing


def test_what_mjlab_does_not_write_is_missing_and_no_weights_come_out(tmp_path):
    imported = taken(tmp_path, ONE, mjlab())
    assert what(imported) == ["control_hz", "observation_scales", "history", "history_first", "command_unit"]
    assert imported.actor is None
    assert imported.file == b""
    assert all(entry.why and entry.how for entry in imported.missing)
    assert imported.known["joint_names"].value == ("left_wheel", "right_wheel")


def test_nothing_at_all_is_known_of_a_bare_network(tmp_path):
    imported = taken(tmp_path, ONE, plain(random_layers(FRAME)).model(FRAME))
    assert {"joint_names", "observation_names", "default_position", "action_scale"} <= set(what(imported))
    assert list(imported.known) == ["network"]


def test_rl_sar_before_its_priority_key_read_histories_both_ways_so_ours_asks(tmp_path):
    old = RL_SAR.replace('  observations_history_priority: "time"\n', "")
    imported = taken(tmp_path, THREE, rl_sar(), RL_SAR_BASE, old)
    assert what(imported) == ["history", "history_by", "history_first", "command_unit"]


def test_with_a_joint_mapping_the_names_of_rl_sar_are_asked_for(tmp_path):
    mapped = RL_SAR_BASE.replace("joint_mapping: [0, 1]", "joint_mapping: [1, 0]")
    imported = taken(tmp_path, THREE, rl_sar(), mapped, RL_SAR)
    assert what(imported) == ["joint_names", "command_unit"]
    assert any("joint_mapping" in line for line in imported.assumed)


def test_a_template_filled_in_with_the_robots_own_values_is_complete(tmp_path):
    model = plain(random_layers(FRAME - 1)).model(FRAME - 1)  # no y command, as the template names the robot file's terms
    template = make_template(taken(tmp_path, ONE, model).missing, ONE)
    assert answers_from_text(template, "template.toml") == {}  # nothing is answered before somebody removed a '#'
    filled = re.sub(r"^# (\w+ = )(?!\"actions\")", r"\1", template, flags=re.M)
    assert taken(tmp_path, ONE, model, answers=filled).missing == []


def test_an_unknown_answer_says_what_was_meant():
    with pytest.raises(SpecError, match=r"answers.toml:1: .*did you mean 'control_hz'"):
        answers_from_text("control_rate_hz = 100", "answers.toml")


def test_answers_do_not_overrule_files_but_may_have_more_digits(tmp_path):
    with pytest.raises(ForeignError, match=r"action_scale = \(1.4,\), but .*policy.onnx says \(1.5, 1.5\)"):
        taken(tmp_path, ONE, mjlab(), answers="action_scale = [1.4]")
    with pytest.raises(ForeignError, match="joint_names"):
        taken(tmp_path, ONE, mjlab(), answers='joint_names = ["right_wheel", "left_wheel"]')
    assert taken(tmp_path, ONE, mjlab(), answers="action_scale = [1.5004, 1.5]").known["action_scale"].value == (1.5004, 1.5)


def test_an_order_inside_a_history_must_be_answered_whole():
    with pytest.raises(ForeignError, match="give history_first too"):
        answers_from_text("history = [3, 3]", "answers.toml")
    with pytest.raises(ForeignError, match="give history too"):
        answers_from_text('history_first = "oldest"', "answers.toml")


# ---- what differs from the robot file

DIFFERENT = {
    "joints in another order": ({"joint_names": "right_wheel,left_wheel"}, "", "joint 0 is right_wheel, the robot file has left_wheel there: the same names in another"),
    "another joint": ({"joint_names": "left_wheel,hip"}, "", "joints: only the policy has hip, only the robot file has right_wheel"),
    "observations in another order": (
        {"observation_names": "base_ang_vel,velocity_commands,joint_vel,joint_pos,actions"}, "",
        "observation 3 is joint_velocity_rad_s, the robot file has joint_position_rad there",
    ),
    "an observation the robot has not": ({"observation_names": "base_ang_vel,projected_gravity"}, "", "nothing on the robot is called projected_gravity"),
    "an observation less": ({"observation_names": "base_ang_vel,velocity_commands,joint_pos,joint_vel"}, "", "only the robot file has applied_action"),
    "another home": ({"default_joint_pos": "0.300,0.250"}, "", "right_wheel has its default position at 0.25 rad, the robot file has home_rad = -0.25"),
    "gains": ({"joint_stiffness": "40.179,99.098", "joint_damping": "2.558,6.309"}, "", "target positions held by gains up to 99.098, the board takes torque_nm"),
    "a recorded motion": ({"command_names": "motion"}, "", "its command is a recorded motion"),
    "another rate": ({}, MJLAB_ANSWERS.replace("100", "50"), "runs at 50 Hz, the robot file has control_hz = 100"),
    "another unit": ({}, MJLAB_ANSWERS.replace("torque_nm", "duty"), "commands are duty, the robot file has torque_nm"),
    "another history": ({}, MJLAB_ANSWERS.replace("[1, 1, 1, 1, 1]", "[2, 1, 1, 1, 1]") + 'history_by = "term"\nhistory_first = "oldest"', r"base_ang_vel stacks 2 steps, \[0, 1\] back; the robot file has history = 1"),
    "too few scales": ({}, MJLAB_ANSWERS.replace("[0.25, 1.0, 1.0, 0.05, 1.0]", "[0.25, 1.0]"), "observation_scales has"),
    "no scale of the action": ({"action_scale": "0.000"}, MJLAB_ANSWERS, "expected more than zero"),
    "a number that is none": ({"action_scale": "1.5,nan"}, "", "action_scale: expected a number, got 'nan'"),
    "three scales for two joints": ({"action_scale": "1.5,1.5,1.5"}, MJLAB_ANSWERS, "2 outputs and 3 numbers in action_scale"),
    "outputs of two kinds": ({}, MJLAB_ANSWERS + 'outputs = "actions"', "outputs = 'actions', but .* has an action_scale"),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_from_the_robot_file_is_said_by_name(tmp_path, case):
    metadata, answers, said = DIFFERENT[case]
    with pytest.raises(ForeignError, match=said) as caught:
        taken(tmp_path, ONE, mjlab(**metadata), answers=answers)
    assert caught.value.refused


def test_a_network_of_another_size_than_its_terms_is_refused(tmp_path):
    model = plain(random_layers(FRAME + 1)).model(FRAME + 1, mjlab_metadata())
    with pytest.raises(ForeignError, match=r"the network takes 13 numbers, its terms have 12 \(base_ang_vel 3, velocity_commands 3"):
        taken(tmp_path, ONE, model, answers=MJLAB_ANSWERS)
    with pytest.raises(ForeignError, match="its file says 47 observations"):
        taken(
            tmp_path,
            THREE,
            rl_sar(),
            RL_SAR_BASE,
            RL_SAR.replace("num_observations: 12", "num_observations: 47"),
            answers='command_unit = "torque_nm"',
        )


def test_an_output_for_every_joint_and_its_deviation_is_refused(tmp_path):
    model = plain(random_layers(FRAME, outputs=4)).model(FRAME, mjlab_metadata())
    with pytest.raises(ForeignError, match="4 outputs"):
        taken(tmp_path, ONE, model, answers=MJLAB_ANSWERS)


def test_a_tanh_of_another_range_than_the_robots_is_refused(tmp_path):
    with pytest.raises(ForeignError, match="tanh times action_scale is not the robot file's range"):
        taken(tmp_path, ONE, mjlab(after=lambda graph: graph.add("Tanh")), answers=MJLAB_ANSWERS)
    full = mjlab(after=lambda graph: graph.add("Tanh"), action_scale="2.000")
    assert taken(tmp_path, ONE, full, answers=MJLAB_ANSWERS).actor.squash == "tanh"


def test_clips_nearer_than_the_robots_are_refused_and_wider_ones_do_nothing(tmp_path):
    def clip(limit):
        return lambda graph: graph.add("Clip", graph.constant(-limit), graph.constant(limit))

    with pytest.raises(
        ForeignError, match="outputs are clipped at 1, nearer than the robot file's commands"
    ):  # full command is 2 / 1.5 = 1.33
        taken(tmp_path, ONE, mjlab(after=clip(1.0)), answers=MJLAB_ANSWERS)
    assert taken(tmp_path, ONE, mjlab(after=clip(1.4)), answers=MJLAB_ANSWERS).missing == []
    with pytest.raises(ForeignError, match="observations of ang_vel are clipped nearer"):  # the gyro reaches 8 * 0.25
        taken(
            tmp_path, THREE, rl_sar(), RL_SAR_BASE, RL_SAR.replace("clip_obs: 100.0", "clip_obs: 1.9"), answers='command_unit = "torque_nm"'
        )
    with pytest.raises(ForeignError, match="observations of joint_vel are clipped nearer"):  # 40 rad/s * 0.05
        taken(tmp_path, ONE, mjlab(before=lambda graph: graph.add("Clip", graph.constant(-2.0001), graph.constant(1.9999))),
              answers=MJLAB_ANSWERS.replace("0.25, 1.0", "0.2, 0.5").replace("1.0, 0.05", "0.5, 0.05"))  # fmt: skip


YAML_REFUSED = {
    "wheels by velocity": (RL_SAR_BASE.replace("wheel_indices: []", "wheel_indices: [0, 1]"), RL_SAR, "wheels driven by velocity"),
    "gains": (RL_SAR_BASE, RL_SAR.replace("rl_kp: [0.0, 0.0]", "rl_kp: [20.0, 20.0]"), "held by gains up to 20"),
    "half a hip": (RL_SAR_BASE, RL_SAR + "  hip_scale_reduction: 0.5\n", "write it into action_scale"),
    "another rate": (RL_SAR_BASE.replace("decimation: 4", "decimation: 8"), RL_SAR, "runs at 50 Hz"),
    "a period of zero": (RL_SAR_BASE.replace("dt: 0.0025", "dt: 0"), RL_SAR, "dt: expected more than zero"),
    "not a number": (RL_SAR_BASE, RL_SAR.replace("ang_vel_scale: 0.25", "ang_vel_scale: .nan"), "ang_vel_scale: expected a number, got nan"),
    "yes for a number": (RL_SAR_BASE, RL_SAR.replace("ang_vel_scale: 0.25", "ang_vel_scale: yes"), "expected a number, got True"),
    "position targets of Isaac Lab": ("{}", UNITREE_RL_LAB.replace("JointEffortAction", "JointPositionAction"), "target positions held"),
    "velocity targets": ("{}", UNITREE_RL_LAB.replace("JointEffortAction", "JointVelocityAction"), "target velocities"),
    "half a step back": (RL_SAR_BASE, RL_SAR.replace("[2, 1, 0]", "[1.5, 1, 0]"), "expected whole steps back, 0 to 63, got 1.5"),
    "a step twice": (RL_SAR_BASE, RL_SAR.replace("[2, 1, 0]", "[1, 1, 0]"), r"stacks 3 steps, \[0, 1, 1\] back"),
    "a third style": ("{}", "speed: 3\n", "neither of rl_sar"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", YAML_REFUSED)
def test_yaml_that_says_what_no_board_here_does_is_refused(tmp_path, case):
    base, text, said = YAML_REFUSED[case]
    with pytest.raises(ForeignError, match=said):
        taken(tmp_path, THREE, rl_sar(), base, text, answers='command_unit = "torque_nm"')


def test_keys_that_are_not_known_are_told(tmp_path):
    imported = taken(tmp_path, THREE, rl_sar(), RL_SAR_BASE, RL_SAR + "  gait_phase: 0.8\n")
    assert any("not read: gait_phase" in line for line in imported.assumed)


def test_metadata_and_yaml_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(ForeignError, match="action_scale = .*1.5.*, but .*policy.onnx says .*0.9"):
        taken(tmp_path, THREE, plain(random_layers(3 * FRAME)).model(3 * FRAME, {"action_scale": "0.900"}), RL_SAR_BASE, RL_SAR)


def test_forks_of_mjlab_with_scales_and_histories_need_fewer_answers(tmp_path):
    more = {
        "observation_terms_scale": "0.25;0.25;0.25,1.000,1.000,0.050,1.000",
        "observation_terms_history_length": "0,0,0,0,1",
        "observation_terms_clip": "-inf;inf,-inf;inf,-inf;inf,-100.000;100.000,-inf;inf",
    }
    imported = taken(tmp_path, ONE, mjlab(**more), answers='control_hz = 100\ncommand_unit = "torque_nm"')
    plain_answers = taken(tmp_path, ONE, mjlab(), answers=MJLAB_ANSWERS)
    assert imported.missing == []
    for (weight, bias), (other, other_bias) in zip(imported.actor.layers, plain_answers.actor.layers, strict=True):
        assert np.array_equal(weight, other)
        assert np.array_equal(bias, other_bias)


def test_weights_that_would_differ_from_the_graph_never_come_out(tmp_path, monkeypatch):
    """As if folding had a bug: the last layer off by a percent."""
    import edge_dsac.bundle.foreign as foreign

    right = foreign.make_file

    def spoil(network, found, spec, assumed):
        *layers, (weight, bias) = network.layers
        return right(dataclasses.replace(network, layers=(*layers, (weight * 1.01, bias))), found, spec, assumed)

    monkeypatch.setattr(foreign, "make_file", spoil)
    with pytest.raises(ForeignError, match="differ from the ONNX graph by"):
        taken(tmp_path, ONE, mjlab(), answers=MJLAB_ANSWERS)


def test_the_made_up_robot_is_what_these_tests_think():
    assert robot_from_text(ONE.text) == ONE
    assert [joint.home_rad for joint in ONE.joints] == [0.3, -0.25]
    assert ActionLayout(ONE).to_command.tolist() == [[2.0, 0.0], [0.0, 2.0]]
