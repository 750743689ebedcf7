"""An asyncio client for KIE.ai's Suno cover images."""

from ._version import __version__

__all__ = ["__version__"]
