"""The Suno route and the endpoints of no route, with their answers as recorded or documented.

Another route is another file like this one; `gateway` joins their `ENDPOINTS`.
"""

from typing import Any

from attrs import evolve

from .faults import Answer, envelope
from .jobs import TERMINAL_STAGES, Instant, Job, Stage
from .service import NOT_AN_OBJECT, Call, Endpoint, Service

_FLAGS = {"pending": 0, "generating": 2, "bare-success": 1, "success": 1, "failure": 3}


def success(data: Any) -> Answer:
    return envelope(200, "success", data)


def _record_info(service: Service, call: Call, now: Instant) -> Answer:
    if not call.task_id:
        return envelope(422, "Please enter taskId.")
    job = service.jobs.get(call.task_id)
    if job is None:
        return success(None)
    status, images = service.poll(job, now)
    return evolve(success(record(job, status.stage, images)), fault=status.fault)


def record(job: Job, stage: Stage, images: list[str]) -> dict[str, Any] | None:
    """Return the field `data` of the answer, its members in the recorded order."""
    if stage == "missing":
        return None
    has_failed, has_ended = stage == "failure", stage in TERMINAL_STAGES
    return {
        "taskId": job.task_id,
        "parentTaskId": job.music_task_id,
        "completeTime": int(job.end_time * 1000) if has_ended else None,
        "response": {"images": images} if has_ended and not has_failed else None,
        "successFlag": _FLAGS[stage],
        "errorCode": job.script.error_code if has_failed else None,
        "errorMessage": job.script.error_message if has_failed else None,
        "createTime": int(job.created.wall * 1000),
    }


def _generate(service: Service, call: Call, now: Instant) -> Answer:
    if call.fields is None:
        return NOT_AN_OBJECT
    if not call.task_id:
        return envelope(422, "Please enter taskId.")
    callback_url = call.fields.get("callBackUrl")
    if not isinstance(callback_url, str) or not callback_url:
        return envelope(422, "Please enter callBackUrl.")
    accepted = service.submit(call.task_id, now, callback_url=callback_url)
    return success({"taskId": accepted}) if isinstance(accepted, str) else accepted


def _credit(service: Service, call: Call, now: Instant) -> Answer:  # noqa: ARG001 - an endpoint's
    return success(service.credits)


def _download_url(service: Service, call: Call, now: Instant) -> Answer:
    if call.fields is None:
        return NOT_AN_OBJECT
    url = call.fields.get("url")
    origin, slash, path = str(url).partition("/s/")
    if origin != service.image_url or slash + path not in service.images:
        return envelope(422, "url is wrong")
    return success(f"{url}?expires={int(now.wall) + 20 * 60}")


ENDPOINTS = {
    ("GET", "/api/v1/suno/cover/record-info"): Endpoint("record-info", _record_info, "poll"),
    ("POST", "/api/v1/suno/cover/generate"): Endpoint("generate", _generate, "submit"),
    ("GET", "/api/v1/chat/credit"): Endpoint("credit", _credit),
    ("POST", "/api/v1/common/download-url"): Endpoint("download-url", _download_url),
}
