"""`CoverEmulator`: its settings, its life, and what may be asked of it."""

from collections.abc import Collection, Mapping
from itertools import count as counting
from random import Random
from types import TracebackType
from typing import Literal, Self

from kie_cover_async.emulator import accepted
from kie_cover_async.emulator.callbacks import CallbackPlan, CallbackSender, SentCallback
from kie_cover_async.emulator.faults import Fault, FaultPlan
from kie_cover_async.emulator.gateway import Gateway, ReceivedRequest
from kie_cover_async.emulator.jobs import Duration, Studio
from kie_cover_async.emulator.limits import LimitKeeper, Limits
from kie_cover_async.emulator.origin import Origin
from kie_cover_async.emulator.scripts import CoverScript, read_script
from kie_cover_async.emulator.service import Service


class CoverEmulator:
    """KIE.ai's cover API in miniature, on real sockets of 127.0.0.1::

        async with CoverEmulator(generation_time=0.2) as emulator:
            task_id = emulator.add_job()
            ...  # point a client at emulator.url

    It answers `record-info`, `generate`, `credit` and `download-url` as the service was seen to:
    HTTP 200 with the error code inside the envelope, `data: null` for unknown ids, flag 2 while a
    cover is being generated, times as epoch milliseconds. Images are on a second origin which
    refuses (403) any request that carries an `Authorization` header.

    - `port`, `image_port`: 0 takes a free one, which is kept when started again.
    - `api_key`: the one key admitted; `None` admits any bearer key that is not empty.
    - `seed`: every random choice follows from it. What is drawn for a song depends on the seed
      and the song alone, not on the order in which requests arrive.
    - `generation_time`: seconds from creation to the end of a job; a number, a range to draw from
      evenly, or a callable that is given a `random.Random`.
    - `visible_after`: seconds during which a new job is still answered with `data: null`.
    - `failure_rate`, `stuck_rate`: the shares of the unscripted jobs that end in failure and that
      never end.
    - `credits`, `price`: what the account holds, and what one `generate` takes. Code 402 answers
      where it is not enough.
    - `latency`: seconds before each answer, in the notations of `generation_time`.
    - `unknown_songs`: ids for which `generate` answers "Original music record does not exist".
    - `duplicates`, `duplicate_reveals_task_id`: the code for a second request for one song, and
      whether the first job's id comes with it (documented, but never seen).
    - `limits`: how many requests it takes; `Limits()` has the vendor's numbers. What exceeds them
      is answered with code 429, as the service does, and counted in `refusals`. `None` is no limit.
    - `callbacks`, `callback_key`: how jobs that end are called back, if their URL is on this
      machine, and the key that signs it; `None` signs nothing.
    - `clock_offset`: seconds by which the server's wall clock is ahead of this machine's.
    - `image_size`: width and height of the images in pixels.
    - `keep_requests`: `False` leaves `requests` and `callbacks` empty, for runs of very many.

    Example:
        >>> from kie_cover_async.emulator import CoverEmulator
        >>> async with CoverEmulator() as emulator:
        ...     task_id = emulator.add_job("generating, 429, success")
        ...     async with CoverClient("any-key", base_url=emulator.url) as client:
        ...         details = await client.wait_for_cover(task_id)
        >>> emulator.poll_count(task_id)
        3
    """

    ENDPOINTS = ("record-info", "generate", "credit", "download-url", "image")

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
        if limits is not None:
            accepted.argument("limits", limits, accepted.a(Limits, "limits"))
        studio = Studio(
            seed=seed,
            generation_time=generation_time,
            visible_after=visible_after,
            failure_rate=failure_rate,
            stuck_rate=stuck_rate,
        )
        self._service = Service(
            studio=studio,
            limits=LimitKeeper(limits),
            api_key=api_key,
            unknown_songs=unknown_songs,
            duplicates=duplicates,
            duplicate_reveals_task_id=duplicate_reveals_task_id,
            price=price,
            credits=credits,
        )
        self._gateway = Gateway(
            service=self._service,
            faults=FaultPlan(Random(f"{seed}/faults")),
            dice=Random(f"{seed}/answers"),
            latency=latency,
            clock_offset=clock_offset,
            image_size=image_size,
            keep_requests=keep_requests,
        )
        self._callbacks = CallbackSender(
            plan=callbacks or CallbackPlan(),
            key=callback_key,
            seed=seed,
            images_of=self._service.publish,
            now=self._gateway.now,
            keep_sent=keep_requests,
        )
        self._service.watcher = self._callbacks
        self._ports = accepted.ports(port=port, image_port=image_port)
        self._connection_numbers = counting(1)
        self._origins: list[Origin] = []

    async def start(self) -> None:
        """Listens; RuntimeError where it does already, OSError where the port is taken."""
        if self._origins:
            raise RuntimeError("this emulator is running already")
        api = Origin(self._gateway.serve_api, self._connection_numbers)
        images = Origin(self._gateway.serve_image, self._connection_numbers)
        self._origins = [api, images]
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
        """Ends every connection, request and callback at once, stalled ones too. May be called
        again. Callbacks that were still to be sent are, if it is started again.
        """
        origins, self._origins = self._origins, []
        await self._callbacks.close()
        for origin in origins:
            await origin.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        """What the account still holds."""
        return self._service.credits

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests to both origins in the order they arrived; the list may be cleared."""
        return self._gateway.requests

    @property
    def callbacks(self) -> list[SentCallback]:
        """The tries at callbacks in the order they were over; the list may be cleared."""
        return self._callbacks.sent

    @property
    def refusals(self) -> Mapping[str, int]:
        """How many `"polls"` and `"submits"` exceeded `limits` and were refused."""
        return self._service.limits.refusals

    @property
    def open_connections(self) -> int:
        """How many connections clients hold open at this moment, to both origins."""
        return sum(len(origin.connections) for origin in self._origins)

    def poll_count(self, task_id: str) -> int:
        """How many times `record-info` was asked for this id, whatever the answer."""
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
        """A job that nobody asked for over HTTP, created `age` seconds ago; returns its id.

        A text is the `statuses` of a script, such as `"pending, generating, 429, success"`. A
        callback that would have been sent before now is sent at once.

        ValueError where the id or the song has a job already, or no status is called so.
        """
        accepted.argument("age", age, accepted.pause)
        created = self._gateway.now().before(age)
        plan = None if script is None else read_script(script)
        settings = {"script": plan, "task_id": task_id, "callback_url": callback_url}
        return self._service.add_job(created, song=music_task_id, **settings)

    def script_song(self, music_task_id: str, script: CoverScript | str) -> None:
        """The script of the job that this song will get; a text is its `statuses`."""
        self._service.studio.scripts[music_task_id] = read_script(script)

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
        """Lets `fault` happen to the next `count` requests (1 by default), or by chance, to the
        share `rate` of all to come; both together are at most `count` of them.

        Only requests to `endpoint` and for `task_id` are meant where these are given (on
        `generate` the id is the song's); images only where `endpoint` is `image`. The first
        `after` of the requests meant are let pass. Of several faults the one asked for first
        comes first.
        """
        if endpoint is not None and endpoint not in self.ENDPOINTS:
            raise ValueError(f"no endpoint is called {endpoint!r}: {', '.join(self.ENDPOINTS)}")
        if endpoint == "image" and fault.path is not None:
            raise ValueError(f"an image has no field {'.'.join(fault.path)!r} to change")
        self._gateway.faults.add(
            fault, count=count, rate=rate, endpoint=endpoint, task_id=task_id, after=after
        )

    def clear_faults(self) -> None:
        """Forgets every fault still to come, but for those in the scripts of jobs."""
        self._gateway.faults.rules.clear()
