"""Writes the actor as one plain C file: float32 and whole numbers, weights as constants, no heap, no libm, nothing to link.

    void actor_float32(const float *obs, float *action);              SI -> [-1, 1]
    void actor_integer(const float *obs, float *action);              the same, in whole numbers inside
    void actor_integer_raw(const int16_t *obs, int16_t *action);      without the two conversions

The kernels are written by hand (c/whole.h, c/real.h) and go in word for word; here are only the tables and the calls. Knows no
compiler (targets.py does). Rule that must stay true: what is written is `integer.py` operation by operation.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.bundle.actor import ERF, REACH, Actor, require_form
from edge_dsac.bundle.integer import BUMP, CURVE, LEAST_RANGE_BITS, TANH_TABLE, IntegerActor, IntegerLayer

Numbers = NDArray[Any]

BLOCK = 32  # units side by side; as in c/whole.h
PER_LINE = 24
HEAD = """// Generated from actor {identity:016x}: {sizes}, {activation}. Do not edit: `edge-dsac compile` writes it.
#include <stdint.h>

#define ACTOR_OBSERVATIONS {obs}
#define ACTOR_ACTIONS {actions}
#define EXPORT __attribute__((visibility("default")))
#define ALIGNED __attribute__((aligned(64)))
"""


def make_c(actor: Actor, integer: IntegerActor) -> str:
    """The whole file."""
    require_form(actor, ("gelu", "relu", "tanh", "elu"), ("tanh", "clip"), "the C file")
    sizes = actor.sizes
    parts = [
        HEAD.format(identity=actor.identity, sizes="-".join(map(str, sizes)), activation=actor.activation, obs=sizes[0], actions=sizes[-1]),
        float_part(actor),
        integer_part(integer, actor.sizes),
    ]
    return "\n".join(parts)


def kernels(name: str) -> str:
    return (resources.files("edge_dsac.bundle") / "c" / name).read_text()


# ---- float32


def float_part(actor: Actor) -> str:
    defines = [f"#define GELU_REACH_INVERSE {c_float(1.0 / (REACH * np.sqrt(2.0)))}"]
    defines += [f"#define ERF_{row}{i} {c_float(value)}" for row, values in zip("ND", ERF, strict=True) for i, value in enumerate(values)]
    (first, first_bias), *rest = actor.layers
    layers = [(first * actor.obs_scale, first_bias), *rest]
    tables, calls, inputs, source = [], [], actor.sizes[0], "obs"
    for i, (weight, bias) in enumerate(layers[:-1]):
        tables.append(table("float", f"float_w{i}", in_blocks(widened(weight, inputs), 1)))
        tables.append(table("float", f"float_b{i}", widened_rows(bias)))
        calls.append(FLOAT_LAYER.format(i=i, units=wide(len(bias)), inputs=inputs, source=source, nonlinear=f"{actor.activation}_float"))
        inputs, source = wide(len(bias)), f"x{i}"
    weight, bias = layers[-1]
    tables += [table("float", "float_w_last", widened(weight, inputs)), table("float", "float_b_last", bias)]
    body = "\n".join(calls) + FLOAT_LAST.format(inputs=inputs, source=source, squash=f"{actor.squash}_float")
    return "\n".join([*defines, kernels("real.h"), *tables, f"EXPORT void actor_float32(const float *obs, float *action) {{\n{body}}}\n"])


FLOAT_LAYER = """  float x{i}[{units}] ALIGNED;
  for (int i = 0; i < {units}; i++) x{i}[i] = float_b{i}[i];
  for (int i = 0; i < {units}; i += {block}) add_float(x{i} + i, float_w{i} + i * {inputs}, {source}, {inputs});
  for (int i = 0; i < {units}; i++) x{i}[i] = {nonlinear}(x{i}[i]);""".replace("{block}", str(BLOCK))

FLOAT_LAST = """
  for (int i = 0; i < ACTOR_ACTIONS; i++)
    action[i] = {squash}(float_b_last[i] + dot_float(float_w_last + i * {inputs}, {source}, {inputs}));
"""


# ---- whole numbers


def integer_part(actor: IntegerActor, sizes: tuple[int, ...]) -> str:
    tables = [table("int16_t", "gelu_bump", BUMP), table("int16_t", "elu_curve", CURVE), table("int16_t", "tanh_table", TANH_TABLE)]
    nonlinear = "tanh_lanes" if actor.activation == "tanh" else f"{actor.activation}_int16"
    int8 = actor.form == "int8"
    more = [f"TO_HIDDEN(to_{q}, {q}_t, {nonlinear})" for q in ("uint8", "int16")] if int8 else [f"TO_WIDE(to_int16, {nonlinear})"]
    more.append(table("float", "obs_scale", actor.obs_scale))
    inputs, source = sizes[0] + sizes[0] % 2, "q"
    calls = []
    for i, layer in enumerate(actor.layers[:-1]):
        group, kind = (4, "int8") if int8 and i > 0 else (2, "int16")
        more.append(table(f"{kind}_t", f"w{i}", in_blocks(widened(layer.weight, inputs), group)))
        more += unit_tables(layer, i)
        to_int16 = not int8 or i == len(actor.layers) - 2  # the last layer's kernel reads int16
        calls.append(INTEGER_LAYER.format(
            i=i, units=wide(len(layer.bias)), inputs=inputs, source=source, kind=kind, bits=layer.range_bits,
            q="int16" if to_int16 else "uint8",
            scales=f"gain{i}, zero{i}, " if int8 else "",
            room=f", y{i}" if int8 else "", make_room=f"\n  int16_t y{i}[{wide(len(layer.bias))}] ALIGNED;" if int8 else "",
        ))  # fmt: skip
        inputs, source = wide(len(layer.bias)), f"q{i}"
    last = actor.layers[-1]
    more += [table("int16_t", "w_last", widened(last.weight, inputs)), table("int32_t", "b_last", with_rounding(last))]
    more += [table("uint8_t", "shift_last", last.shift), table("int16_t", "multiplier_last", last.multiplier)]
    body = "\n".join(calls) + INTEGER_LAST.format(inputs=inputs, source=source, squash=f"{actor.squash}_int16", bits=LEAST_RANGE_BITS)
    return "\n".join([*tables, kernels("whole.h"), *more, INTEGER_ACT.format(padded=sizes[0] + sizes[0] % 2, body=body)])


INTEGER_LAYER = """  int32_t sum{i}[{units}] ALIGNED;
  {q}_t q{i}[{units}] ALIGNED;{make_room}
  for (int i = 0; i < {units}; i++) sum{i}[i] = b{i}[i];
  for (int i = 0; i < {units}; i += BLOCK) add_{kind}(sum{i} + i, w{i} + i * {inputs}, {source}, {inputs});
  to_{q}(q{i}, sum{i}, shift{i}, multiplier{i}, {scales}{bits}, {units}{room});"""

INTEGER_LAST = """
  for (int i = 0; i < ACTOR_ACTIONS; i++) {{
    int32_t sum = b_last[i] + dot_int16(w_last + i * {inputs}, {source}, {inputs});
    action[i] = {squash}(before_end(sum, shift_last[i], multiplier_last[i]), {bits});
  }}
"""

INTEGER_ACT = """// `q` has {padded} entries: observations, then zeros.
static void act_whole(const int16_t *restrict q, int16_t *restrict action) {{
{body}}}

EXPORT void actor_integer_raw(const int16_t *obs, int16_t *action) {{
  int16_t q[{padded}] = {{0}};
  for (int i = 0; i < ACTOR_OBSERVATIONS; i++) q[i] = obs[i];
  act_whole(q, action);
}}

EXPORT void actor_integer(const float *obs, float *action) {{
#pragma clang fp contract(off)  // the product is rounded before the half is added, on every processor
  int16_t q[{padded}] = {{0}}, whole[ACTOR_ACTIONS];
  for (int i = 0; i < ACTOR_OBSERVATIONS; i++) q[i] = whole_of(obs[i] * obs_scale[i]);
  act_whole(q, whole);
  for (int i = 0; i < ACTOR_ACTIONS; i++) action[i] = (float)whole[i] * (1.0f / 32768.0f);
}}
"""


def unit_tables(layer: IntegerLayer, i: int) -> list[str]:
    named = {"b": with_rounding(layer), "shift": layer.shift, "multiplier": layer.multiplier}
    if len(layer.gain):
        named |= {"gain": layer.gain, "zero": layer.zero}
    kinds = {"b": "int32_t", "shift": "uint8_t"}
    return [table(kinds.get(name, "int16_t"), f"{name}{i}", widened_rows(values)) for name, values in named.items()]


def with_rounding(layer: IntegerLayer) -> Numbers:
    """The half that a shift rounds with is added once, here."""
    half = (np.int64(1) << layer.shift.astype(np.int64)) >> 1
    return np.asarray(layer.bias.astype(np.int64) + half)


# ---- tables


def wide(units: int) -> int:
    return -(-units // BLOCK) * BLOCK


def widened(weight: Numbers, inputs: int) -> Numbers:
    return np.pad(weight, ((0, 0), (0, inputs - weight.shape[1])))


def widened_rows(values: Numbers) -> Numbers:
    return np.pad(values, (0, wide(len(values)) - len(values)))


def in_blocks(weight: Numbers, group: int) -> Numbers:
    """[outputs, inputs] -> [outputs / 32, inputs / group, 32, group]."""
    units, inputs = wide(len(weight)), weight.shape[1]
    padded = np.pad(weight, ((0, units - len(weight)), (0, 0)))
    return np.asarray(padded.reshape(units // BLOCK, BLOCK, inputs // group, group).transpose(0, 2, 1, 3))


def table(kind: str, name: str, values: Numbers) -> str:
    flat = values.ravel()
    words = [c_float(value) for value in flat] if kind == "float" else [str(int(value)) for value in flat]
    lines = ",\n  ".join(", ".join(words[at : at + PER_LINE]) for at in range(0, len(words), PER_LINE))
    return f"static const {kind} {name}[{len(words)}] ALIGNED = {{\n  {lines}}};"


def c_float(value: Any) -> str:
    return f"{np.float32(value):.8e}f"
