import pytest

CONFIGURATION = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


@pytest.fixture
def outcomes(pytester):
    """Runs the text as a module of tests under the leak check."""

    def run(text: str) -> pytest.RunResult:
        pytester.makeini(CONFIGURATION)
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess("-p", "support.leak_check")

    return run


def test_a_clean_test_passes(outcomes):
    """Finished tasks and closed sockets are not leaks."""
    result = outcomes("""
        import asyncio

        async def hang_up(_, writer):
            writer.close()

        async def test_clean():
            async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                await reader.read()
                writer.close()
                await writer.wait_closed()
            await asyncio.create_task(asyncio.sleep(0))
    """)
    result.assert_outcomes(passed=1)


def test_a_pending_task_is_named(outcomes):
    """A task that was not awaited fails the test with its name."""
    result = outcomes("""
        import asyncio

        async def test_leak():
            test_leak.task = asyncio.create_task(asyncio.sleep(60), name="the forgotten")
    """)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["left behind:", "*the forgotten*"])


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_open_socket_is_named(outcomes, kind):
    """An open socket fails a test of either kind with the socket's address."""
    result = outcomes(f"""
        import pytest
        import socket

        @pytest.fixture(scope="module")
        def kept():
            sockets = []
            yield sockets
            for each in sockets:
                each.close()

        {kind} test_leak(kept):
            kept.append(socket.create_server(("127.0.0.1", 0)))

        {kind} test_clean(kept):
            socket.socket().close()
    """)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["left behind:", "<socket.socket *laddr=('127.0.0.1', *>"])


def test_an_unretrieved_error_is_named(outcomes):
    """An error that was not retrieved fails the test with that error."""
    result = outcomes("""
        import asyncio

        async def fail():
            raise ValueError("unheard")

        async def test_leak():
            asyncio.create_task(fail())
            await asyncio.sleep(0)
    """)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["left behind:", "*never retrieved*unheard*"])


def test_an_unclosed_session_is_named(outcomes):
    """An unclosed session fails the test that made it, even in a reference cycle."""
    result = outcomes("""
        import aiohttp

        async def test_leak():
            cycle = [aiohttp.ClientSession()]
            cycle.append(cycle)

        async def test_clean():
            pass
    """)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*Unclosed client session*"])
