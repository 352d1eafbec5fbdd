"""Writes the actor as one plain C file: float32 and whole numbers, weights as constants, no heap, no libm, nothing to link.

    void actor_float32(const float *obs, float *action);              SI -> [-1, 1]
    void network_float32(const struct network *net, const float *obs, float *action);   the same with weights from elsewhere: c/real.h
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
from edge_dsac.bundle.blocks import in_blocks, packed, room, wide, widened, widened_rows
from edge_dsac.bundle.integer import BUMP, CURVE, LEAST_RANGE_BITS, TANH_TABLE, IntegerActor, IntegerLayer

Numbers = NDArray[Any]

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
    defines += [f"#define NONLINEAR_FLOAT {actor.activation}_float", f"#define END_FLOAT {actor.squash}_float"]
    tables = [table("float", "float_weights", packed(actor)), table("int32_t", "float_sizes", np.array(actor.sizes))]
    return "\n".join([*defines, kernels("real.h"), *tables, FLOAT_ACT.format(room=room(actor), layers=len(actor.layers))])


FLOAT_ACT = """EXPORT void actor_float32(const float *obs, float *action) {{
  float room[{room}] ALIGNED;
  const struct network net = {{float_weights, float_sizes, room, {layers}}};
  network_float32(&net, obs, action);
}}
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


def table(kind: str, name: str, values: Numbers) -> str:
    flat = values.ravel()
    words = [c_float(value) for value in flat] if kind == "float" else [str(int(value)) for value in flat]
    lines = ",\n  ".join(", ".join(words[at : at + PER_LINE]) for at in range(0, len(words), PER_LINE))
    return f"static const {kind} {name}[{len(words)}] ALIGNED = {{\n  {lines}}};"


def c_float(value: Any) -> str:
    return f"{np.float32(value):.8e}f"
