"""The actor through torch_tensorrt: compiled from PyTorch on the GPU at hand, and its weights exchanged without compiling again.

NEVER RUN ON A GPU by this project so far, and torch_tensorrt cannot even be imported without one: what is tested is the PyTorch side,
and the calls. For desktop GPUs and Thor; a Jetson Orin has no current torch_tensorrt and takes `tensorrt_engine.py`. Float32 alone.
Rule that must stay true: a module drives only after its answers were compared with the actor's own, since both compiling and refitting
can quietly hand back something else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.device import Device, NoDevice
from edge_dsac.records import Float, Observation

TOLERANCE = 1e-3  # of an action; float32 on a GPU sums in another order, and TF32 is switched off
PROBES = 64
NEVER_RUN = "never run on a GPU by this project: tested against a stand-in of torch_tensorrt only"


class TorchTrtError(ValueError):
    """A module that torch_tensorrt did not make, or made wrong."""


def why_not(device: Device | NoDevice, installed: bool) -> str:
    """Empty if importing torch_tensorrt may be tried at all: without a GPU the import itself fails."""
    if not installed:
        return "torch_tensorrt is not installed: pip install 'edge_dsac[torch-tensorrt]'"
    return device.reason if isinstance(device, NoDevice) else ""


def make_module(actor: Actor) -> Any:
    """As a PyTorch module, with the observation scale in the first weights: then a refit changes weights and biases and nothing else."""
    (first, bias), *rest = actor.layers
    return sequential([(first * actor.obs_scale, bias), *rest], actor.activation, actor.squash)


def sequential(layers: list[tuple[Float, Float]], activation: str, squash: str) -> Any:
    import torch
    from torch import nn

    nonlinearity = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}[activation]
    end = {"tanh": nn.Tanh, "clip": nn.Hardtanh}[squash]  # which is a clip to [-1, 1]
    parts: list[Any] = []
    for weight, bias in layers:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": torch.from_numpy(np.array(weight, np.float32)), "bias": torch.from_numpy(bias.copy())})
        parts += [layer, nonlinearity()]
    return nn.Sequential(*parts[:-1], end()).eval()


def make_program(actor: Actor, where: str) -> Any:
    import torch

    example = torch.zeros(1, actor.sizes[0], device=where)
    with torch.no_grad():
        return torch.export.export(make_module(actor).to(where), (example,))


class TorchTrtEngine:
    """Owns the compiled module. `refitted` gives a new engine: the running one is not touched, the slot swaps between ticks."""

    def __init__(self, actor: Actor, module: Any, torch_tensorrt: Any, where: str) -> None:
        """For `compile_actor` and `refitted`; `module` is compared with `actor` before anything else."""
        import torch

        self.bundle_id, self.actor, self.module, self.torch_tensorrt, self.where = actor.identity, actor, module, torch_tensorrt, where
        pinned = where != "cpu"
        self.host = torch.zeros(1, actor.sizes[0], pin_memory=pinned)
        self.obs = self.host.numpy()[0]
        self.on_device = torch.zeros(1, actor.sizes[0], device=where)
        self.no_gradients = torch.inference_mode
        check_answers(self, actor)

    def act(self, obs: Observation) -> Float:
        return self.answer(obs.vector)

    def answer(self, vector: Float) -> Float:
        self.obs[:] = vector
        with self.no_gradients():
            self.on_device.copy_(self.host, non_blocking=True)
            action: Float = self.module(self.on_device)[0].float().cpu().numpy().copy()
        return action

    def refitted(self, actor: Actor) -> TorchTrtEngine:
        """The same network with fine-tuned weights: seconds less than a compile."""
        if actor.form != self.actor.form:
            old, new = (" ".join(map(str, it.form)) for it in (self.actor, actor))
            raise TorchTrtError(f"refit: the engine is {old}, the new actor {new}; compile it")
        program = make_program(actor, self.where)
        module = self.torch_tensorrt.dynamo.refit_module_weights(self.module, program)  # a copy; the old module stays as it is
        return TorchTrtEngine(actor, module, self.torch_tensorrt, self.where)


def compile_actor(actor: Actor, torch_tensorrt: Any, where: str = "cuda:0") -> TorchTrtEngine:
    """Seconds to minutes; only with a device found."""
    import torch

    program = make_program(actor, where)
    module = torch_tensorrt.dynamo.compile(
        program,
        arg_inputs=(torch.zeros(1, actor.sizes[0], device=where),),
        device=where,
        immutable_weights=False,  # or no refit
        require_full_compilation=True,  # a layer left to PyTorch would cost what this engine is for
        min_block_size=1,  # the default, 5, leaves a small actor to PyTorch without a word
        disable_tf32=True,
    )
    return TorchTrtEngine(actor, module, torch_tensorrt, where)


def check_answers(engine: TorchTrtEngine, actor: Actor) -> None:
    """Observations that spread over what the normaliser expects; the seed is fixed, so a refusal can be repeated."""
    scaled = np.random.default_rng(1).uniform(-3.0, 3.0, (PROBES, actor.sizes[0]))
    observations = (scaled / np.where(actor.obs_scale == 0.0, 1.0, actor.obs_scale)).astype(np.float32)
    error = np.abs(np.array([engine.answer(row) for row in observations]) - actor.act(observations)).max()
    if not error <= TOLERANCE:  # NaN is refused too
        raise TorchTrtError(f"torch_tensorrt: actions are off by {error:.3g}, allowed is {TOLERANCE}; keep the engine that runs")
