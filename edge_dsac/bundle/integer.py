"""The actor in whole numbers, and its reference in numpy: the same bits on every processor, because nothing rounds but shifts.

    observation, SI float32  -> int16, by its clip                        (first layer: int16 x int16 -> int32)
    sum int32 -> shift, times multiplier -> int16 with RANGE bits before the point -> nonlinearity -> 0..127, a unit's own scale
                                                                          (hidden layers: 7 bits x int8 -> int32)
    last sum (7 bits x int16) -> tanh by a table with interpolation, or clip -> int16 -> action = that / 32768

Hidden values are 0..127 with a zero point and not -127..127: then one product pair always fits int16 (pmaddubsw), and the very
same byte is signed for one processor and unsigned for the other. Each unit has a scale of its own, folded into the next weights.
The form `int16` keeps hidden values and weights in 16 bits: twice the weights' bytes, an error of 1e-3 where int8 has 1e-2.
Rule that must stay true: `codegen.py` writes these very operations; `act_integer` here is what it is compared with, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_dsac.bundle.actor import NONLINEARITY, Actor, require_form
from edge_dsac.records import Float

Int = NDArray[np.signedinteger[Any]]

OBS_LIMIT = 32767
HIDDEN_LIMIT = 127
LANE_LIMIT = 32767  # two 7-bit-by-8-bit products, and then two such sums, are added in int16 before they are widened
SUM_LIMIT = 2**30  # of any sum, so that rounding cannot overflow int32
LEAST_RANGE_BITS = 3  # +-8 before the nonlinearity
MOST_RANGE_BITS = 14  # 16 bits hold no more: in gelu_int16 the half that is rounded with would wrap
TANH_BITS = 6  # of interpolation: 512 steps over 0..8
TANH_TABLE: Int = np.minimum(np.rint(np.tanh(np.arange(513) / 64.0) * 32768), 32767).astype(np.int16)

# gelu(x) = max(x, 0) - bump(|x|), bump(t) = t Phi(-t). Twice the bump over t in [0, 4], as a polynomial of t / 2 - 1 (least squares
# on Chebyshev points, error 1.3e-4 where 7 bits of a range of 4 are 3e-2), in Q15, highest power first.
BUMP: Int = np.array([1214, -5541, 1503, 15963, -19973, 807, 14283, -11232, 2979], np.int16)

# elu(x) = max(x, 0) - curve(max(-x, 0)), curve(t) = 1 - exp(-t), over t in [0, 8] as a polynomial of t / 4 - 1 (least maximum error on
# Chebyshev points: 1.2e-4 with its coefficients and products in Q15, half of what a step of a range of 8 is worth), highest power
# first. Beyond 8 it stays at 1 - exp(-8). At 0 it is 1 in Q15, which every range rounds to 0: positive x stay as they are.
CURVE: Int = np.array([665, -1507, 1679, -2919, 5259, -6584, 6373, -4778, 2402, 32167], np.int16)


class IntegerError(ValueError):
    """An actor that whole numbers cannot hold."""


@dataclass(frozen=True, slots=True)
class IntegerLayer:
    """sum = weight @ q + bias;  x = (sum >> shift) * multiplier >> 15;  next q = (nonlinear(x) * gain >> 15) + zero, in 0..127, or
    in 16 bits simply nonlinear(x)."""

    weight: Int  # int16 in the first and the last layer, int8 between; int16 everywhere in the form int16
    bias: Int  # int32, with what the zero points add to it
    shift: Int  # uint8
    multiplier: Int  # int16
    range_bits: int  # x is int16 with this many bits before the point
    gain: Int  # int16; none in the last layer and in the form int16
    zero: Int  # int16; as many


@dataclass(frozen=True, slots=True)
class IntegerActor:
    obs_scale: Float  # float32: observation -> int16
    layers: tuple[IntegerLayer, ...]
    activation: str
    form: str  # int8 or int16, of hidden values
    squash: str = "tanh"

    def act(self, obs: Float) -> Float:
        """`obs[..., n]` in SI -> `[..., actions]`, exactly what the generated C answers."""
        return np.asarray(self.act_integer(self.whole(obs)) * np.float32(1.0 / 32768.0), np.float32)

    def whole(self, obs: Float) -> Int:
        """Rounded half away from zero; NaN is 0, beyond the clip is the clip."""
        scaled = np.asarray(obs, np.float32) * self.obs_scale
        scaled = np.where(scaled == scaled, scaled, np.float32(0.0)).clip(-OBS_LIMIT, OBS_LIMIT)
        return np.asarray(np.trunc(scaled + np.copysign(np.float32(0.5), scaled)), np.int64)

    def act_integer(self, q: Int) -> Int:
        for layer in self.layers[:-1]:
            q = nonlinear(pre_activation(layer, q), layer.range_bits, self.activation)
            if self.form == "int8":
                q = np.clip(scaled_by(q, layer.gain) + layer.zero, 0, HIDDEN_LIMIT)
        return END[self.squash](pre_activation(self.layers[-1], q), LEAST_RANGE_BITS)


def pre_activation(layer: IntegerLayer, q: Int) -> Int:
    total = (q.astype(np.float64) @ layer.weight.T.astype(np.float64)).astype(np.int64) + layer.bias  # exact: below 2^53, and quick
    return scaled_by(saturated(shifted(total, layer.shift.astype(np.int64))), layer.multiplier)


def shifted(value: Int, bits: Int | int) -> Int:
    """Divided by a power of two, rounded half up."""
    return np.asarray((value + ((1 << np.asarray(bits)) >> 1)) >> bits)


def saturated(value: Int) -> Int:
    return np.asarray(np.clip(value, -32768, 32767))


def scaled_by(value: Int, q15: Int) -> Int:
    """int16 times a positive fraction in Q15, rounded half up: pmulhrsw."""
    return np.asarray((value.astype(np.int64) * q15 + 0x4000) >> 15)


def nonlinear(x: Int, range_bits: int, activation: str) -> Int:
    if activation == "tanh":
        return tanh(x, range_bits)
    positive = np.maximum(x, 0)
    if activation == "relu":
        return positive
    if activation == "elu":
        return positive - curve(np.minimum(-np.minimum(x, 0), 32767), range_bits)
    return positive - bump(np.minimum(np.abs(x), 32767), range_bits)


def curve(t: Int, range_bits: int) -> Int:
    s = (np.minimum(t, (1 << (18 - range_bits)) - 1) << (range_bits - 2)) - 32768
    total = np.full_like(s, CURVE[0])
    for coefficient in CURVE[1:]:
        total = scaled_by(total, s) + coefficient
    return scaled_by(total, np.asarray(1 << (15 - range_bits)))  # a rounded shift whose half cannot wrap in 16 bits


def bump(t: Int, range_bits: int) -> Int:
    s = (np.minimum(t, (1 << (17 - range_bits)) - 1) << (range_bits - 1)) - 32768
    total = np.full_like(s, BUMP[0])
    for coefficient in BUMP[1:]:
        total = scaled_by(total, s) + coefficient
    return shifted(total, range_bits + 1)


def tanh(x: Int, range_bits: int) -> Int:
    t = np.minimum(np.abs(x), 32767) << (range_bits - LEAST_RANGE_BITS)
    t = np.minimum(t, 32767)
    low, part = TANH_TABLE[t >> TANH_BITS].astype(np.int64), t & ((1 << TANH_BITS) - 1)
    high = TANH_TABLE[(t >> TANH_BITS) + 1]
    return np.asarray(np.sign(x) * (low + shifted((high - low) * part, TANH_BITS)))


def clip(x: Int, range_bits: int) -> Int:
    """What 1 is worth comes out as 32767 / 32768, as with tanh."""
    return np.asarray(np.clip(x << range_bits, -32767, 32767))


END = {"tanh": tanh, "clip": clip}


def unit_of(range_bits: int, activation: str) -> float:
    """What one step of a nonlinearity's output is worth."""
    return 2.0**-15 if activation == "tanh" else 2.0 ** (range_bits - 15)


# ---- from float to whole numbers


def make_integer(actor: Actor, obs: Float, clip: Float, form: str = "int8") -> IntegerActor:
    """`obs[samples, n]` in SI: what the ranges inside are taken from. `clip[n]`: what an observation never exceeds."""
    require_form(actor, ("gelu", "relu", "tanh", "elu"), tuple(END), "whole numbers")
    sums = actor.before_tanh(obs)
    input_units: Float = np.asarray(clip, np.float64) / OBS_LIMIT  # what one step of each input is worth
    zero: Int = np.zeros(len(input_units), np.int64)
    layers: list[IntegerLayer] = []
    last = len(actor.layers) - 1
    for i, (weight, bias) in enumerate(actor.layers):
        folded = weight.astype(np.float64) * input_units * (actor.obs_scale if i == 0 else 1.0)
        wide = form == "int16" or i in (0, last)  # weights in 16 bits
        most = HIDDEN_LIMIT if form == "int8" and i > 0 else OBS_LIMIT  # of an input
        scale = row_scale(folded, bias, most, 32767 if wide else 127, in_lanes=not wide)
        bits = LEAST_RANGE_BITS if i == last else range_bits_of(sums[i], scale)
        whole = np.rint(folded / scale[:, None]).astype(np.int64)
        total_bias = np.rint(bias / scale).astype(np.int64) - whole @ zero
        shift, multiplier = as_shift_and_multiplier(scale * 2.0 ** (15 - bits))
        values = NONLINEARITY[actor.activation](sums[i])
        gain, zero, input_units = output_scale(values, bits, actor.activation, form)
        if i == last or form == "int16":
            gain, zero = np.zeros(0, np.int64), np.zeros(len(weight), np.int64)
        layers.append(IntegerLayer(
            whole.astype(np.int16 if wide else np.int8), total_bias.astype(np.int32), shift.astype(np.uint8), multiplier.astype(np.int16),
            bits, gain.astype(np.int16), zero[: len(gain)].astype(np.int16),
        ))  # fmt: skip
    return IntegerActor((OBS_LIMIT / np.asarray(clip, np.float64)).astype(np.float32), tuple(layers), actor.activation, form, actor.squash)


def range_bits_of(sums: Float, scale: Float) -> int:
    """So that what was seen fits, with a quarter to spare, and no step of a sum is worth more than one of x."""
    bits = np.log2([1.25 * np.abs(sums).max() + 1e-9, 1.001 * scale.max() * 2.0**15])
    found = max(LEAST_RANGE_BITS, int(np.ceil(bits.max())))
    if found > MOST_RANGE_BITS:
        raise IntegerError(
            f"a sum before a nonlinearity reaches {np.abs(sums).max():.3g}, 16 bits hold {2**MOST_RANGE_BITS}; did it diverge?"
        )
    return found


def row_scale(folded: Float, bias: Float, input_limit: int, weight_limit: int, in_lanes: bool) -> Float:
    """What one step of each row's sum is worth: as fine as weights, the sum's 31 bits and int16 lanes allow."""
    size = np.abs(folded)
    scale = size.max(axis=1) / weight_limit
    if in_lanes:
        columns = -(-size.shape[1] // 8) * 8
        eights = np.pad(size, ((0, 0), (0, columns - size.shape[1]))).reshape(len(size), -1, 2, 2, 2)
        lanes = eights.sum(axis=(2, 4)).max(axis=(1, 2))  # weights k, k+1, k+4, k+5 of eight share an int16
        scale = np.maximum(scale, lanes * input_limit / (LANE_LIMIT - 2 * input_limit))  # each of the four may round up by a half
    most = size.sum(axis=1) * input_limit + np.abs(bias)
    return np.asarray(np.maximum(scale, np.maximum(most / (SUM_LIMIT - 32768 * size.shape[1]), 1e-12)))


def as_shift_and_multiplier(ratio: Float) -> tuple[Int, Int]:
    """ratio = multiplier / 2^15 / 2^shift, the multiplier in [2^14, 2^15)."""
    if not (ratio < 1.0).all():
        raise IntegerError(f"the actor's weights are too large for whole numbers (a step of {ratio.max():.2g}); did its run diverge?")
    shift = np.clip(np.floor(-np.log2(ratio)), 0, 30)
    multiplier = np.rint(ratio * 2.0 ** (shift + 15))
    return shift.astype(np.int64), np.clip(multiplier, 0, 32767).astype(np.int64)


def output_scale(values: Float, range_bits: int, activation: str, form: str) -> tuple[Int, Int, Float]:
    """gain and zero of each unit, and what one of its 127 steps is worth: what was seen, a tenth more, and 0, fit."""
    unit = unit_of(range_bits, activation)
    if form == "int16":
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.full(values.shape[1], unit)
    low, high = np.minimum(values.min(axis=0), 0.0) * 1.1, np.maximum(values.max(axis=0), 0.0) * 1.1
    gain = np.clip(np.floor(HIDDEN_LIMIT * unit * 32768 / np.maximum(high - low, 1e-9)), 1, 32767)
    step = unit * 32768 / gain
    return gain.astype(np.int64), np.rint(-low / step).astype(np.int64), step
