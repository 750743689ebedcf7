"""The command `kie-cover`: stdout is data, stderr is talk.

`app` declares the commands and `verbs` does most of them, over a `connection` made from the
environment; `help_page` has the help without types, and `output` says what goes where and what the
exit code means. `many` does those that take many ids, from wherever `ids` finds them. `board`,
`tally` and `record` are what people see of waits, of many of them and of covers, `stage`, `scene`
and `report` of the `demo`. `emulated` is the emulator in a terminal of its own. `collect` has the
images on disk; `listening` and `reception` are for callbacks, which `serving` lets in over
connections that `accepting` accepts and closes. `signals` has SIGTERM do what Ctrl-C does,
`threads` keeps a hung name server from delaying the end, and `failures` names what a command gets
through by itself.
"""

import sys

try:
    from .app import main
except ModuleNotFoundError as _missing:
    if str(_missing.name).partition(".")[0] not in {"click", "rich", "typer"}:
        raise

    def main() -> None:
        """Say what has to be installed."""
        sys.stderr.write("kie-cover needs more: pip install 'kie-cover-async[cli]'\n")
        sys.exit(2)


__all__ = ["main"]
