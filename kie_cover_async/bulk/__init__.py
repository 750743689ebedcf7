"""One call over many ids: an outcome for each as it comes, and no task left behind.

`outcome` is what there is for each id, `stream` what the caller holds; `pool` does the work.
"""

from .outcome import CoverOutcome
from .pool import Pool, TaskIds
from .stream import OutcomeStream

__all__ = ["CoverOutcome", "OutcomeStream", "Pool", "TaskIds"]
