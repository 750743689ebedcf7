"""What has to hold of whatever comes, wherever it was made up."""

import json
from typing import Any

from api_answers import heard
from pickled import pickled

from kie_cover_async import (
    CoverDetails,
    InvalidResponseError,
    KieCoverError,
    structure_details,
    unstructure_details,
)
from kie_cover_async.wire import Answer

VALUES = {"record-info": CoverDetails, "generate": str, "credit": float, "download-url": str}


def check_answer(call: str, answer: Answer) -> None:
    """A value of the endpoint's type comes of it, or an error of ours, and nothing else."""
    outcome = heard(call, answer)
    if isinstance(outcome, KieCoverError):
        check_error(outcome)
    else:
        assert type(outcome) is VALUES[call]


def check_error(error: KieCoverError) -> None:
    """It can be shown on one line, logged, and sent to another process."""
    message = str(error)
    assert message.isprintable()
    assert len(message) < 2000
    message.encode()
    assert str(pickled(error)) == message


def check_record(data: Any) -> None:
    """What can be read can be written as JSON, and read again it is the same."""
    try:
        details = structure_details(data)
    except InvalidResponseError as error:
        check_error(error)
        return
    written = unstructure_details(details)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert structure_details(written) == details
