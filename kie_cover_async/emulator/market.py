"""The Market route: the vendor's general job API over the same jobs as the Suno route.

The record of a cover was never shown on this route: this one is like those of other models.
"""

import json
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from .faults import Answer, envelope
from .jobs import TERMINAL_STAGES, Instant, Job, Stage
from .service import NOT_AN_OBJECT, Call, Endpoint, Service
from .suno import success

_MODEL = "ai-music-api/cover-generate"
_STATES = {
    "pending": "waiting",
    "generating": "generating",
    "bare-success": "success",
    "success": "success",
    "failure": "fail",
}
_NOT_A_MODEL = (
    "The model name you specified is not supported. Please verify your input and use one of the "
    "supported models provided by KIE."
)


def _record_info(service: Service, call: Call, now: Instant) -> Answer:
    job = service.jobs.get(call.task_id or "")
    if job is None:
        return _NO_RECORD
    status, images = service.poll(job, now)
    answer = _NO_RECORD
    if status.stage != "missing":
        answer = success(record(job, status.stage, images, service.price))
    return evolve(answer, fault=status.fault)


def record(job: Job, stage: Stage, images: list[str], price: float) -> dict[str, Any]:
    """Return the field `data` of the answer, its members in the recorded order."""
    request = _param(job)
    results = {"resultUrls": images} if images else None
    return {
        "taskId": job.task_id,
        "model": _MODEL,
        "state": _STATES[stage],
        "param": request,
        "resultJson": _result_json(stage, results),
        **_end(job, stage),
        "createTime": _milliseconds(job.created.wall),
        "creditsConsumed": price,
        "operationType": _MODEL,
        **({"status": "SUCCESS", "response": results} if results else {}),
        # 0 while the job is waiting or generating, unlike the flag of the Suno route.
        "successFlag": int(_STATES[stage] == "success"),
        "paramJson": request,
    }


def _end(job: Job, stage: Stage) -> dict[str, Any]:
    """Return the fields about the end; those about a failure are null for any other stage."""
    has_failed = stage == "failure"
    has_completed = stage in TERMINAL_STAGES and not has_failed
    return {
        "failCode": job.script.error_code if has_failed else None,
        "failMsg": job.script.error_message if has_failed else None,
        # Seconds, although the vendor's page says milliseconds.
        "costTime": int(job.end_time - job.created.wall) if has_completed else None,
        "completeTime": _milliseconds(job.end_time) if has_completed else None,
    }


def _param(job: Job) -> str:
    """Return the job's request, in which `input` is JSON within JSON."""
    request = {"input": _to_text({"task_id": job.music_task_id}), "model": _MODEL}
    if job.callback_url is not None:
        request["callBackUrl"] = job.callback_url
    return _to_text(request)


def _result_json(stage: Stage, results: Mapping[str, Any] | None) -> str | None:
    if stage == "failure":
        return None
    return "" if results is None else _to_text(results)


def _to_text(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _create_task(service: Service, call: Call, now: Instant) -> Answer:
    if call.fields is None:
        return NOT_AN_OBJECT
    if call.fields.get("model") != _MODEL:
        return envelope(404, _NOT_A_MODEL)
    if not call.task_id:
        return envelope(422, "Please enter input.task_id.")
    callback_url = call.fields.get("callBackUrl")
    if not isinstance(callback_url, str | None):
        return envelope(422, "callBackUrl must be a text.")
    settings = {"callback_url": callback_url or None, "callback_body": callback_body}
    accepted = service.submit(call.task_id, now, **settings)
    if isinstance(accepted, str):
        return success({"taskId": accepted, "recordId": accepted})
    return accepted


def callback_body(job: Job, images: list[str] | None) -> dict[str, Any]:
    """Return the body of a callback; the documented failure has neither times nor results."""
    is_success = images is not None
    data: dict[str, Any] = {
        "taskId": job.task_id,
        "model": _MODEL,
        "state": "success" if is_success else "fail",
        "param": _param(job),
    }
    if is_success:
        end = {"resultJson": _to_text({"resultUrls": images}), **_end(job, "success")}
        times = {"createTime": _milliseconds(job.created.wall), "updateTime": end["completeTime"]}
        msg = "Playground task completed successfully."
        return {"code": 200, "msg": msg, "data": data | end | times}
    failure = {"failCode": job.script.error_code, "failMsg": job.script.error_message}
    return {"code": 501, "msg": "Playground task failed.", "data": data | failure}


_NO_RECORD = envelope(422, "recordInfo is null")

ENDPOINTS = {
    ("GET", "/api/v1/jobs/recordInfo"): Endpoint("recordInfo", _record_info, "poll"),
    ("POST", "/api/v1/jobs/createTask"): Endpoint(
        "createTask", _create_task, "submit", ("input", "task_id")
    ),
}
