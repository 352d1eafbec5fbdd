"""The `onnxruntime` engine: one thread, the input and the one output in memory that is ours, nothing allocated by the runtime.

One intra-op thread because the default pool shows spikes of 8-20 ms; bound memory because it costs 3 us less a tick than run().
Knows no link and no clock; onnxruntime is imported when an engine is made. Rule that must stay true: a file made for another
observation layout is refused before the first action.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.bundle.actor import ActorError
from edge_dsac.records import Float, Observation
from edge_dsac.spec.layout import ObservationLayout
from edge_dsac.spec.robot import RobotSpec


class OrtEngine:
    def __init__(self, model: bytes, spec: RobotSpec, bundle_id: int) -> None:
        self.bundle_id = bundle_id
        session = open_session(model)
        expect(session, spec)
        self.bound = Bound(session, ObservationLayout(spec).size, len(spec.actions))
        self.act = self.bound.act


class Bound:
    """A session with its input and its output `action` in memory of ours."""

    def __init__(self, session: Any, observations: int, actions: int) -> None:
        self.obs: NDArray[np.float32] = np.zeros((1, observations), np.float32)
        self.action: NDArray[np.float32] = np.zeros((1, actions), np.float32)
        self.binding = session.io_binding()
        self.binding.bind_input("obs", "cpu", 0, np.float32, self.obs.shape, self.obs.ctypes.data)
        self.binding.bind_output("action", "cpu", 0, np.float32, self.action.shape, self.action.ctypes.data)
        self.run = session.run_with_iobinding

    def act(self, obs: Observation) -> Float:
        self.obs[0] = obs.vector
        self.run(self.binding)
        return np.array(self.action[0])  # a copy: the log still holds the last one when the next is computed


def open_session(model: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors; a warning would be written to the loop's standard error
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own families derive from nothing nearer
        raise ActorError(f"ONNX file: onnxruntime {onnxruntime.__version__} refuses it: {error}") from None


def expect(session: Any, spec: RobotSpec) -> None:
    """Bound memory is written without a look at its size: names, kinds and shapes must be the robot's."""
    made_for = session.get_modelmeta().custom_metadata_map.get("policy_fingerprint", "nothing")
    if made_for != spec.policy_fingerprint:
        raise ActorError(f"ONNX file: made for policy {made_for}, {spec.model} has {spec.policy_fingerprint}; compile it again")
    found = {end.name: (end.type, list(end.shape)) for end in (*session.get_inputs(), *session.get_outputs())}
    sizes = {"obs": ObservationLayout(spec).size, "action": len(spec.actions), "command": len(spec.joints)}
    wanted = {name: ("tensor(float)", [1, size]) for name, size in sizes.items()}
    if found != wanted:
        raise ActorError(f"ONNX file: expected {wanted}, got {found}")
