"""The `native` engines: compiled C, an actor's own in whole numbers or a network's in float32, called on buffers that are made once.

The shared object comes as bytes out of a checked bundle and is loaded from memory: no file that somebody could change between
the check and the load. Rule that must stay true: the library was verified before it gets here, for loading it runs it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os

import numpy as np

from edge_dsac.bundle.actor import Actor
from edge_dsac.bundle.blocks import packed, room
from edge_dsac.records import Float, Observation


class NativeError(ValueError):
    """A compiled actor that this machine will not load."""


class NativeActor:
    """What was compiled, weights and all."""

    def __init__(self, library: bytes, form: str, sizes: tuple[int, ...], identity: int) -> None:
        """`form`: float32 or integer. `sizes`: the actor's."""
        self.bundle_id = identity
        self.library = load_library(library)
        self.obs: Float = np.zeros(sizes[0], np.float32)
        self.action: Float = np.zeros(sizes[-1], np.float32)
        self.call = getattr(self.library, f"actor_{form}")
        self.call.argtypes, self.call.restype = [ctypes.c_void_p, ctypes.c_void_p], None
        self.obs_at, self.action_at = self.obs.ctypes.data, self.action.ctypes.data

    def act(self, obs: Observation) -> Float:
        self.obs[:] = obs.vector
        self.call(self.obs_at, self.action_at)
        action: Float = self.action.copy()  # the next answer is written over this one
        return action


class CNetwork(ctypes.Structure):
    """`struct network` of c/real.h."""

    _fields_ = (("weights", ctypes.c_void_p), ("sizes", ctypes.c_void_p), ("room", ctypes.c_void_p), ("layers", ctypes.c_int32))


class NativeNetwork:
    """The compiled float32 network with this actor's weights: also one that was tuned after its parent was compiled."""

    def __init__(self, library: bytes, actor: Actor, identity: int) -> None:
        self.bundle_id = identity
        self.library = load_library(library)
        self.held = (packed(actor), np.array(actor.sizes, np.int32), np.zeros(room(actor), np.float32))  # what C points to
        self.network = CNetwork(*(numbers.ctypes.data for numbers in self.held), len(actor.layers))
        self.obs: Float = np.zeros(actor.sizes[0], np.float32)
        self.action: Float = np.zeros(actor.sizes[-1], np.float32)
        try:
            self.call = self.library.network_float32
        except AttributeError:
            raise NativeError("the compiled actor takes no other weights: it is of an older version; compile the policy again") from None
        self.call.argtypes, self.call.restype = [ctypes.c_void_p] * 3, None
        self.at = (ctypes.addressof(self.network), self.obs.ctypes.data, self.action.ctypes.data)

    def act(self, obs: Observation) -> Float:
        self.obs[:] = obs.vector
        self.call(*self.at)
        action: Float = self.action.copy()  # the next answer is written over this one
        return action


def load_library(content: bytes) -> ctypes.CDLL:
    """Loaded once for each content: children carry what their parent was compiled to, and only the weights are another's.

    The memory file stays open as long as the process: a loader that meets a name again gives what it loaded under it before.
    """
    digest = hashlib.sha256(content).digest()
    if digest not in LOADED:
        LOADED[digest] = load_from_memory(content)
    return LOADED[digest]


def load_from_memory(content: bytes) -> ctypes.CDLL:
    file = os.memfd_create("actor", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(file), "wb") as out:
        out.write(content)
    try:
        return ctypes.CDLL(f"/proc/self/fd/{file}")
    except OSError as error:
        os.close(file)
        raise NativeError(f"the compiled actor cannot be loaded here: {error}; another engine can run this policy") from None


LOADED: dict[bytes, ctypes.CDLL] = {}
