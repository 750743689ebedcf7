"""`emulator`: emulate the API on this machine until the command is interrupted."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial
from math import inf
from typing import Annotated

import typer

from kie_cover_async.api import ROUTES
from kie_cover_async.cli import options, output
from kie_cover_async.cli.callback_server import DEFAULT_PATH, callback_keys
from kie_cover_async.emulator import CallbackPlan, CoverEmulator, Fault, Limits
from kie_cover_async.validation import short_repr

_KEY = "emulated"

_share = partial(options.option, "SHARE", min=0, max=1)

_FAULTS = (
    Fault.rate_limited(),
    Fault.server_error(500),
    Fault.gateway_page(502),
    Fault.reset(midway=True),
    Fault.truncated_json(),
)


@options.command(
    """Emulate the API on this machine until Ctrl-C, for experiments.

    A fault by --fault-rate is one of: a refusal for too many requests, a server error, a gateway's
    HTML page, a connection reset, truncated JSON.

    Callbacks go to URLs on this machine only, signed if KIE_CALLBACK_KEY has a key, or with the
    first of several separated by commas.
    """,
    example="emulator --port 8321 --fault-rate 0.1 --lost-callbacks 0.2",
)
async def emulator(
    *,
    port: options.Port = 0,
    generation_time: Annotated[
        str, options.option("SECONDS", "From the submit to the end, or a range.")
    ] = "2-8",
    failure_rate: Annotated[float, _share("The share of covers that fail.")] = 0.0,
    stuck_rate: Annotated[float, _share("The share of covers that never end.")] = 0.0,
    fault_rate: Annotated[float, _share("The share of answers that go wrong.")] = 0.0,
    limits: Annotated[
        bool, typer.Option("--limits", help="Refuse what exceeds the vendor's limits.")
    ] = False,
    late_callbacks: Annotated[float, _share("The share that comes seconds later.")] = 0.0,
    lost_callbacks: Annotated[float, _share("The share that never comes.")] = 0.0,
    duplicated_callbacks: Annotated[float, _share("The share that comes twice.")] = 0.0,
    forged_callbacks: Annotated[float, _share("The share with a forged one next to it.")] = 0.0,
    wrong_signatures: Annotated[float, _share("The share with a wrong signature.")] = 0.0,
    seed: Annotated[str, options.option("TEXT", "All random choices follow from it.")] = "0",
    as_json: options.Json = False,
) -> int:
    if failure_rate + stuck_rate > 1:
        raise output.UsageError("--failure-rate and --stuck-rate must be at most 1 together")
    try:
        seed.encode()
    except UnicodeEncodeError:
        raise output.UsageError(f"--seed must be UTF-8, not {short_repr(seed)}") from None
    with output.usage_errors():
        server = CoverEmulator(
            port=port,
            seed=seed,
            generation_time=parse_range(generation_time),
            failure_rate=failure_rate,
            stuck_rate=stuck_rate,
            limits=Limits() if limits else None,
            callbacks=CallbackPlan(
                late=late_callbacks,
                lost=lost_callbacks,
                duplicated=duplicated_callbacks,
                forged=forged_callbacks,
                wrong_signature=wrong_signatures,
            ),
            callback_key=next(iter(callback_keys()), None),
            keep_requests=False,
        )
    for fault, rate in zip(_FAULTS, fault_rates(fault_rate), strict=True):
        server.fault(fault, rate=rate)
    return await _serve(server, port, as_json=as_json)


async def _serve(server: CoverEmulator, port: int, *, as_json: bool) -> int:
    async with aclosing(server):
        try:
            await server.start()
        except OSError as error:
            raise output.UsageError(f"cannot listen on port {port}: {error.strerror}") from None
        _announce(server, as_json=as_json)
        interrupted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        return await interrupted


def parse_range(text: str) -> tuple[float, float]:
    """Parse `5` or `2-8`, in seconds; raises `UsageError`."""
    try:
        low, _, high = text.partition("-")
        first, last = float(low), float(high or low)
    except ValueError:
        first, last = inf, -inf
    if not 0 <= first <= last < inf:
        raise output.UsageError(
            f"--generation-time must be seconds, such as 5 or 2-8, not {text!r}"
        )
    return (first, last)


def fault_rates(total: float) -> Iterator[float]:
    """Yield the rates of rules that apply one after the other, so that all faults are as likely."""
    each = total / len(_FAULTS)
    for index in range(len(_FAULTS)):
        # Rounding may make the last of them slightly more than 1.
        yield min(each / (1 - index * each), 1.0)


def _announce(server: CoverEmulator, *, as_json: bool) -> None:
    environment = {"KIE_BASE_URL": server.url, "KIE_API_KEY": _KEY}
    polls = {name: server.url + route.poll.path for name, route in ROUTES.items()}
    if as_json:
        urls = {"url": server.url, "imageUrl": server.image_url, "pollUrls": polls}
        output.emit_json({**urls, "environment": environment})
        return
    output.say("The API is emulated here until Ctrl-C. In another terminal:")
    for name, value in environment.items():
        output.emit(f"export {name}={value}")
    output.say("Both routes show the same covers; polls go to:")
    for name, url in polls.items():
        output.say(f"  {url} (--route {name})")
    callback_url = f"http://127.0.0.1:8080{DEFAULT_PATH}"
    output.say("Then for example:")
    output.say(f"  kie-cover generate some-song --callback-url {callback_url}")
    output.say("  kie-cover generate some-song --route market")
    output.say("To receive a callback: kie-cover listen")
