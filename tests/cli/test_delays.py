"""Waits for other programs are reported, and do not delay the end of the process."""

import asyncio
import re
import sqlite3

import pytest

from kie_cover_async.archive import CoverArchive
from kie_cover_async.cli.output import FAILED, INTERRUPTED

HOST, UNKNOWN = "hung.example", "unknown.example"

# The name server never answers a question about one host, and does not know another.
HUNG = f"""
import socket, threading

def getaddrinfo(host, *rest, find=socket.getaddrinfo, **more):
    if host == {HOST!r}:
        threading.Event().wait()
    if host == {UNKNOWN!r}:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return find(host, *rest, **more)

socket.getaddrinfo = getaddrinfo
"""
FAST = "speed_up(10)"


async def test_wait_ends_in_time_although_the_name_server_hangs(run):
    """The timeout of a wait ends the process too, not only the wait."""
    arguments = ("wait", "an-id", "--timeout", "0.2", "--base-url", f"https://{HOST}")
    async with asyncio.timeout(30):
        ended = await run(*arguments, before=HUNG)
    assert ended.code == FAILED
    assert ended.err.startswith("kie-cover: no cover after 0.2 s")


@pytest.mark.parametrize(
    "arguments",
    [("wait", "an-id", "--base-url", f"https://{HOST}"), ("listen", "--host", HOST)],
    ids=["a client", "a server"],
)
async def test_hung_lookup_is_named_and_can_be_interrupted(started, arguments):
    """The line names the host; the first Ctrl-C ends the process."""
    async with asyncio.timeout(30), started(*arguments, before=HUNG + FAST) as command:
        line = await command.message()
        command.interrupt()
        ended = await command.end()
    assert line == f"waiting for the name server to find the address of {HOST}\n"
    assert (ended.code, ended.out, ended.err) == (INTERRUPTED, "", "")


async def test_unknown_host_is_a_failure_and_not_a_delay(run):
    """A name server that answers in time is not named, whatever it answers."""
    # Not faster, so that the answer is in time on a busy machine.
    before = HUNG + "speed_up(2)"
    arguments = ("wait", "an-id", "--timeout", "1.2", "--base-url", f"https://{UNKNOWN}")
    ended = await run(*arguments, before=before)
    failure, timeout = ended.err.splitlines()
    assert failure.startswith("temporary failure: no usable answer: ClientConnectorDNSError: ")
    assert re.match(r"kie-cover: no cover after 1\.\d s", timeout)


@pytest.fixture
async def locked(tmp_path):
    """A folder whose record another program has locked."""
    async with CoverArchive(tmp_path / "covers") as archive:
        await archive.add(["an-id"])
    connection = sqlite3.connect(tmp_path / "covers" / "covers.sqlite3", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield tmp_path / "covers"
    connection.close()


async def test_locked_record_is_named_and_can_be_interrupted(started, locked, emulator):
    """The line names the record; the first Ctrl-C ends the process, and the cover is pending."""
    arguments = ("collect", "another-id", "--out", str(locked), "--base-url", emulator.url)
    async with asyncio.timeout(30), started(*arguments, before=FAST) as command:
        line = await command.message()
        command.interrupt()
        ended = await command.end()
    record = locked / "covers.sqlite3"
    assert line == f"waiting for {record}, which another program has locked\n"
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert ended.err == "1 is still pending: run the same command again\n"
