"""The state of the emulated service: its account, jobs, songs and images, and its limits.

It reads no clock and sends nothing. Routes, such as `suno`, answer requests with it.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

from attrs import asdict, define, field, frozen
from attrs.validators import in_, optional

from . import values
from .callbacks import CallbackSender
from .faults import Answer, Fault, envelope, rate_limited, server_error, to_json
from .jobs import Instant, Job, JobFactory, Status

Window = tuple[int, float]
"""A number of requests, and the seconds in which they may come."""


@frozen
class Call:
    """The parts of a request that decide its answer; `fields` is `None` if it has no JSON object.

    `task_id` is the job's id, or the song's for a submit.
    """

    authorization: str
    task_id: str | None = None
    fields: Mapping[str, Any] | None = None


class Endpoint(NamedTuple):
    """One endpoint of a route: its name, and the function that answers it.

    `id_path` leads to the song's id in the body of a POST.
    """

    name: str
    answer: "Callable[[Service, Call, Instant], Answer]"
    kind: Literal["poll", "submit", "other"] = "other"
    id_path: tuple[str, ...] = ("taskId",)


# The API's own answer for an unknown path is not recorded.
UNKNOWN = Endpoint("", lambda *_: envelope(404, "Not Found", status=404))


@frozen(kw_only=True)
class Limits:
    """How many requests the service takes from its account; the defaults are the vendor's.

    Each limit is a number and the seconds of a sliding window: `(10, 1.0)` takes a request if fewer
    than ten were taken in the second before it. `None` is no limit. `submits` is for `generate` and
    `createTask` together, `polls` for all other requests to the API; images have no limit.
    """

    polls: Window | None = field(default=(10, 1.0), validator=values.window)
    submits: Window | None = field(default=(20, 10.0), validator=values.window)


class SlidingWindow:
    """The times of the requests that were taken, and the number of those that were refused.

    A refused request does not count: it delays no later one.
    """

    def __init__(self, window: Window | None) -> None:
        self.window = window
        self.refusals: int = 0
        self._taken: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Return whether the service takes a request at this time, and count it."""
        if self.window is None:
            return True
        number, seconds = self.window
        while self._taken and self._taken[0] <= now - seconds:
            self._taken.popleft()
        if len(self._taken) >= number:
            self.refusals += 1
            return False
        self._taken.append(now)
        return True


@define
class Service:
    job_factory: JobFactory
    limits: Limits | None = field(validator=optional(values.instance(Limits, "limits")))
    api_key: str | None = field(repr=False, validator=optional(values.key("api_key")))
    unknown_songs: Collection[str] = field(validator=values.ids)
    duplicates: Literal["400", "409"] = field(validator=in_(("400", "409")))
    duplicate_reveals_task_id: bool = field(validator=values.boolean)
    price: float = field(validator=values.amount)
    credits: float = field(validator=values.amount)
    image_url: str = field(default="", init=False)
    jobs: dict[str, Job] = field(factory=dict, init=False)
    songs: dict[str, str] = field(factory=dict, init=False)
    images: dict[str, str] = field(factory=dict, init=False)
    windows: dict[str, SlidingWindow] = field(init=False)
    # Set once both exist: the sender publishes images of the service.
    callbacks: CallbackSender = field(init=False)

    def __attrs_post_init__(self) -> None:
        limits = self.limits or Limits(polls=None, submits=None)
        self.windows = {kind: SlidingWindow(limit) for kind, limit in asdict(limits).items()}

    def answer(self, endpoint: Endpoint, call: Call, fault: Fault | None, now: Instant) -> Answer:
        """Return the right answer, which the fault will change, or a stand-in if it replaces it."""
        if endpoint is UNKNOWN:
            return endpoint.answer(self, call, now)
        is_submit = endpoint.kind == "submit"
        if fault is not None and not (fault.accepted if is_submit else fault.keeps_answer):
            return server_error(500)
        if not self._admits(call.authorization):
            return _UNAUTHORIZED
        if not self.windows["submits" if is_submit else "polls"].take(now.loop):
            return rate_limited()
        return endpoint.answer(self, call, now)

    def _admits(self, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        return scheme == "Bearer" and (bool(key) if self.api_key is None else key == self.api_key)

    def add_job(self, song: str | None, now: Instant, **settings: Any) -> str:
        """Create a job and return its id; raise ValueError if its id or song already has one."""
        song = song or self.job_factory.song_id(len(self.jobs))
        job = self.job_factory.create(song, now, **settings)
        if job.task_id in self.jobs or job.music_task_id in self.songs:
            raise ValueError(f"there is a job {job.task_id!r} or one of {job.music_task_id!r}")
        self.jobs[job.task_id] = job
        self.songs[job.music_task_id] = job.task_id
        self.callbacks.on_job_added(job)
        return job.task_id

    def submit(self, song: str, now: Instant, **settings: Any) -> Answer | str:
        """Create a job for the song and take its price: return its id, or the refusal."""
        if song in self.unknown_songs:
            return envelope(422, "Original music record does not exist")
        if song in self.songs:
            data = {"taskId": self.songs[song]} if self.duplicate_reveals_task_id else None
            return envelope(int(self.duplicates), _DUPLICATE_MESSAGES[self.duplicates], data)
        if self.credits < self.price:
            return envelope(402, "The current credits are insufficient. Please top up.")
        self.credits -= self.price
        return self.add_job(song, now, **settings)

    def poll(self, job: Job, now: Instant) -> tuple[Status, list[str]]:
        """Return the status for this poll of the job and, if it is a success, the image URLs."""
        status = job.poll(now)
        images = self.publish(job) if status.stage == "success" else []
        if status.stage in ("success", "failure"):
            self.callbacks.on_end_polled(job)
        return status, images

    def publish(self, job: Job) -> list[str]:
        """Make the job's images available and return their URLs."""
        paths = job.image_paths()
        self.images.update(dict.fromkeys(paths, job.task_id))
        return [self.image_url + path for path in paths]


_DUPLICATE_MESSAGES = {"400": "Cover already generated", "409": "Cover record already exists"}
NOT_AN_OBJECT = envelope(400, "The request body is not a JSON object")

# As recorded: HTTP 200, and an envelope without the field `data`.
_UNAUTHORIZED = Answer(
    to_json(
        {
            "code": 401,
            "msg": "Unauthorized \u2013 Authentication failed. Please check that your "
            "Authorization and Content-Type headers are correctly set.",
        }
    )
)
