"""One robot in plain floats, or many in arrays: the few operations that must know which of the two it is.

A value is a float for one robot and an array of the batch's shape for many; what has several entries (joints, axes) is a
tuple of values. Sums and products are then the same code for both, and one robot pays no array's price: a sum of two
floats takes 0.03 us, a sum of two arrays of one entry 0.8. Rule that must stay true: both kinds compute the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import le
from typing import Any

import numpy as np

from edge_dsac.records import Float, Values

Matrix = tuple[tuple[float, ...], ...]  # by columns


def mix(values: Values, matrix: Matrix) -> Values:
    """`values @ matrix`."""
    if len(values) == 2:  # two wheels, two actions: the usual case, at a third of the time
        first, second = values
        return tuple([first * a + second * b for a, b in matrix])
    return tuple([sum([value * factor for value, factor in zip(values, column, strict=True)]) for column in matrix])


def columns_of(matrix: Float) -> Matrix:
    return tuple(tuple(column) for column in matrix.T.tolist())


class One:
    """A single robot: every value is a float."""

    batch: tuple[int, ...] = ()
    arctan2, hypot, cos, sin = (staticmethod(function) for function in (math.atan2, math.hypot, math.cos, math.sin))
    floor = staticmethod(math.floor)
    is_finite = staticmethod(math.isfinite)

    def full(self, value: Any) -> Any:
        return value

    def choose(self, condition: Any, yes: Any, no: Any) -> Any:
        return yes if condition else no

    def any(self, condition: Any) -> bool:
        return bool(condition)

    def clamp(self, value: Any, low: Any, high: Any) -> Any:
        return max(min(value, high), low)  # NaN comes through: it compares as false, and stands first

    def each(self, array: Float) -> Any:
        """`[1]` or `[robots]` -> a value."""
        return float(array[0])

    def lookup(self, table: Float) -> Callable[[Any], Values]:
        """`table[1 or robots, entries, k]` -> entry -> k values."""
        rows = [tuple(row) for row in table[0].tolist()]
        return rows.__getitem__

    def split(self, array: Float) -> Values:
        """`[k]` -> k values."""
        return tuple(array.tolist())

    def join(self, values: Values) -> Float:
        return np.array(values)

    def vector(self, values: list[Any], limits: tuple[float, ...]) -> tuple[Float, bool]:
        """Clipped, as float32, and whether all of it is finite."""
        if all(map(le, map(abs, values), limits)):  # nearly always; a NaN is never within
            return np.array(values, np.float32), True
        clipped = [self.clamp(value, -limit, limit) for value, limit in zip(values, limits, strict=True)]
        return np.array(clipped, np.float32), math.isfinite(sum(values))


class Many:
    """A batch of robots: every value is an array of its shape."""

    arctan2, hypot, cos, sin = (staticmethod(function) for function in (np.arctan2, np.hypot, np.cos, np.sin))
    is_finite = staticmethod(np.isfinite)

    def __init__(self, batch: tuple[int, ...]) -> None:
        self.batch = batch

    def full(self, value: Any) -> Any:
        return np.full(self.batch, value)

    def choose(self, condition: Any, yes: Any, no: Any) -> Any:
        return np.where(condition, yes, no)

    def any(self, condition: Any) -> bool:
        return bool(np.any(condition))

    def clamp(self, value: Any, low: Any, high: Any) -> Any:
        return np.maximum(np.minimum(value, high), low)

    def floor(self, value: Any) -> Any:
        return np.floor(value).astype(int)

    def each(self, array: Float) -> Any:
        return np.broadcast_to(array if len(array) == 1 else array.reshape(self.batch), self.batch)

    def lookup(self, table: Float) -> Callable[[Any], Values]:
        robots = math.prod(self.batch)
        rows = (np.arange(robots) if len(table) == robots else np.zeros(robots, int)).reshape(self.batch)
        return lambda entry: self.split(table[rows, entry])

    def split(self, array: Float) -> Values:
        """`[..., k]` -> k values."""
        return tuple(np.moveaxis(np.asarray(array), -1, 0))

    def join(self, values: Values) -> Float:
        """The inverse: k values -> `[..., k]`."""
        return np.stack([np.broadcast_to(value, self.batch) for value in values], axis=-1) if values else np.zeros((*self.batch, 0))

    def vector(self, values: list[Any], limits: tuple[float, ...]) -> tuple[Float, Any]:
        whole = self.join(tuple(values))
        return self.clamp(whole, -np.array(limits), np.array(limits)).astype(np.float32), np.isfinite(whole).all(axis=-1)


Lanes = One | Many


def make_lanes(batch: tuple[int, ...]) -> Lanes:
    return Many(batch) if batch else One()
