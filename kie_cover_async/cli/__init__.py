"""The command `kie-cover`: results go to stdout, everything else to stderr.

`commands/` holds one file for each verb or family of verbs, and `app` is where they are listed.
`options` declares them to typer, with the options that several of them share. `client` opens a
client from the environment, `ids` reads ids of covers and songs, `callback_server` receives
callbacks. `progress` is what is drawn or said while a command runs; `records` turns covers and
errors into lines for people and for programs; `output` writes them and defines the exit codes.
`process` covers signals and threads: how the command ends and how it is suspended.
"""

import sys

try:
    from .app import main
except ModuleNotFoundError as _missing:
    if str(_missing.name).partition(".")[0] not in {"click", "rich", "typer"}:
        raise

    def main() -> None:
        """Print which extra must be installed."""
        sys.stderr.write(
            "kie-cover needs rich and typer: pip install 'rich>=13.9' 'typer>=0.15.4'\n"
        )
        sys.exit(2)


__all__ = ["main"]
