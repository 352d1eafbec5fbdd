"""The `native` engines: the actor's own compiled C, float32 or in whole numbers, called on buffers that are made once.

The shared object comes as bytes out of a checked bundle and is loaded from memory: no file that somebody could change between
the check and the load. Rule that must stay true: the library was verified before it gets here, for loading it runs it.
"""

from __future__ import annotations

import ctypes
import os

import numpy as np

from edge_dsac.records import Float, Observation


class NativeError(ValueError):
    """A compiled actor that this machine will not load."""


class NativeActor:
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


def load_library(content: bytes) -> ctypes.CDLL:
    """The memory file stays open as long as the process: a loader that meets a name again gives what it loaded under it before."""
    file = os.memfd_create("actor", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(file), "wb") as out:
        out.write(content)
    try:
        return ctypes.CDLL(f"/proc/self/fd/{file}")
    except OSError as error:
        os.close(file)
        raise NativeError(f"the compiled actor cannot be loaded here: {error}; another engine can run this policy") from None
