"""Each field of a record: what is accepted, what is refused, and what is left out."""

import json
import logging
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from support.api_answers import IMAGE, TASK, answer, envelope, outcome_of, record

from kie_cover_async import (
    CoverDetails,
    CoverResponse,
    CoverState,
    InvalidResponseError,
    TaskNotFoundError,
    structure_details,
    unstructure_details,
)

pytestmark = pytest.mark.usefixtures("parser")

OTHER_IMAGE = "http://h/b.png"
LOGGER = "kie_cover_async"


def each(name, values):
    """The test once for each value, named by its repr: 1, "1" and True are three."""
    return pytest.mark.parametrize(name, values, ids=lambda value: repr(value)[:30])


def refused(data):
    """The error that the mapping is refused with."""
    with pytest.raises(InvalidResponseError) as caught:
        structure_details(data)
    return caught.value


@pytest.fixture
def warnings(caplog):
    """What was logged so far."""
    caplog.set_level(logging.WARNING, LOGGER)
    return lambda: [entry.getMessage() for entry in caplog.records]


# The id.


@each("task_id", [TASK, "1", "a/b?c&d=é%", "ü" * 300])
def test_any_word_is_an_id(task_id):
    """An id is taken as it is: nothing promises that it is hexadecimal."""
    assert structure_details(record(taskId=task_id)).task_id == task_id


NO_IDS = ["", " ", "a b", "a\n", "\ud800", "\x00", "\u00a0", None, 7, True, 1.5, ["a"], {"a": 1}]


@each("task_id", NO_IDS)
@each("endpoint", ["record-info", "generate"])
def test_what_cannot_be_an_id_is_refused(endpoint, task_id):
    """An id that could not be asked for again is none, in a record and for a new job alike."""
    error = outcome_of(endpoint, answer(envelope(200, record(taskId=task_id))))
    assert (type(error), error.path) == (InvalidResponseError, "$.data.taskId")
    assert error.expected == "a non-empty text without blanks"
    assert error.found == repr(task_id)


@each("endpoint", ["record-info", "generate"])
def test_a_missing_id_is_refused(endpoint):
    """The error tells a missing id from an empty one."""
    error = outcome_of(endpoint, answer(envelope(200, {"successFlag": 1})))
    assert (error.path, error.found) == ("$.data.taskId", "nothing")


@each("task_id", ["0" * 32, TASK.upper(), TASK + "0", "x" * 2**20])
def test_record_of_another_id_is_refused(task_id):
    """A record of another id is refused; the message has both ids, shortened."""
    error = outcome_of("record-info", answer(envelope(200, record(taskId=task_id))))
    assert (type(error), error.path) == (InvalidResponseError, "$.data.taskId")
    assert TASK in error.expected
    assert task_id[:30] in error.found
    assert len(str(error)) < 300


@each("data", ["text", " ", 7, 0, 1.5, True, False, [record()], [None], "{}"])
@each("endpoint", ["record-info", "generate"])
def test_data_that_is_no_object_is_refused(endpoint, data):
    """`data` has to be an object where a record or a new job is told."""
    error = outcome_of(endpoint, answer(envelope(200, data)))
    assert (type(error), error.path, error.expected) == (
        InvalidResponseError,
        "$.data",
        "an object",
    )


@each("data", [None, {}, [], ""])
def test_empty_data_is_no_record(data):
    """However a server writes that there is nothing, a record is not found; elsewhere it is odd."""
    assert type(outcome_of("record-info", answer(envelope(200, data)))) is TaskNotFoundError
    for endpoint in ("generate", "credit", "download-url"):
        assert type(outcome_of(endpoint, answer(envelope(200, data)))) is InvalidResponseError


@each("data", [{"successFlag": None}, {"taskId": None}])
def test_a_record_without_an_id_is_not_nothing(data):
    """An object with any field was meant to be a record."""
    assert outcome_of("record-info", answer(envelope(200, data))).path == "$.data.taskId"


# The flag.

FLAGS = {
    0: CoverState.PENDING,
    1: CoverState.SUCCESS,
    2: CoverState.GENERATING,
    3: CoverState.GENERATE_COVER_FAILED,
    "0": CoverState.PENDING,
    "1": CoverState.SUCCESS,
    "2": CoverState.GENERATING,
    "3": CoverState.GENERATE_COVER_FAILED,
    " 1 ": CoverState.SUCCESS,
    "PENDING": CoverState.PENDING,
    "GENERATING": CoverState.GENERATING,
    "SUCCESS": CoverState.SUCCESS,
    "success": CoverState.SUCCESS,
    "CREATE_TASK_FAILED": CoverState.CREATE_TASK_FAILED,
    "GENERATE_COVER_FAILED": CoverState.GENERATE_COVER_FAILED,
    4: CoverState.UNKNOWN,
    -1: CoverState.UNKNOWN,
    10**100: CoverState.UNKNOWN,
    "4": CoverState.UNKNOWN,
    "1.0": CoverState.UNKNOWN,
    "true": CoverState.UNKNOWN,
    "SUCCEEDED": CoverState.UNKNOWN,
    "UNKNOWN": CoverState.UNKNOWN,
    " ": CoverState.UNKNOWN,
    "\ud800": CoverState.UNKNOWN,
}


@each("flag", FLAGS)
def test_flag(flag):
    """A flag is a number, its digits or a word, kept as it was read; any other is not terminal."""
    details = structure_details(record(successFlag=flag))
    assert (details.success_flag, details.state) == (flag, FLAGS[flag])
    assert type(details.success_flag) is type(flag)


@each("flag", [True, False, 1.0, 0.5, [1], [], {"flag": 1}, {}])
def test_what_can_be_no_flag_is_refused(flag):
    """A flag of another type is refused, and not taken for what it is equal to."""
    error = refused(record(successFlag=flag))
    assert (error.path, error.found) == ("$.successFlag", repr(flag))
    assert error.expected == "a whole number or a text"


@each("missing", [{}, {"successFlag": None}, {"successFlag": ""}])
def test_a_missing_flag_is_unknown(missing):
    """A record without a flag is in an unknown state, which is not terminal."""
    details = structure_details({"taskId": TASK, **missing})
    assert (details.success_flag, details.state) == (None, CoverState.UNKNOWN)
    assert not details.is_terminal


@each("missing", [{}, {"successFlag": None}, {"successFlag": ""}])
@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("SUCCESS", CoverState.SUCCESS),
        ("pending", CoverState.PENDING),
        ("3", CoverState.GENERATE_COVER_FAILED),
        ("", CoverState.UNKNOWN),
        ("odd", CoverState.UNKNOWN),
        (1, CoverState.UNKNOWN),
        (None, CoverState.UNKNOWN),
        (["SUCCESS"], CoverState.UNKNOWN),
    ],
)
def test_the_status_stands_in_for_the_flag(missing, status, state):
    """A text `status` is read where the flag is missing."""
    details = structure_details({"taskId": TASK, "status": status, **missing})
    assert details.state is state
    assert details.success_flag == (status if isinstance(status, str) and status else None)


@each("flag", [2, 0, 4, "odd"])
def test_flag_takes_precedence_over_status(flag):
    """If there is a flag, `status` is ignored."""
    assert structure_details(record(successFlag=flag, status="SUCCESS")).success_flag == flag


def test_a_bad_flag_is_not_mended_by_a_status():
    """Nor does it save a flag that cannot be read."""
    assert refused(record(successFlag=True, status="SUCCESS")).path == "$.successFlag"


# The images.


@each(
    "url",
    [
        IMAGE,
        "http://h/a.png",
        "HTTPS://H/A.PNG",
        "https://h",
        "https://h:8443/a?b=c#d",
        "https://[::1]/a",
        "https://bücher.example/ä.png",
        "https://h/" + "a" * 10_000,
    ],
)
def test_an_image_is_an_absolute_url(url):
    """Any http or https URL is an image's, kept as it is written."""
    assert structure_details(record(response={"images": [url]})).images == (url,)


NO_IMAGES = [
    "",
    "a.png",
    "/s/a.png",
    "//h/a.png",
    "ftp://h/a.png",
    "javascript:alert(1)",
    "file:///etc/passwd",
    "https:",
    "https://",
    "https:///a.png",
    "https://?a",
    "https://[::1",
    "https://h:port/",
    "https://h:99999/",
    "https://xn--/",
    "https://[::1]@",
    "https://a b/",
    "https://h/a\nb",
    "https://h/\x00",
    "https://h/\ud800",
    " https://h/a.png",
    None,
    7,
    True,
    b"https://h",
    ["https://h"],
    {"url": "https://h"},
]


@each("entry", NO_IMAGES)
def test_one_usable_image_is_enough(entry, warnings):
    """An unusable entry is left out and logged, and the others keep their order."""
    details = structure_details(record(response={"images": [entry, IMAGE, entry, OTHER_IMAGE]}))
    assert details.images == (IMAGE, OTHER_IMAGE)
    assert details.is_success
    assert warnings() == ["2 of 4 images are not URLs: left out"]


@each("entry", [entry for entry in NO_IMAGES if entry not in ("", None)])
def test_no_usable_image_is_refused(entry):
    """Where no entry of a success is usable the first is named."""
    error = refused(record(response={"images": [entry, entry]}))
    assert (error.path, error.expected) == ("$.response.images[0]", "an http or https URL")
    assert error.found == repr(entry)


@pytest.mark.parametrize(
    "response",
    [
        *(None, "", " ", {}),
        *({"images": images} for images in (None, [], (), "", " ", [None, None], ["", " ", None])),
    ],
)
def test_no_images_yet(response):
    """A response that is null or blank has no images, and a success without any is none yet."""
    details = structure_details(record(response=response))
    assert details.images == ()
    assert details.is_terminal
    assert not details.is_success


def test_places_for_images_to_come(warnings):
    """A list of blank entries is one without images, and a warning counts them."""
    structure_details(record(response={"images": ["", None]}))
    assert warnings() == ["2 of 2 images are not URLs: left out"]
    assert refused(record(response={"images": [None, 7]})).path == "$.response.images[0]"


def test_no_response_at_all():
    """A record without a response has no images."""
    assert structure_details({"taskId": TASK}).images == ()


@each("response", [[], [IMAGE], IMAGE, 0, 1, True, False, 1.5, '{"images":[]}'])
def test_a_response_of_another_type_is_refused(response):
    """The response of a success is an object, or nothing."""
    error = refused(record(response=response))
    assert (error.path, error.expected) == ("$.response", "an object")


@each("images", [IMAGE, {}, {"0": IMAGE}, 0, 1, True, False, 1.5])
def test_images_of_another_type_are_refused(images):
    """Those of a success are an array: a text is not one of letters."""
    error = refused(record(response={"images": images}))
    assert (error.path, error.expected) == ("$.response.images", "an array of URLs")


ODD_RESPONSES = [
    ([IMAGE], "response cannot be read, left out: a list"),
    (False, "response cannot be read, left out: a bool"),
    ({"images": IMAGE}, "response.images cannot be read, left out: a str"),
    ({"images": [7, None]}, "response.images[0] cannot be read, left out: a int"),
    ({"images": [None, ""]}, "2 of 2 images are not URLs: left out"),
]


@each("flag", [0, 2, 3, "3", " generate_cover_failed ", 4, None, ""])
@pytest.mark.parametrize(("response", "line"), ODD_RESPONSES)
def test_unreadable_images_matter_only_for_a_success(flag, response, line, warnings):
    """If a job has no success, unreadable images only cause a log line."""
    details = structure_details(record(successFlag=flag, response=response))
    assert details.images == ()
    assert details.state is CoverState.of(flag)
    assert warnings() == [line]


def test_odd_images_are_judged_by_the_status_too():
    """Where a `status` stands in for the flag, it says whether there should be images."""
    told = {"successFlag": None, "response": []}
    assert structure_details(record(status="PENDING", **told)).state is CoverState.PENDING
    assert refused(record(status="SUCCESS", **told)).path == "$.response"


def test_odd_images_beside_a_flag_that_is_none():
    """It is the flag that is refused."""
    assert refused(record(successFlag=True, response=[])).path == "$.successFlag"


# The times.

MOMENT = datetime(2025, 1, 15, 10, 33, 1, tzinfo=UTC)
EXACT = MOMENT.replace(microsecond=123000)

TIMES = {
    "2025-01-15T10:33:01.000Z": MOMENT,
    "2025-01-15T10:33:01.123Z": EXACT,
    "2025-01-15T10:33:01.123999Z": EXACT,
    "2025-01-15T10:33:01Z": MOMENT,
    "2025-01-15T10:33:01": MOMENT,
    "2025-01-15T10:33:01+00:00": MOMENT,
    "2025-01-15T18:33:01+08:00": MOMENT,
    "2025-01-15T02:33:01.123-08:00": EXACT,
    "2025-01-15 10:33:01": MOMENT,
    " 2025-01-15 10:33:01 ": MOMENT,
    "2025-01-15 10:33:01.123": EXACT,
    "2025-01-15 18:33:01+08:00": MOMENT,
    "2025-01-15 10:33": MOMENT.replace(second=0),
    "2025-01-15": datetime(2025, 1, 15, tzinfo=UTC),
    1736937181000: MOMENT,
    1736937181123: EXACT,
    1736937181123.9: EXACT,
    "1736937181123": EXACT,
    " 1736937181123 ": EXACT,
    1736937181: MOMENT,
    1736937181.123: EXACT,
    "1736937181": MOMENT,
    "20250115": datetime(1970, 8, 23, 9, 1, 55, tzinfo=UTC),
    8_589_934_592_007: datetime(2242, 3, 16, 12, 56, 32, 7000, tzinfo=UTC),
    9_999_999_999_999: datetime(2286, 11, 20, 17, 46, 39, 999000, tzinfo=UTC),
    100_000_000_000: datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC),
    99_999_999_999: datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC),
    -1: datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    -200_000_000_000: datetime(1963, 8, 31, 4, 26, 40, tzinfo=UTC),
    "1970-01-01T00:00:00.000Z": datetime(1970, 1, 1, tzinfo=UTC),
    "0001-01-01T00:00:00Z": datetime(1, 1, 1, tzinfo=UTC),
    "9999-12-31T23:59:59.999Z": datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
}


@pytest.mark.parametrize(
    ("name", "field"), [("createTime", "create_time"), ("completeTime", "complete_time")]
)
@each("written", TIMES)
def test_time(written, name, field, warnings):
    """A time is read in every form that was seen or documented: aware, in UTC, to milliseconds."""
    moment = getattr(structure_details(record(**{name: written})), field)
    assert moment == TIMES[written]
    assert moment.tzinfo is UTC
    assert warnings() == []


@each("written", [None, "", 0, "0", 0.0])
def test_no_time(written, warnings):
    """A time that is not there, or stands at zero, is none, and nothing to speak of."""
    assert structure_details(record(createTime=written)).create_time is None
    assert warnings() == []


NO_TIMES = [
    "soon",
    " ",
    "10:33:01",
    "20250115T103301Z",
    "2025-W03-3",
    "2025-W03-3T10:33:01Z",
    "2025-015",
    "2025-1-5 10:33:01",
    "2025-02-30T00:00:00Z",
    "2025-01-15T25:00:00Z",
    "2025-01-15X10:33:01Z",
    "2025-01-15T10:33:01\ud800",
    "2025-01-15\ud80010:33:01",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "\u0662\u0660\u0662\u0665-01-15",
    "9" * 21,
    "9" * 2**20,
    "1e12",
    10**15,
    -(10**15),
    10**30,
    "9" * 20,
    1e300,
    float("nan"),
    float("inf"),
    -float("inf"),
    True,
    False,
    [],
    [1736937181000],
    {},
]


@each("written", NO_TIMES)
def test_an_odd_time_costs_no_cover(written, warnings):
    """A time that cannot be read is left out and named in one log line, and the cover stays."""
    details = structure_details(record(completeTime=written))
    assert details.complete_time is None
    assert details.is_success
    (line,) = warnings()
    assert line == f"completeTime cannot be read, left out: a {type(written).__name__}"


# What else only informs.


TEXTS = {
    "parentTaskId": "parent_task_id",
    "callbackUrl": "callback_url",
    "errorMessage": "error_message",
}


@each("name", TEXTS)
@each("text", ["a text", "no url, \ud800 and all", "x" * 2**20, " ", "", None])
def test_texts_that_inform(name, text, warnings):
    """A text is kept as it is, and an empty one is none."""
    details = structure_details(record(successFlag=3, **{name: text}))
    assert getattr(details, TEXTS[name]) == (text or None)
    assert warnings() == []


@each("name", TEXTS)
@each("value", [7, 0, 1.5, True, False, ["a"], [], {"a": "b"}, {}])
def test_what_is_no_text_is_left_out(name, value, warnings):
    """Anything else is left out and named in one log line."""
    details = structure_details(record(successFlag=3, **{name: value}))
    assert getattr(details, TEXTS[name]) is None
    assert warnings() == [f"{name} cannot be read, left out: a {type(value).__name__}"]


@each("code", [500, 531, -1, 1, 201, "500", "SENSITIVE_WORD", "00", 10**30])
@each("flag", [1, 3])
def test_error_code(code, flag):
    """A code that means an error is kept as it was read, with its message, whatever the flag."""
    details = structure_details(record(successFlag=flag, errorCode=code, errorMessage="so"))
    assert (details.error_code, details.error_message) == (code, "so")
    assert details.is_success is (flag == 1)


NO_ERROR = [
    {"errorCode": 200},
    {"errorCode": 0},
    {"errorCode": "200"},
    {"errorCode": "0"},
    {"errorCode": ""},
    {"errorCode": None},
    {},
]


@each("said", NO_ERROR)
@each("flag", [0, 1, 2, 4, None])
def test_no_error(said, flag):
    """Where the record says that there is no error, there is no code and no message."""
    details = structure_details(record(successFlag=flag, errorMessage="success", **said))
    assert (details.error_code, details.error_message) == (None, None)


@each("said", NO_ERROR)
def test_a_failure_keeps_its_message(said):
    """A failed job's message is kept even if its code means nothing."""
    details = structure_details(record(successFlag=3, errorMessage="no luck", **said))
    assert (details.error_code, details.error_message) == (None, "no luck")
    assert details.state.is_failure


@each("code", [True, False, 200.0, 1.5, [], [500], {}])
def test_an_odd_error_code_is_left_out(code, warnings):
    """A code of another type is left out, logged, and decides nothing."""
    details = structure_details(record(errorCode=code))
    assert details.error_code is None
    assert details.is_success
    assert warnings() == [f"errorCode cannot be read, left out: a {type(code).__name__}"]


def test_unknown_fields_are_ignored():
    """What the vendor adds tomorrow changes nothing today."""
    assert structure_details(record(model="V9", data={"a": []})) == structure_details(record())


# The two functions of the package's face.


@each("given", [None, [], "text", 7, [("taskId", TASK)]])
def test_structuring_needs_a_mapping(given):
    """Anything but a mapping is an unreadable record, and no other error."""
    error = refused(given)
    assert (error.path, error.expected, error.found) == ("$", "an object", repr(given))
    assert error.__context__ is None
    assert not error.maybe_accepted


def test_any_mapping_will_do():
    """The mapping is only read."""
    mapping = MappingProxyType(record(response=MappingProxyType({"images": (IMAGE,)})))
    assert structure_details(mapping) == structure_details(record())


def test_unstructured():
    """Details become what the API sends: camelCase, ISO times with milliseconds and `Z`."""
    details = CoverDetails(
        task_id=TASK,
        parent_task_id="song",
        callback_url="https://example.com/hook",
        create_time=MOMENT,
        complete_time=EXACT,
        response=CoverResponse(images=(IMAGE, OTHER_IMAGE)),
        success_flag=3,
        error_code=500,
        error_message="no luck",
        credits_consumed=0.5,
    )
    assert unstructure_details(details) == {
        "taskId": TASK,
        "parentTaskId": "song",
        "callbackUrl": "https://example.com/hook",
        "createTime": "2025-01-15T10:33:01.000Z",
        "completeTime": "2025-01-15T10:33:01.123Z",
        "response": {"images": [IMAGE, OTHER_IMAGE]},
        "successFlag": 3,
        "errorCode": 500,
        "errorMessage": "no luck",
        "creditsConsumed": 0.5,
    }
    assert structure_details(json.loads(json.dumps(unstructure_details(details)))) == details


def test_unstructured_emptiness():
    """What is not known is null, and no images are an empty array."""
    assert unstructure_details(CoverDetails(task_id="a")) == {
        "taskId": "a",
        "parentTaskId": None,
        "callbackUrl": None,
        "createTime": None,
        "completeTime": None,
        "response": {"images": []},
        "successFlag": None,
        "errorCode": None,
        "errorMessage": None,
        "creditsConsumed": None,
    }


@each("flag", FLAGS)
def test_a_flag_survives_the_way_there_and_back(flag):
    """A flag is written as it was read."""
    details = structure_details(record(successFlag=flag))
    assert structure_details(unstructure_details(details)) == details


@each("written", TIMES)
def test_a_time_survives_the_way_there_and_back(written):
    """A time is written to the millisecond that was read."""
    details = structure_details(record(createTime=written))
    assert structure_details(unstructure_details(details)) == details
