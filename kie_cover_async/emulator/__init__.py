"""The API in miniature on a free port, with scripted covers and faults."""

from kie_cover_async.emulator.callbacks import CallbackPlan, SentCallback
from kie_cover_async.emulator.faults import Fault
from kie_cover_async.emulator.gateway import ReceivedRequest
from kie_cover_async.emulator.limits import Limits
from kie_cover_async.emulator.scripts import CoverScript
from kie_cover_async.emulator.server import CoverEmulator

__all__ = [
    "CallbackPlan",
    "CoverEmulator",
    "CoverScript",
    "Fault",
    "Limits",
    "ReceivedRequest",
    "SentCallback",
]
