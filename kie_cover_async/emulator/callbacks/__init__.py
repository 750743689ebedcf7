"""Calling back: what is sent when a job ends, when, and what goes wrong with it."""

from kie_cover_async.emulator.callbacks.plan import CallbackPlan
from kie_cover_async.emulator.callbacks.sender import CallbackSender, SentCallback

__all__ = ["CallbackPlan", "CallbackSender", "SentCallback"]
