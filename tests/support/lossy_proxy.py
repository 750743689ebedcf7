"""A TCP proxy that can lose the answer to a statement, as a failing network does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field


@define
class LossyProxy:
    """Passes bytes on to a port. Once `loses` is set, it cuts the connection before that answer.

    The server has then executed the statement whose bytes `loses` are.
    """

    target: int
    loses: bytes | None = None
    port: int = field(default=0, init=False)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        backwards = asyncio.create_task(_copy(server_reader, writer))
        while (content := await reader.read(65_536)) and not self._is_lost(content):
            server_writer.write(content)
        if content:
            backwards.cancel()
            await asyncio.wait([backwards])
            server_writer.write(content)
            await server_reader.read(65_536)
        for each in (server_writer, writer):
            each.close()
        await asyncio.wait([backwards])

    def _is_lost(self, content: bytes) -> bool:
        is_lost = self.loses is not None and self.loses in content
        if is_lost:
            self.loses = None
        return is_lost


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while content := await reader.read(65_536):
        writer.write(content)
    writer.close()


@asynccontextmanager
async def lossy_proxy(target: int) -> AsyncIterator[LossyProxy]:
    proxy = LossyProxy(target)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
