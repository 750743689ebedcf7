"""The way to the API and back.

`exchange` sends one request over aiohttp and turns every failure into one of our errors;
`transport` puts the budget, the repetitions and the observer around it; `lifetime` ends what runs
when the client is closed. `downloads` is the door without the key, `addresses` where it may lead.
"""

from .downloads import Downloads
from .exchange import Exchange
from .lifetime import Lifetime
from .transport import Transport

__all__ = ["Downloads", "Exchange", "Lifetime", "Transport"]
