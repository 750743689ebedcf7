import copy
import json
import pickle
import re
import traceback
from functools import partial

import attrs
import pytest
from support.pickling import pickled

import kie_cover_async
from kie_cover_async import (
    ApiError,
    AuthenticationError,
    ClientClosedError,
    ConnectionSetupError,
    CoverAlreadyExistsError,
    CoverDetails,
    CoverFailedError,
    CoverTimeoutError,
    DownloadError,
    ForbiddenError,
    InsufficientCreditsError,
    InvalidRequestError,
    InvalidResponseError,
    InvalidTaskIdError,
    KieCoverError,
    MaintenanceError,
    OtherApiError,
    RateLimitedError,
    ServerError,
    SignatureError,
    TaskNotFoundError,
    TransportError,
    errors,
    structure_details,
)

FAILED = CoverDetails(task_id="a", success_flag=3, error_code=531, error_message="No luck")
SAID = {"code": 418, "msg": "said so", "http_status": 200}

# One of each class, with every fact that it can have, and what its message says of them.
EXAMPLES = {
    KieCoverError: ({}, "KieCoverError"),
    TransportError: (
        {"reason": "connection reset", "connected": True},
        "no usable answer: connection reset",
    ),
    ConnectionSetupError: (
        {"reason": "the proxy answered 407", "connected": False},
        "no connection: the proxy answered 407",
    ),
    InvalidResponseError: (
        {"path": "$.data", "found": "7", "expected": "an object", "http_status": 200},
        "unreadable answer: at $.data expected an object, found 7",
    ),
    InvalidTaskIdError: (
        {"argument": "music_task_id", "given": "''"},
        "music_task_id must be a non-empty str without blanks or control characters, not ''",
    ),
    ClientClosedError: ({"reason": "the session is closed"}, "the session is closed"),
    ApiError: (SAID, "ApiError 418: said so"),
    AuthenticationError: (SAID, "AuthenticationError 418: said so"),
    ForbiddenError: (SAID, "ForbiddenError 418: said so"),
    InsufficientCreditsError: (SAID, "InsufficientCreditsError 418: said so"),
    TaskNotFoundError: (SAID, "no record of this id (418: said so)"),
    InvalidRequestError: (SAID, "InvalidRequestError 418: said so"),
    CoverAlreadyExistsError: (
        {**SAID, "existing_task_id": "b"},
        "CoverAlreadyExistsError 418: said so",
    ),
    RateLimitedError: (
        {**SAID, "retry_after": 2.5},
        "RateLimitedError 418: said so (asked to wait 2.5 s)",
    ),
    MaintenanceError: (SAID, "MaintenanceError 418: said so"),
    ServerError: (SAID, "ServerError 418: said so"),
    CoverFailedError: (
        {"details": FAILED},
        "the cover failed (GENERATE_COVER_FAILED): 531: No luck",
    ),
    CoverTimeoutError: (
        {"polls": 7, "waited": 12.34, "details": None},
        "no cover after 12.3 s and 7 polls, last seen nothing",
    ),
    SignatureError: ({"reason": "is stale"}, "callback signature is stale"),
    DownloadError: (
        {"reason": "busy", "url": "https://h/a.png", "http_status": 503, "retry_after": 2.5},
        "image not saved: busy (asked to wait 2.5 s)",
    ),
    OtherApiError: (
        {"route": "market", "origin": "https://api.kie.ai"},
        "the id was issued by the market route of https://api.kie.ai",
    ),
}
COMMON = {
    "task_id": "task-1",
    "request_id": "abc-FRA",
    "retryable": True,
    "maybe_accepted": True,
}
REST = "; task task-1; cf-ray abc-FRA; the request may have been accepted"

every_class = pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)


def example(kind):
    return kind(**COMMON, **EXAMPLES[kind][0])


def tree(kind):
    return {kind, *(each for child in kind.__subclasses__() for each in tree(child))}


def facts(error):
    return {fact.name: getattr(error, fact.name) for fact in attrs.fields(type(error))}


def test_every_error_class_has_an_example():
    """Every class has an example here and is exported by the package."""
    assert EXAMPLES.keys() == tree(KieCoverError)
    assert {kind.__name__ for kind in EXAMPLES} <= set(kie_cover_async.__all__)


def test_the_drawn_tree_is_correct():
    """The tree has every class under its parent and marks the transient ones."""
    drawn, branch = {}, []
    for indent, name, rest in re.findall(
        r"^    ([│├└─ ]*)(\w+Error)(.*)$", errors.__doc__, re.MULTILINE
    ):
        branch[len(indent) // 4 :] = [name]
        drawn[name] = (*branch[:-1], rest.endswith("transient"))
    assert drawn == {
        kind.__name__: (
            *[each.__name__ for each in kind.__mro__[::-1] if issubclass(each, KieCoverError)][:-1],
            kind.transient,
        )
        for kind in EXAMPLES
    }


def test_only_these_errors_are_transient():
    """These conditions may pass soon, and no others."""
    assert {kind for kind in EXAMPLES if kind.transient} == {
        TransportError,
        InvalidResponseError,
        RateLimitedError,
        MaintenanceError,
        ServerError,
    }


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (InvalidTaskIdError, ValueError),
        (ClientClosedError, RuntimeError),
        (CoverTimeoutError, TimeoutError),
        (CoverTimeoutError, OSError),
    ],
)
def test_some_errors_are_also_builtin_errors(kind, also):
    """Catching the built-in error catches ours."""
    with pytest.raises(also):
        raise example(kind)


@every_class
def test_the_message_is_made_from_the_facts(kind):
    """A message has the facts of its class first, then those that all errors share."""
    assert str(example(kind)) == EXAMPLES[kind][1] + REST


@every_class
def test_unknown_facts_are_left_out_of_the_message(kind):
    """The message leaves out a missing id, request id and doubt."""
    assert str(kind(**EXAMPLES[kind][0])) == EXAMPLES[kind][1]


@every_class
def test_the_repr_shows_every_fact(kind):
    """The repr names the class and each fact."""
    error = example(kind)
    assert repr(error).startswith(kind.__name__)
    assert all(f"{name}={fact!r}" in repr(error) for name, fact in facts(error).items())


@every_class
@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        KieCoverError.copy,
        *[partial(pickled, protocol=protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)],
    ],
    ids=["copy", "deepcopy", "own", *range(pickle.HIGHEST_PROTOCOL + 1)],
)
def test_errors_can_be_copied_and_pickled(kind, again):
    """A copy is another error of the class, with the same facts and message."""
    error = example(kind)
    error.add_note("seen by a caller")
    error.hung_on = "by other code"
    other = again(error)
    assert other is not error
    assert type(other) is kind
    assert facts(other) == facts(error) == COMMON | EXAMPLES[kind][0]
    assert str(other) == str(error)


@every_class
def test_args_hold_the_message_and_survive_json(kind):
    """A backend that stores `args` as JSON, as Celery does, keeps the message."""
    error = example(kind)
    stored = json.loads(json.dumps({"exc_type": kind.__name__, "exc_message": error.args}))
    assert stored == {"exc_type": kind.__name__, "exc_message": [str(error)]}


@every_class
def test_args_follow_the_facts(kind):
    """A fact that is set later is in `args` as in the message."""
    error = kind(**EXAMPLES[kind][0])
    error.task_id = "task-1"
    assert error.args == (str(error),)
    assert error.args[0].endswith("; task task-1")


@every_class
def test_args_can_be_assigned(kind):
    """Assigned `args` are returned; a copy has the message again."""
    error = example(kind)
    error.args = ("while drawing", *error.args)
    assert error.args == ("while drawing", str(error))
    assert pickled(error).args == copy.copy(error).args == (str(error),)


def test_a_copy_has_a_traceback_of_its_own():
    """Raising the copy leaves the original's traceback unchanged."""
    error = example(ServerError)
    with pytest.raises(ServerError):
        raise error.copy()
    assert error.__traceback__ is None


@every_class
def test_errors_are_equal_by_identity(kind):
    """Two errors with equal facts differ, and either can be a key."""
    assert example(kind) != example(kind)
    assert len({example(kind), example(kind)}) == 2


def test_facts_can_be_set_later():
    """The id can be set later, and is in the message from then on."""
    error = ServerError(code=500)
    error.task_id = "task-1"
    assert str(error) == "ServerError 500; task task-1"


@pytest.mark.parametrize("kind", [ApiError, TransportError, CoverFailedError])
def test_facts_are_keyword_only_and_required(kind):
    """Facts are keyword-only, and those without a default are required."""
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        kind("a")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ApiError(code=451), "ApiError 451"),
        (TaskNotFoundError(code=404), "no record of this id (404; is the base URL right?)"),
        (RateLimitedError(code=429), "RateLimitedError 429"),
        (RateLimitedError(code=429, retry_after=0.0), "RateLimitedError 429 (asked to wait 0 s)"),
    ],
)
def test_an_api_error_without_a_message_shows_its_code(error, message):
    """Without a message of the API, the code is shown."""
    assert str(error) == message


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        ({"success_flag": 1}, "the cover's record says success but has no images"),
        ({"success_flag": 3}, "the cover failed (GENERATE_COVER_FAILED)"),
        (
            {"success_flag": "CREATE_TASK_FAILED", "error_message": "why"},
            "the cover failed (CREATE_TASK_FAILED): why",
        ),
        (
            {"success_flag": 3, "error_code": "SENSITIVE"},
            "the cover failed (GENERATE_COVER_FAILED): SENSITIVE",
        ),
    ],
)
def test_a_failed_cover_shows_its_error(seen, message):
    """The message has the record's error code and message, if any."""
    assert str(CoverFailedError(details=CoverDetails(task_id="a", **seen))) == message


@pytest.mark.parametrize(
    ("flag", "seen"),
    [
        (0, "PENDING"),
        (2, "GENERATING"),
        (1, "SUCCESS"),
        (7, "an unknown flag 7"),
        ("odd", "an unknown flag 'odd'"),
        (None, "an unknown flag None"),
    ],
)
def test_a_timeout_shows_the_last_state(flag, seen):
    """The message has the last state, or the unknown flag."""
    last = CoverDetails(task_id="a", success_flag=flag)
    error = CoverTimeoutError(polls=1, waited=900.0, details=last)
    assert str(error) == f"no cover after 900.0 s and 1 poll, last seen {seen}"


HOSTILE = "red\x1b[31m\r\nand \ud800\x00 more\u2028end"


@pytest.mark.parametrize(
    "error",
    [
        ServerError(code=500, msg=HOSTILE),
        ServerError(code=500, request_id=HOSTILE),
        TransportError(reason=HOSTILE),
        CoverFailedError(details=attrs.evolve(FAILED, error_message=HOSTILE)),
        DownloadError(reason=HOSTILE),
    ],
)
def test_a_message_is_one_printable_line(error):
    """Text from a server cannot colour a terminal or forge a log line."""
    assert str(error).isprintable()
    assert "red [31m and more end" in str(error)
    "".join(traceback.format_exception(error)).encode()


@pytest.mark.parametrize(
    "error",
    [
        ServerError(code=500, msg="x" * 2**20),
        ServerError(code=500, request_id="x" * 2**20),
        CoverFailedError(details=attrs.evolve(FAILED, error_message="x" * 2**20)),
        CoverTimeoutError(
            polls=1, waited=1, details=CoverDetails(task_id="a", success_flag="x" * 2**20)
        ),
    ],
    ids=["msg", "request_id", "error_message", "flag"],
)
def test_a_message_is_of_bounded_length(error):
    """A fact of a megabyte is cut in the message."""
    assert len(str(error)) < 600
    assert "xxx…" in str(error)


@pytest.mark.parametrize("error", [CoverFailedError, CoverTimeoutError])
def test_an_unknown_shape_of_record_is_in_the_message(error):
    """Keys and types are shown, for a report."""
    details = structure_details({"taskId": "a", "successFlag": 1, "odd": [1]})
    facts = {"polls": 1, "waited": 1.0} if error is CoverTimeoutError else {}
    assert "{taskId: str, successFlag: int, odd: [int]}" in str(error(details=details, **facts))
