"""Looks shared between waits: joined while in flight, heard by every wait of the id.

`shared` makes and joins them; `ear` is where one wait hears of them, and of callbacks.
"""

from .ear import Ear
from .shared import Heard, OnSent, SharedLooks, Sighting

__all__ = ["Ear", "Heard", "OnSent", "SharedLooks", "Sighting"]
