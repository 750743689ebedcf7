"""Songs in, covers kept: jobs that continue after a crash at any moment.

`job` runs one song as often as needed and submits it once; it knows the protocols of the ledger and
of the image store. `submit` is one attempt of its submit. `stream` runs many songs. `settlement`
stores an id that a person names.
"""

from .job import ImageStore, SongJob
from .settlement import settle_song
from .stream import CallbackSource, RunStoppedError, SongStream, make_covers

__all__ = [
    "CallbackSource",
    "ImageStore",
    "RunStoppedError",
    "SongJob",
    "SongStream",
    "make_covers",
    "settle_song",
]
