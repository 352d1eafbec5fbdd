"""The errors of this package: one family, each naming what, where, expected, got and the next action."""

from __future__ import annotations


class BridgeError(OSError):
    """Something about the board or the way to it."""


class PortMissing(BridgeError):
    """There is no such device."""


class PortBusy(BridgeError):
    """Another process holds the device: two masters on one bus is how robots jump."""


class PortGone(BridgeError):
    """The device vanished while it was in use."""


class SpecMismatch(BridgeError):
    """Host and board were built from different robot files, or speak different protocols. Nothing may be armed."""

    refused = True


class BuildFailed(BridgeError):
    """The firmware could not be compiled."""
