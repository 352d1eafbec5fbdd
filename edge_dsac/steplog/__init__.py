"""The flight recorder: every Step in a ring that survives the loop, drained to disk by a process of its own."""

from edge_dsac.steplog.follow import Chunk, Follower
from edge_dsac.steplog.reading import FlightLog, open_log
from edge_dsac.steplog.ring import Ring, RingReader
from edge_dsac.steplog.summary import summarise

__all__ = ["Chunk", "FlightLog", "Follower", "Ring", "RingReader", "open_log", "summarise"]
