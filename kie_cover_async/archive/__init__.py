"""The images of covers on disk, each complete or absent, and a record of what is there.

`archive` has the class that users work with, and `saving` saves one cover. `files` names, writes
and checks image files, and `formats` checks what kind of image a file holds. `database` opens the
record, `covers` has its statements on covers and images, `songs` those of the ledger of songs, and
`export` copies it. `executors` keeps blocking work off the event loop, `locking` waits for other
programs, and `models` has the values.
"""

from .archive import CoverArchive
from .database import DamagedRecordError
from .models import ArchivedCover, ImageProblem, SavedImage, VerificationReport, is_final
from .songs import SqliteLedger

__all__ = [
    "ArchivedCover",
    "CoverArchive",
    "DamagedRecordError",
    "ImageProblem",
    "SavedImage",
    "SqliteLedger",
    "VerificationReport",
    "is_final",
]
