"""The images of covers on disk, complete or absent, with a record of what is there.

`archive` is what one uses, `saving` brings one cover; `files` writes and judges, `formats` reads
what kind of image there is, `names` finds names for ids. `record` is the database, `rows` judges
what it says, `presence` tells who else is in the folder, `threads` keeps all of that off the event
loop; `pages` reads much of the record in turns, `export` writes it down for others, and `values` is
what there is to know.
"""

from .archive import CoverArchive
from .values import ArchivedCover, ArchiveReport, Finding, SavedImage

__all__ = ["ArchiveReport", "ArchivedCover", "CoverArchive", "Finding", "SavedImage"]
