"""An emulator of the API on a free port, with scripted covers and faults."""

from .callbacks import CallbackPlan, SentCallback
from .faults import Fault
from .gateway import ReceivedRequest
from .jobs import CoverScript
from .server import CoverEmulator
from .service import Limits

__all__ = [
    "CallbackPlan",
    "CoverEmulator",
    "CoverScript",
    "Fault",
    "Limits",
    "ReceivedRequest",
    "SentCallback",
]
