"""What the emulated service knows, and what it answers by it. No clock is read and nothing sent."""

import json
from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol

from attrs import define, field, frozen, validators

from kie_cover_async.emulator import accepted, answers
from kie_cover_async.emulator.answers import Answer
from kie_cover_async.emulator.faults import Fault
from kie_cover_async.emulator.jobs import Job, Moment, Studio
from kie_cover_async.emulator.limits import LimitKeeper
from kie_cover_async.emulator.scripts import Status

ENDPOINTS = {
    ("GET", "/api/v1/suno/cover/record-info"): "record-info",
    ("POST", "/api/v1/suno/cover/generate"): "generate",
    ("GET", "/api/v1/chat/credit"): "credit",
    ("POST", "/api/v1/common/download-url"): "download-url",
}
_DUPLICATE_MESSAGES = {"400": "Cover already generated", "409": "Cover record already exists"}


@frozen
class Call:
    """A request, read as far as answering needs it; `fields` is `None` where it is no object."""

    endpoint: str
    authorization: str
    task_id: str | None = None
    fields: Mapping[str, Any] | None = None


def read_call(
    method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> Call:
    endpoint = ENDPOINTS.get((method, path), "")
    authorization = headers.get("Authorization", "")
    if method == "GET":
        return Call(endpoint, authorization, query.get("taskId"))
    fields = _json_object(body)
    task_id = fields.get("taskId") if fields else None
    return Call(endpoint, authorization, task_id if isinstance(task_id, str) else None, fields)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


class Watcher(Protocol):
    """Whoever is told what becomes of jobs."""

    def job_added(self, job: Job) -> None: ...

    def job_seen_ended(self, job: Job) -> None: ...


@define(kw_only=True)
class Service:
    studio: Studio
    limits: LimitKeeper
    api_key: str | None = field(repr=False, validator=validators.optional(accepted.key("api_key")))
    unknown_songs: Collection[str] = field(validator=accepted.ids)
    duplicates: Literal["400", "409"] = field(validator=validators.in_(_DUPLICATE_MESSAGES))
    duplicate_reveals_task_id: bool = field(validator=accepted.yes_or_no)
    price: float = field(validator=accepted.amount)
    credits: float = field(validator=accepted.amount)
    image_url: str = ""
    jobs: dict[str, Job] = field(factory=dict)
    songs: dict[str, str] = field(factory=dict)
    images: dict[str, str] = field(factory=dict)
    # Set once both are made, since the watcher needs the service too.
    watcher: Watcher = field(init=False)

    def answer(self, call: Call, fault: Fault | None, now: Moment) -> tuple[Answer, Fault | None]:
        """The right answer, and the fault to be met on the way, which the job's script may add."""
        if not call.endpoint:
            return answers.not_found(), fault
        if fault is not None and not self._reaches(call, fault):
            return answers.server_error(500, status=200), fault
        if not self._admits(call.authorization):
            return answers.unauthorised(), fault
        if not self.limits.takes(call.endpoint, now.loop):
            return answers.rate_limited(429, status=200), fault
        if call.endpoint == "record-info":
            return self._record_info(call.task_id, fault, now)
        return self._other(call, now), fault

    def _reaches(self, call: Call, fault: Fault) -> bool:
        """Whether the request is acted upon although its answer is spoilt or lost."""
        return fault.accepted if call.endpoint == "generate" else fault.keeps_answer

    def _admits(self, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        return scheme == "Bearer" and (bool(key) if self.api_key is None else key == self.api_key)

    def _record_info(
        self, task_id: str | None, fault: Fault | None, now: Moment
    ) -> tuple[Answer, Fault | None]:
        if not task_id:
            return answers.envelope(422, "Please enter taskId."), fault
        job = self.jobs.get(task_id)
        if job is None:
            return answers.success(None), fault
        status = job.poll(now)
        return self._record(job, status), fault or status.fault

    def _record(self, job: Job, status: Status) -> Answer:
        if status.stage == "success":
            self.publish(job)
        if status.stage in ("success", "failure"):
            self.watcher.job_seen_ended(job)
        return answers.success(job.record(status.stage, self.image_url))

    def publish(self, job: Job) -> list[str]:
        """The URLs of the job's images, which can be had from now on."""
        self.images.update(dict.fromkeys(job.image_paths(), job.task_id))
        return job.image_urls(self.image_url)

    def _other(self, call: Call, now: Moment) -> Answer:
        if call.endpoint == "credit":
            return answers.success(self.credits)
        if call.fields is None:
            return answers.envelope(400, "The request body is not a JSON object")
        if call.endpoint == "generate":
            return self._generate(call.task_id, call.fields.get("callBackUrl"), now)
        return self._download_url(call.fields.get("url"), now)

    def _generate(self, music_task_id: str | None, callback_url: Any, now: Moment) -> Answer:
        if not music_task_id:
            return answers.envelope(422, "Please enter taskId.")
        if not isinstance(callback_url, str) or not callback_url:
            return answers.envelope(422, "Please enter callBackUrl.")
        if music_task_id in self.unknown_songs:
            return answers.envelope(422, "Original music record does not exist")
        if music_task_id in self.songs:
            return self._duplicate(self.songs[music_task_id])
        if self.credits < self.price:
            return answers.envelope(402, "The current credits are insufficient. Please top up.")
        self.credits -= self.price
        job = self.studio.new_job(music_task_id, now, callback_url=callback_url)
        return answers.success({"taskId": self.add(job)})

    def _duplicate(self, task_id: str) -> Answer:
        data = {"taskId": task_id} if self.duplicate_reveals_task_id else None
        return answers.envelope(int(self.duplicates), _DUPLICATE_MESSAGES[self.duplicates], data)

    def _download_url(self, url: Any, now: Moment) -> Answer:
        origin, slash, path = str(url).partition("/s/")
        if origin != self.image_url or slash + path not in self.images:
            return answers.envelope(422, "url is wrong")
        return answers.success(f"{url}?expires={int(now.wall) + 20 * 60}")

    def add_job(self, now: Moment, *, song: str | None, **settings: Any) -> str:
        song = song or self.studio.song_id(len(self.jobs))
        return self.add(self.studio.new_job(song, now, **settings))

    def add(self, job: Job) -> str:
        """Takes the job in; ValueError where its id or its song has one already."""
        if job.task_id in self.jobs or job.music_task_id in self.songs:
            raise ValueError(f"there is a job {job.task_id!r} or one of {job.music_task_id!r}")
        self.jobs[job.task_id] = job
        self.songs[job.music_task_id] = job.task_id
        self.watcher.job_added(job)
        return job.task_id
