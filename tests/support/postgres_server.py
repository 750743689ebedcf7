"""A PostgreSQL server of the test run's own, on a free port of this machine."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

# Debian puts only some of the programs on the PATH.
_VERSIONS = sorted(
    Path("/usr/lib/postgresql").glob("*/bin/postgres"),
    key=lambda path: int(re.sub(r"\D", "", path.parts[4]) or 0),
)
POSTGRES = shutil.which("postgres") or (str(_VERSIONS[-1]) if _VERSIONS else None)
needs_postgres = pytest.mark.skipif(
    POSTGRES is None, reason="needs PostgreSQL 13 or later: apt-get install postgresql"
)
PASSWORD = "hush-hush"
# Nothing here must survive a crash of the machine.
_SETTINGS = """
fsync = off
full_page_writes = off
synchronous_commit = off
shared_buffers = 16MB
listen_addresses = '127.0.0.1'
"""
# It refuses root.
_USER: dict[str, Any] = (
    {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
)


@define
class PostgresServer:
    """A server that can be killed and started again. `schema` gives each test its own schema."""

    folder: Path = field(init=False)
    port: int = field(init=False)
    _schemas: int = field(default=0, init=False)

    @folder.default
    def _create(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password") if _USER else ():
            shutil.chown(path, _USER["user"], _USER["group"])
        return folder

    @port.default
    def _free_port(self) -> int:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            return int(bound.getsockname()[1])

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Create the files of the database."""
        accounts = ("--username=postgres", "--pwfile=password", "--auth=password")
        encoding = ("--encoding=UTF8", "--locale=C")
        self._call("initdb", "--no-sync", "--pgdata=data", *accounts, *encoding)
        with (self.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = f"-p {self.port} -k {self.folder}"
        self._call("pg_ctl", "start", "-w", "--pgdata=data", "--log=log", "-o", options)

    def kill(self) -> None:
        """End the server as a crash would."""
        self._call("pg_ctl", "stop", "--mode=immediate", "--pgdata=data")

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def schema(self) -> str:
        """Return the name of a schema that no other test uses."""
        self._schemas += 1
        return f'test "{self._schemas}"'

    def _call(self, program: str, *arguments: str) -> None:
        command = [Path(str(POSTGRES)).with_name(program), *arguments]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, **_USER)
