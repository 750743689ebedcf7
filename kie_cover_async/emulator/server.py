"""`CoverEmulator`: its settings, starting and stopping, and the methods that tests call."""

from collections.abc import Collection, Mapping
from itertools import count as counter
from typing import Literal, Self

from . import values
from .callbacks import CallbackPlan, CallbackSender, SentCallback
from .faults import Fault, FaultRule
from .gateway import ENDPOINTS, Gateway, Origin, ReceivedRequest
from .jobs import CoverScript, JobFactory, parse_script
from .service import Limits, Service
from .values import Duration

_KINDS = ("poll", "submit")


class CoverEmulator:
    """An emulator of KIE.ai's cover API, on real sockets of 127.0.0.1::

        async with CoverEmulator(generation_time=0.2) as emulator:
            task_id = emulator.add_job()
            ...  # point a client at emulator.url

    It answers `record-info` and `generate` of the suno route, `recordInfo` and `createTask` of the
    Market route, `credit` and `download-url` as the service was observed to do: HTTP 200 with the
    error code inside the envelope, `data: null` or 422 for unknown ids, flag 2 or the state
    `generating` while a cover is being generated, times as epoch milliseconds. Both routes show the
    same jobs. Images are on a second origin, which refuses (403) any request with an
    `Authorization` header.

    - `port`, `image_port`: 0 takes a free one, which is kept when started again.
    - `api_key`: the one accepted key; `None` accepts any bearer key that is not empty.
    - `seed`: determines every random choice. The choices for a song depend only on the seed and the
      song, not on the order in which requests arrive.
    - `generation_time`: seconds from creation to the end of a job; a number, a range to draw from
      uniformly, or a callable that is given a `random.Random`.
    - `visible_after`: seconds during which a new job is still answered like an unknown id.
    - `failure_rate`, `stuck_rate`: the shares of the unscripted jobs that end in failure and that
      never end.
    - `credits`, `price`: the account's credits, and how many one submit takes on either route (by
      the vendor's catalogue a cover costs nothing on the Market route). Code 402 answers if there
      are too few.
    - `latency`: seconds before each answer, in the notations of `generation_time`.
    - `unknown_songs`: ids for which a submit answers "Original music record does not exist".
    - `duplicates`, `duplicate_reveals_task_id`: the code for a second request for one song, and
      whether the answer has the first job's id (documented, but never seen).
    - `limits`: how many requests it takes; `Limits()` has the vendor's numbers. Requests above them
      are answered with code 429, as the service does, and counted in `refusals`. `None` is no
      limit.
    - `callbacks`, `callback_key`: how callbacks are sent when jobs end, if their URL is on this
      machine, and the key that signs them; `None` signs nothing.
    - `clock_offset`: seconds by which the server's wall clock is ahead of this machine's.
    - `image_size`: width and height of the images in pixels.
    - `keep_requests`: `False` leaves `requests` and `callbacks` empty, for very long runs.

    Example:
        >>> from kie_cover_async.emulator import CoverEmulator
        >>> async with CoverEmulator() as emulator:
        ...     task_id = emulator.add_job("generating, 429, success")
        ...     async with CoverClient("any-key", base_url=emulator.url) as client:
        ...         details = await client.wait_for_cover(task_id)
        >>> emulator.poll_count(task_id)
        3
    """

    ENDPOINTS = (*(endpoint.name for endpoint in ENDPOINTS.values()), "image")

    def __init__(
        self,
        *,
        port: int = 0,
        image_port: int = 0,
        api_key: str | None = None,
        seed: int | str = 0,
        generation_time: Duration = (0.5, 2.0),
        visible_after: float = 0.0,
        failure_rate: float = 0.0,
        stuck_rate: float = 0.0,
        credits: float = 5916.25,
        price: float = 0.25,
        latency: Duration = 0.0,
        unknown_songs: Collection[str] = (),
        duplicates: Literal["400", "409"] = "400",
        duplicate_reveals_task_id: bool = True,
        limits: Limits | None = None,
        callbacks: CallbackPlan | None = None,
        callback_key: str | None = None,
        clock_offset: float = 0.0,
        image_size: int = 64,
        keep_requests: bool = True,
    ) -> None:
        for name, number in (("port", port), ("image_port", image_port)):
            values.validate(name, number, values.port)
        self._ports = [port, image_port]
        jobs = JobFactory(seed, generation_time, visible_after, failure_rate, stuck_rate)
        self._service = Service(
            jobs,
            limits,
            api_key,
            unknown_songs,
            duplicates,
            duplicate_reveals_task_id,
            price,
            credits,
        )
        self._gateway = Gateway(
            self._service, seed, latency, clock_offset, image_size, keep_requests
        )
        publish, now = self._service.publish, self._gateway.now
        plan = CallbackPlan() if callbacks is None else callbacks
        self._callbacks = CallbackSender(plan, callback_key, seed, publish, now, keep_requests)
        self._service.callbacks = self._callbacks
        self._connection_numbers = counter(1)
        self._origins: list[Origin] = []

    async def start(self) -> None:
        """Start listening.

        Raises RuntimeError if the emulator is running, and OSError if a port is taken.
        """
        if self._origins:
            raise RuntimeError("this emulator is running already")
        serve = self._gateway.serve_api, self._gateway.serve_image
        self._origins = [Origin(each, self._connection_numbers) for each in serve]
        try:
            self._ports = [
                await origin.listen(port)
                for origin, port in zip(self._origins, self._ports, strict=True)
            ]
        except BaseException:
            await self.aclose()
            raise
        self._service.image_url = self.image_url
        self._callbacks.open()

    async def aclose(self) -> None:
        """End every connection, request and callback immediately, stalled ones too.

        May be called again. Pending callbacks are sent if the emulator is started again.
        """
        origins, self._origins = self._origins, []
        await self._callbacks.close()
        for origin in origins:
            await origin.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        """The base URL of the API, on a free port of 127.0.0.1; known once started."""
        return self._origin_url(0)

    @property
    def image_url(self) -> str:
        """The origin of the images; known once started."""
        return self._origin_url(1)

    def _origin_url(self, origin: int) -> str:
        if not self._ports[origin]:
            raise RuntimeError("this emulator has not been started")
        return f"http://127.0.0.1:{self._ports[origin]}"

    @property
    def credits(self) -> float:
        """The remaining credits of the account."""
        return self._service.credits

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests to both origins in the order of arrival; the list may be cleared."""
        return self._gateway.requests

    @property
    def callbacks(self) -> list[SentCallback]:
        """The attempts at callbacks in the order they ended; the list may be cleared."""
        return self._callbacks.sent

    @property
    def refusals(self) -> Mapping[str, int]:
        """How many `"polls"` and `"submits"` exceeded `limits` and were refused."""
        return {kind: window.refusals for kind, window in self._service.windows.items()}

    @property
    def open_connections(self) -> int:
        """How many connections clients hold open now, to both origins."""
        return sum(len(origin.connections) for origin in self._origins)

    def poll_count(self, task_id: str) -> int:
        """Return how many times this id was polled, whatever the answer."""
        return self._gateway.polls[task_id]

    def add_job(
        self,
        script: CoverScript | str | None = None,
        *,
        task_id: str | None = None,
        music_task_id: str | None = None,
        age: float = 0.0,
        callback_url: str | None = None,
    ) -> str:
        """Create a job without a request, created `age` seconds ago; return its id.

        A str is the `statuses` of a script, such as `"pending, generating, 429, success"`. A
        callback that would have been sent before now is sent immediately.

        Raises ValueError if the id or the song has a job already, or a status does not exist.
        """
        values.validate("age", age, values.seconds)
        plan = None if script is None else parse_script(script)
        created = self._gateway.now().before(age)
        return self._service.add_job(
            music_task_id, created, script=plan, task_id=task_id, callback_url=callback_url
        )

    def script_song(self, music_task_id: str, script: CoverScript | str) -> None:
        """Set the script of the job that this song will get; a str is its `statuses`."""
        self._service.job_factory.scripts[music_task_id] = parse_script(script)

    def fault(
        self,
        fault: Fault,
        *,
        count: int | None = None,
        rate: float | None = None,
        endpoint: str | None = None,
        task_id: str | None = None,
        after: int = 0,
    ) -> None:
        """Apply `fault` to the next `count` requests (1 by default), or at random to a share.

        The share `rate` is of all later requests; with a `count`, at most that many are affected.

        If `endpoint` or `task_id` are given, only their requests are affected (on a submit the id
        is the song's); images only if `endpoint` is `image`. The endpoints `poll` and `submit` are
        those of both routes. The first `after` of these requests pass. If several faults match,
        the one added first is applied.
        """
        accepted = (*self.ENDPOINTS, *_KINDS)
        if endpoint is not None and endpoint not in accepted:
            raise ValueError(f"no endpoint is called {endpoint!r}: {', '.join(accepted)}")
        rule = FaultRule(
            fault=fault, count=count, rate=rate, endpoint=endpoint, task_id=task_id, after=after
        )
        if endpoint == "image" and fault.path is not None:
            raise ValueError(f"an image has no field {'.'.join(fault.path)!r} to change")
        self._gateway.faults.rules.append(rule)

    def clear_faults(self) -> None:
        """Remove every fault still to happen, except for those in the scripts of jobs."""
        self._gateway.faults.rules.clear()
