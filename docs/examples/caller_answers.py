"""What the callers of a service hear when a cover cannot be had: an HTTP status and some JSON."""

import logging

from kie_cover_async import (
    ClientClosedError,
    CoverAlreadyExistsError,
    CoverFailedError,
    CoverTimeoutError,
    InvalidRequestError,
    InvalidTaskIdError,
    KieCoverError,
    TaskNotFoundError,
)

Answer = tuple[int, dict[str, str | None]]


def answer_to(error: KieCoverError) -> Answer:
    match error:
        case CoverTimeoutError():  # the job goes on: let them ask again
            return 202, {"state": "generating"}
        case CoverFailedError():  # how the job ended is a good answer
            return 200, {"state": "failed", "why": error.details.error_message}
        case CoverAlreadyExistsError():
            return 409, {"error": "this song has its cover", "cover": error.existing_task_id}
        case TaskNotFoundError():
            return 404, {"error": "there is no such cover"}
        case InvalidTaskIdError() | InvalidRequestError():
            return 400, {"error": "that is no id of a song or of a cover"}
    return _between_us_and_the_api(error)


def _between_us_and_the_api(error: KieCoverError) -> Answer:
    """Our key, our credits, its troubles: none of the caller's business, but of ours."""
    logging.getLogger("covers").error("no answer for a caller: %s", error)
    if error.maybe_accepted:
        return 502, {"error": "it may have been asked for: look before you ask again"}
    if error.transient or isinstance(error, ClientClosedError):  # we are closing down
        return 503, {"error": "not now, ask again later"}
    return 500, {"error": "we cannot make covers at the moment"}
