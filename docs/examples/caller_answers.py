"""What a service answers its callers if there is no cover: an HTTP status and some JSON."""

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
        case CoverTimeoutError():  # the job goes on: the caller may ask again
            return 202, {"state": "generating"}
        case CoverFailedError():  # how the job ended is a good answer
            return 200, {"state": "failed", "why": error.details.error_message}
        case CoverAlreadyExistsError():
            return 409, {
                "error": "this song has a cover already",
                "task_id": error.existing_task_id,
            }
        case TaskNotFoundError():
            return 404, {"error": "there is no such cover"}
        case InvalidTaskIdError() | InvalidRequestError():
            return 400, {"error": "this is not the id of a song or a cover"}
    return _internal_error(error)


def _internal_error(error: KieCoverError) -> Answer:
    """Log an error that the caller cannot fix: our key, our credits, the API itself."""
    logging.getLogger("covers").error("a caller got no answer: %s", error)
    if error.maybe_accepted:
        return 502, {"error": "the song may have been submitted: check before you submit it again"}
    if error.transient or isinstance(error, ClientClosedError):  # the service is closing
        return 503, {"error": "not now, try again later"}
    return 500, {"error": "we cannot make covers at the moment"}
