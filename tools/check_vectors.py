"""Holds the learner against conformance vectors of DSAC-T: every number of every step.

    python tools/check_vectors.py tests/vectors/dsact.npz [--tolerance 1e-10]

FILE.json must lie beside FILE.npz. Prints {case: {"max_rel_error": x, "at": name}} as JSON; exit 1 if a float64 case is above the
tolerance, or a float32 case above 1e-5. Errors are relative to the largest magnitude of the array compared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_dsac.learn.losses import Batch, Noise, Objective, actor_loss, bounded_sample, critic_loss, critic_targets, sigma_means
from edge_dsac.learn.networks import Params, action_distribution, mode_action, squash, value_distribution
from edge_dsac.learn.update import Rates, State, no_moments, update

FLOAT32_TOLERANCE = 1e-5


class Errors:
    """The largest relative error seen, and where."""

    def __init__(self) -> None:
        self.largest, self.at = 0.0, ""

    def compare(self, where: str, ours: Any, theirs: Any) -> None:
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        if ours.shape != theirs.shape or not np.isfinite(ours).all():
            self.largest, self.at = math.inf, f"{where}: {ours.shape} against {theirs.shape}"
            return
        error = float(np.abs(ours - theirs).max() / max(float(np.abs(theirs).max()), 1e-30))
        if error > self.largest:
            self.largest, self.at = error, where


def unflatten(flat: np.ndarray, sizes: tuple[int, ...], dtype: torch.dtype) -> Params:
    params, at = [], 0
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        params.append(torch.tensor(flat[at : at + inputs * outputs].reshape(outputs, inputs), dtype=dtype))
        at += inputs * outputs
        params.append(torch.tensor(flat[at : at + outputs], dtype=dtype))
        at += outputs
    if at != len(flat):
        raise SystemExit(f"check_vectors: expected {at} parameters for {sizes}, got {len(flat)}")
    return tuple(params)


def flatten(params: Params) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in params])


def one(twins: Params, which: int) -> Params:
    return tuple(p[which] for p in twins)


class Case:
    """One case of the file: its configuration, its inputs, the state it starts from."""

    def __init__(self, name: str, case: dict[str, Any], arrays: Any) -> None:
        self.name, self.steps, self.arrays = name, case["steps"], arrays
        config = self.config = case["config"]
        self.source = config.get("inputs_of") or name
        self.dtype = getattr(torch, config["dtype"])
        self.critic_sizes = (config["obs"] + config["act"], *config["hidden"], 2)
        self.actor_sizes = (config["obs"], *config["hidden"], 2 * config["act"])
        # The reference keeps its action limits in float32, whatever the rest is in.
        self.bounds = (self.limit("act_low"), self.limit("act_high"))
        self.rates = Rates(
            config["lr_q"], config["lr_pi"], config["lr_alpha"], config["tau"], config["tau_b"] or config["tau"], config["delay_update"],
            config["auto_alpha"],
            Objective("huber" if config["commit"] == "HEAD" else "paper", log_std_range=(config["min_log_std"], config["max_log_std"])),
        )  # fmt: skip

    def limit(self, key: str) -> Tensor:
        return torch.tensor(self.config[key], dtype=torch.float32).to(self.dtype)

    def initial(self, net: str) -> np.ndarray:
        return np.asarray(self.arrays[f"{self.source}/init/{net}"])

    def twins(self, suffix: str) -> Params:
        pair = [unflatten(self.initial(f"q{i}{suffix}"), self.critic_sizes, self.dtype) for i in (1, 2)]
        return tuple(torch.stack(both) for both in zip(*pair, strict=True))

    def state(self) -> State:
        critics, actor = self.twins(""), unflatten(self.initial("policy"), self.actor_sizes, self.dtype)
        alpha = math.e if self.config["auto_alpha"] else self.config["alpha"]
        log_alpha = torch.tensor(math.log(alpha), dtype=self.dtype)
        zero = torch.zeros((), dtype=self.dtype)
        return State(
            critics, actor, self.twins("_target"), unflatten(self.initial("policy_target"), self.actor_sizes, self.dtype), log_alpha,
            torch.full((2,), -1.0, dtype=self.dtype), no_moments(critics), no_moments(actor), no_moments((log_alpha,)), zero, zero,
        )  # fmt: skip

    def given(self, name: str, step: int) -> Tensor:
        return torch.tensor(self.arrays[f"{self.source}/in/{name}"][step], dtype=self.dtype)

    def batch(self, step: int) -> tuple[Batch, Noise]:
        read = [self.given(name, step) for name in ("obs", "act", "rew", "obs2", "done")]
        z = torch.stack((self.given("z1", step), self.given("z2", step)))
        return Batch(*read, torch.tensor(self.config["gamma"], dtype=self.dtype)), Noise(
            self.given("eps_pi", step), self.given("eps_next", step), z
        )


def check_step(case: Case, step: int, state: State, errors: Errors) -> State:
    batch, noise = case.batch(step)
    check_middle(case, step, state, batch, noise, errors)
    check_gradients(case, step, state, batch, noise, errors)
    state, figures = update(state, batch, noise, case.bounds, case.rates, with_actor=step % case.rates.delay == 0)
    said = case.steps[step]
    errors.compare(f"step {step} loss_q", figures.critic_loss, said["loss_q"])
    errors.compare(f"step {step} alpha", figures.alpha, said["alpha_used"])
    errors.compare(f"step {step} m", state.m, [said["mean_std1"], said["mean_std2"]])
    if case.config["auto_alpha"]:
        errors.compare(f"step {step} log_alpha", state.log_alpha, said["log_alpha_after"])
    return state


def check_gradients(case: Case, step: int, state: State, batch: Batch, noise: Noise, errors: Errors) -> None:
    objective, alpha = case.rates.objective, state.log_alpha.exp()
    targets = critic_targets(state.target_critics, state.target_actor, alpha, batch, noise, case.bounds, objective)
    of_critics = torch.func.grad(lambda critics: critic_loss(critics, state.m, targets, batch, case.rates.tau_b, objective)[0])(
        state.critics
    )
    of_actor, loss = torch.func.grad_and_value(
        lambda actor: actor_loss(actor, state.critics, alpha, batch, noise, case.bounds, objective)[0]
    )(state.actor)
    for i in (0, 1):
        errors.compare(f"step {step} gradient q{i + 1}", flatten(one(of_critics, i)), case.arrays[f"{case.name}/grad/q{i + 1}"][step])
    errors.compare(f"step {step} gradient policy", flatten(of_actor), case.arrays[f"{case.name}/grad/policy"][step])
    errors.compare(f"step {step} loss_policy", loss, case.steps[step]["loss_policy"])


def check_middle(case: Case, step: int, state: State, batch: Batch, noise: Noise, errors: Errors) -> None:
    """Actions, log-probabilities, means, sigmas, targets and bounds on the way."""
    objective, shape = case.rates.objective, (case.rates.objective.activation, case.rates.objective.log_std_range)
    alpha = state.log_alpha.exp()
    new_act, new_logp = squash(*action_distribution(state.actor, batch.obs, *shape), noise.actor, *case.bounds)
    next_act, next_logp = squash(*action_distribution(state.target_actor, batch.next_obs, *shape), noise.target, *case.bounds)
    q, sigma = value_distribution(state.critics, batch.obs, batch.act, objective.activation)
    q_next, sigma_next = value_distribution(state.target_critics, batch.next_obs, next_act, objective.activation)
    q_pi, _ = value_distribution(state.critics, batch.obs, new_act, objective.activation)
    targets = critic_targets(state.target_critics, state.target_actor, alpha, batch, noise, case.bounds, objective)
    bound = bounded_sample(q, targets.sample, sigma_means(sigma, state.m, case.rates.tau_b), objective)
    found = {"new_act": new_act, "new_logp": new_logp, "next_logp": next_logp}
    for i in (0, 1):
        found |= {
            f"q{i + 1}": q[i], f"q{i + 1}_std": sigma[i], f"q{i + 1}_next": q_next[i], f"q{i + 1}_next_std": sigma_next[i],
            f"q{i + 1}_pi": q_pi[i], f"target{i + 1}": targets.mean, f"target{i + 1}_bound": bound[i],
        }  # fmt: skip
    for name, value in found.items():
        errors.compare(f"step {step} {name}", value.detach(), case.arrays[f"{case.name}/mid/{name}"][step])


def check_case(case: Case) -> Errors:
    errors, state = Errors(), case.state()
    for step in range(case.config["steps"]):
        state = check_step(case, step, state, errors)
    final = {
        "q1": one(state.critics, 0), "q2": one(state.critics, 1), "policy": state.actor,
        "q1_target": one(state.target_critics, 0), "q2_target": one(state.target_critics, 1), "policy_target": state.target_actor,
    }  # fmt: skip
    for name, params in final.items():
        errors.compare(f"final {name}", flatten(params), case.arrays[f"{case.name}/final/{name}"])
    check_deployed(case, state, errors)
    return errors


def check_deployed(case: Case, state: State, errors: Errors) -> None:
    obs = case.given("obs", 0)
    objective = case.rates.objective
    mean, std = action_distribution(state.actor, obs, objective.activation, objective.log_std_range)
    errors.compare("deploy mode_action", mode_action(mean, *case.bounds), case.arrays[f"{case.name}/deploy/mode_action"])
    errors.compare("deploy logits", torch.cat((mean, std), dim=-1), case.arrays[f"{case.name}/deploy/logits"])


def check_file(path: Path) -> dict[str, dict[str, Any]]:
    cases = json.loads(path.with_suffix(".json").read_text())["cases"]
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: check_case(Case(name, case, arrays)) for name, case in cases.items()}
    return {
        name: {"max_rel_error": errors.largest, "at": errors.at, "dtype": cases[name]["config"]["dtype"]} for name, errors in found.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="FILE.npz; FILE.json lies beside it")
    parser.add_argument("--tolerance", type=float, default=1e-10, help="largest relative error of a float64 case (default: %(default)s)")
    args = parser.parse_args()
    result = check_file(args.file)
    print(json.dumps(result, indent=1))
    limits = {name: FLOAT32_TOLERANCE if row["dtype"] == "float32" else args.tolerance for name, row in result.items()}
    return 0 if all(row["max_rel_error"] <= limits[name] for name, row in result.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
