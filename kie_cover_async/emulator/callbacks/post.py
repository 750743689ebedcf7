"""The way out: connections, the tasks that use them, and whom they may reach."""

import asyncio
from collections.abc import Coroutine
from functools import lru_cache
from ipaddress import ip_address

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL

from kie_cover_async.emulator.callbacks.message import Message

_AT_ONCE = 100
# Shorter than any server's: so none closes a connection just when it is used again.
_IDLE_SECONDS = 1.0


class Outbox:
    """What exists only while the emulator is open. Everything under way ends with `close`."""

    def __init__(self, response_timeout: float) -> None:
        # Held while posting: waiting for a place takes nothing from the receiver's time.
        self.places: asyncio.Semaphore = asyncio.Semaphore(_AT_ONCE)
        self._response_timeout = response_timeout
        self._session: ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def post(self, url: str, message: Message) -> tuple[int | None, str | None]:
        """The HTTP status, or else why there is none."""
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=_AT_ONCE, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=DummyCookieJar(),
                timeout=ClientTimeout(total=self._response_timeout),
            )
        try:
            # A redirect could lead anywhere.
            async with self._session.post(
                url, data=message.body, headers=message.headers, allow_redirects=False
            ) as answer:
                return answer.status, None
        except TimeoutError:
            return None, f"no answer within {self._response_timeout:g} s"
        except (ClientError, OSError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


@lru_cache(maxsize=1024)
def is_loopback(url: str) -> bool:
    """Whether a request to this URL stays on this machine."""
    host = host_of(url)
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """Empty where there is none."""
    try:
        return URL(url).host or ""
    except ValueError:
        return ""
