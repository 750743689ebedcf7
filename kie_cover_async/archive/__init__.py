"""The images of covers on disk, complete or absent, with a record of what is there.

`archive` is what one uses, `saving` brings one cover. `parts` are files on their way, `direct` has
them in memory and brings them to the disk; `files` are those that lie there, `formats` reads what
kind of image there is, `names` finds names for ids. `record` is the database, `tables` what it has
to have, `rows` judges what it says, `failures` names the file in what SQLite raises, `presence`
tells who else is in the folder, `locks` waits for another program's lock, `threads` keeps all of
that off the event loop, and `notes` has many change the record at once; `pages` reads much of it in
turns, `export` writes it down for others, `backup` copies it, `values` is what there is to know,
and `final` says which errors rule a cover out.
"""

from .archive import CoverArchive
from .failures import DamagedRecordError
from .final import is_final
from .values import ArchivedCover, ImageProblem, SavedImage, VerificationReport

__all__ = [
    "ArchivedCover",
    "CoverArchive",
    "DamagedRecordError",
    "ImageProblem",
    "SavedImage",
    "VerificationReport",
    "is_final",
]
