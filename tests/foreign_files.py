"""Made-up but realistic files of other trainers: ONNX graphs as their exporters write them, metadata, YAML; and a robot they fit."""

import re
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge_dsac.spec.robot import load_robot, robot_from_text

TERMS = [("gyro_rad_s", 0.25, 8.0, 3), ("speed_target_m_s", 2.0, 1.0, 3), ("yaw_rate_target_rad_s", 0.25, 2.0, 3),
         ("joint_position_rad", 1.0, 3.0, 3), ("joint_velocity_rad_s", 0.05, 40.0, 3), ("applied_action", 1.0, 1.0, 3)]  # fmt: skip


def two_torques(history=1):
    """A robot with a torque for each of two joints, homes off zero, and the observations that legged robots' policies have."""
    text = load_robot("balance_bot").text
    head, rest = text.split("[[observations]]", 1)
    tail = "[balance_pd]" + rest.split("[balance_pd]", 1)[1]
    head = (
        head.replace('"duty"', '"torque_nm"')
        .replace("command_limit = 1.0", "command_limit = 2.0")
        .replace('fallback = "balance_pd"', 'fallback = "damp"')
    )
    head = head.replace("mix = [0.8, 0.8]", "mix = [1.0, 0.0]").replace("mix = [-0.2, 0.2]", "mix = [0.0, 1.0]")
    homes = iter(("0.3", "-0.25"))
    head = re.sub(r"home_rad = 0.0", lambda _: f"home_rad = {next(homes)}", head)
    tables = [f'[[observations]]\nterm = "{term}"\nscale = {scale}\nclip = {clip}\nhistory = {history}\n' for term, scale, clip, _ in TERMS]
    return robot_from_text(head.replace('model = "balance_bot"', 'model = "two_torques"') + "\n".join(tables) + tail)


FRAME = 3 + 3 + 2 + 2 + 2  # gyro, commands x y yaw, positions, velocities, last action


def random_layers(inputs, outputs=2, widths=(16, 8), seed=5):
    generator = np.random.default_rng(seed)
    sizes = [inputs, *widths, outputs]
    return [(generator.normal(size=(b, a)) / np.sqrt(a), generator.normal(size=b) * 0.1) for a, b in zip(sizes, sizes[1:], strict=False)]


@dataclass
class Graph:
    """Nodes and weights; `chain` is the name of the newest value."""

    def __post_init__(self):
        self.nodes, self.weights, self.chain = [], [], "obs"

    def constant(self, values, kind=np.float32):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def add(self, kind, *others, first=True, **attributes):
        out = f"v{len(self.nodes)}"
        inputs = [self.chain, *others] if first else [*others, self.chain]
        self.nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        self.chain = out

    def dense(self, weight, bias, style="Gemm"):
        if style == "Gemm":
            self.add("Gemm", self.constant(weight), self.constant(bias), transB=1)
        else:
            self.add("MatMul", self.constant(weight.T))
            self.add("Add", self.constant(bias))

    def activate(self, name):
        if name != "gelu in pieces":
            self.add(name)
            return
        x = self.chain
        self.add("Div", self.constant(np.sqrt(2.0)))
        self.add("Erf")
        self.add("Add", self.constant(1.0))
        self.add("Mul", x)
        self.add("Mul", self.constant(0.5))

    def model(self, inputs, metadata=None, opset=17, more_inputs=(), more_outputs=(), output=None):
        make = helper.make_tensor_value_info
        ins = [make("obs", TensorProto.FLOAT, [1, inputs]), *(make(name, TensorProto.FLOAT, [1, 1]) for name in more_inputs)]
        outs = [make(output or self.chain, TensorProto.FLOAT, None), *(make(name, TensorProto.FLOAT, None) for name in more_outputs)]
        graph = helper.make_graph(self.nodes, "policy", ins, outs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        helper.set_model_props(model, metadata or {})
        return model.SerializeToString()


def plain(layers, activation="Elu", style="Gemm", before=None, after=None):
    graph = Graph()
    if before:
        before(graph)
    for i, (weight, bias) in enumerate(layers):
        graph.dense(weight, bias, style)
        if i < len(layers) - 1:
            graph.activate(activation)
    if after:
        after(graph)
    return graph


def normaliser(mean, std):
    """As rsl_rl's: (x - mean) / (std + 0.01), the sum left to the reader."""

    def write(graph):
        graph.add("Sub", graph.constant(mean))
        names = graph.constant(std), graph.constant(0.01)
        graph.nodes.append(helper.make_node("Add", names, ["deviation"]))
        graph.add("Div", "deviation")

    return write


def mjlab_metadata(**more):
    """As mjlab attaches it, for an effort policy: three decimals, no rate, no scales."""
    return {
        "run_path": "team/velocity/abc123",
        "joint_names": "left_wheel,right_wheel",
        "joint_stiffness": "0.000,0.000",
        "joint_damping": "-0.000,0.000",
        "default_joint_pos": "0.300,-0.250",
        "command_names": "twist",
        "observation_names": "base_ang_vel,velocity_commands,joint_pos,joint_vel,actions",
        "action_scale": "1.500,1.500",
    } | more


MJLAB_ANSWERS = """
control_hz = 100
observation_scales = [0.25, 1.0, 1.0, 0.05, 1.0]
history = [1, 1, 1, 1, 1]
command_unit = "torque_nm"
"""

RL_SAR_BASE = """
two_torques:
  dt: 0.0025
  decimation: 4
  num_of_dofs: 2
  wheel_indices: []
  default_dof_pos: [0.30, -0.25]
  joint_names: ["left_wheel", "right_wheel"]
  joint_mapping: [0, 1]
"""
RL_SAR = """
two_torques/robot_lab:
  model_name: "policy.onnx"
  num_observations: 12
  observations: ["ang_vel", "commands", "dof_pos", "dof_vel", "actions"]
  observations_history: [2, 1, 0]
  observations_history_priority: "time"
  clip_obs: 100.0
  clip_actions_lower: [-100.0, -100.0]
  clip_actions_upper: [100.0, 100.0]
  rl_kp: [0.0, 0.0]
  rl_kd: [0.0, 0.0]
  action_scale: [1.5, 1.5]
  lin_vel_scale: 2.0
  ang_vel_scale: 0.25
  dof_pos_scale: 1.0
  dof_vel_scale: 0.05
  commands_scale: [2.0, 2.0, 0.25]
"""

UNITREE_RL_LAB = """
joint_ids_map: [1, 0]
step_dt: 0.01
stiffness: [0.0, 0.0]
damping: [0.0, 0.0]
default_joint_pos: [0.3, -0.25]
commands:
  base_velocity:
    ranges: {lin_vel_x: [-0.5, 1.0], lin_vel_y: [-0.3, 0.3], ang_vel_z: [-1.2, 1.2], heading: null}
actions:
  JointEffortAction:
    clip: null
    joint_names: [.*]
    scale: [1.5, 1.5]
    offset: [0.0, 0.0]
observations:
  base_ang_vel: {params: {}, clip: null, scale: [0.2, 0.2, 0.2], history_length: 3}
  velocity_commands: {params: {command_name: base_velocity}, clip: null, scale: [1.0, 1.0, 1.0], history_length: 3}
  joint_pos_rel: {params: {}, clip: null, scale: [1.0, 1.0], history_length: 3}
  joint_vel_rel: {params: {}, clip: null, scale: [0.05, 0.05], history_length: 3}
  last_action: {params: {}, clip: null, scale: [1.0, 1.0], history_length: 3}
"""

UNITREE_RL_GYM = """
policy_path: "{LEGGED_GYM_ROOT_DIR}/deploy/pre_train/policy.pt"
simulation_dt: 0.002
control_decimation: 5
kps: [0, 0]
kds: [0, 0]
default_angles: [0.3, -0.25]
ang_vel_scale: 0.25
dof_pos_scale: 1.0
dof_vel_scale: 0.05
action_scale: 1.5
cmd_scale: [2.0, 2.0, 0.25]
num_actions: 2
num_obs: 12
cmd_init: [0.5, 0, 0]
"""
