"""The console script `kie-cover`.

It is outside the package because the package's imports take long enough for Ctrl-C to be pressed.
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
