"""Screenshots of `kie-cover` on a terminal, as SVG: python docs/pictures/screens.py docs/images"""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from contextlib import suppress
from hashlib import blake2b
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

from kie_cover_async.emulator import CoverEmulator, CoverScript, Fault

ID = "21aee3c3c2a01fa5e030b3799fa4dd56"
LINES, COLUMNS = 24, 88

# Before rich draws again, it erases what it drew before: a picture lies between two of these.
WIPED = re.compile(r"(?:\r|\x1b\[1A|\x1b\[2K|\x1b\[\?25[lh])*\x1b\[2K(?:\x1b\[\?25[lh])*")


async def frames(*arguments: str, folder: str | None = None, **environment: str) -> list[str]:
    """Return the pictures that the command draws on a terminal, one after the other."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kie_cover_async.cli", *arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    drawn = await asyncio.to_thread(read_all, ours)
    await command.wait()
    return WIPED.split(drawn.replace("\r\n", "\n"))


def read_all(terminal: int) -> str:
    """Return what is written to the terminal until it is closed."""
    drawn = b""
    with suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as file:
        while piece := file.read(1 << 16):
            drawn += piece
    return drawn.decode()


def save(path: Path, typed: str, drawn: str) -> None:
    """Save the picture, below the line that was typed."""
    text = Text.assemble(("$ ", "dim"), typed, "\n", Text.from_ansi(drawn.strip("\n")))
    console = Console(
        record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(text)
    svg = console.export_svg(title="", unique_id=path.stem)
    # A reader of the page should not load a font from elsewhere.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def first(drawn: list[str], pattern: str) -> str:
    """Return the first picture that shows this."""
    return next(frame for frame in drawn if re.search(pattern, frame))


async def demo(folder: Path) -> None:
    with TemporaryDirectory() as images:
        drawn = await frames("demo", folder=images)
    save(folder / "demo-running.svg", "kie-cover demo", first(drawn, r"1[0-4] of 24 covers"))
    save(folder / "demo-ended.svg", "kie-cover demo", drawn[-1])


async def wait(folder: Path) -> None:
    async with CoverEmulator() as emulator:
        emulator.add_job(
            CoverScript(statuses=["pending", "generating", "generating", "generating", "success"]),
            task_id=ID,
            music_task_id="5c79be8e0a6a4bd0a61e8d1b3b2c2a7d",
        )
        emulator.fault(Fault.rate_limited(retry_after=2), after=3)
        drawn = await frames("wait", ID, KIE_BASE_URL=emulator.url, KIE_API_KEY="emulated")
    save(folder / "wait-running.svg", f"kie-cover wait {ID}", first(drawn, "resuming in 1"))
    save(folder / "wait-ended.svg", f"kie-cover wait {ID}", drawn[-1])


async def collect(folder: Path) -> None:
    typed = "collect --file ids.txt --rate inf"
    with TemporaryDirectory() as images:
        async with CoverEmulator(generation_time=(0.5, 9.0), image_size=1024) as emulator:
            jobs = [emulator.add_job() for _ in range(60)]
            jobs.append(emulator.add_job(CoverScript(seconds=1, end="failure")))
            write_ids(jobs, Path(images, "ids.txt"))
            environment = {"KIE_BASE_URL": emulator.url, "KIE_API_KEY": "emulated"}
            drawn = await frames(*typed.split(), folder=images, **environment)
    shown = with_outcomes(drawn, r"(?s)4[0-9] saved.*1 failed")
    save(folder / "collect-running.svg", f"kie-cover {typed}", shown)


async def make(folder: Path) -> None:
    typed = "make --file songs.txt --callback-url https://example.com/covers"
    with TemporaryDirectory() as images:
        async with CoverEmulator(generation_time=(1.0, 7.0), image_size=1024) as emulator:
            songs = [blake2b(bytes([n]), digest_size=16).hexdigest() for n in range(48)]
            write_ids(songs, Path(images, "songs.txt"))
            emulator.fault(Fault.gateway_page(accepted=True), endpoint="submit", after=5)
            environment = {"KIE_BASE_URL": emulator.url, "KIE_API_KEY": "emulated"}
            drawn = await frames(*typed.split(), folder=images, **environment)
    shown = with_outcomes(drawn, r"(?s)1[0-9] kept.*1 in doubt")
    save(folder / "make-running.svg", f"kie-cover {typed}", shown)


def with_outcomes(drawn: list[str], pattern: str) -> str:
    """Return the first picture that shows this, with the last lines that were written above it."""
    now = next(index for index, frame in enumerate(drawn) if re.search(pattern, frame))
    # A line is written once, above the view, and stays on the terminal.
    lines = [line for frame in drawn[:now] for line in frame.splitlines() if is_outcome(line)]
    return "\n".join([*lines[-4:], *drawn[now].splitlines()])


def write_ids(ids: list[str], file: Path) -> None:
    file.write_text("\n".join(ids))


def is_outcome(line: str) -> bool:
    """Return whether the line is that of a cover."""
    return re.match(r"[0-9a-f]{32}  ", line) is not None


async def main(folder: Path) -> None:
    await asyncio.gather(demo(folder), wait(folder), collect(folder), make(folder))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
