"""From a task's id to the names of its files."""

import re
from hashlib import sha256

# In one case: folders of some systems take A and a for the same.
_SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


def stem(task_id: str, number: int) -> str:
    """The name of image `number` of this task, without the ending; no two images share one.

    An id that is fit for a name stands in it as it is, any other by its SHA-256 behind a plus,
    which no fit one has. The number is what follows the last hyphen.
    """
    if _SAFE.fullmatch(task_id):
        return f"{task_id}-{number}"
    return f"+{sha256(task_id.encode('utf-8', 'surrogatepass')).hexdigest()}-{number}"
