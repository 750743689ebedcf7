"""Where the command `kie-cover` begins.

It stands beside the package, whose imports take long enough for somebody to press Ctrl-C.
"""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command; ends in `SystemExit`."""
    try:
        from kie_cover_async.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
