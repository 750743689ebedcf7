from datetime import UTC, datetime, timedelta

import attrs
import pytest

from kie_cover_async import CoverDetails, CoverResponse, CoverState

CREATED = datetime(2025, 1, 15, 10, 33, 1, tzinfo=UTC)
IMAGES = CoverResponse(images=("https://h/a.png", "https://h/b.png"))


def details(**facts):
    return CoverDetails(task_id="a", **facts)


def test_success_and_failures_are_the_terminal_states():
    """A success and the two failures end a job; other states do not."""
    assert [state.name for state in CoverState if state.is_terminal] == [
        "SUCCESS",
        "CREATE_TASK_FAILED",
        "GENERATE_COVER_FAILED",
    ]


def test_failures_are_terminal_states_without_success():
    """A failure is a terminal state other than success."""
    assert [state.name for state in CoverState if state.is_failure] == [
        "CREATE_TASK_FAILED",
        "GENERATE_COVER_FAILED",
    ]


@pytest.mark.parametrize("state", CoverState)
def test_a_state_is_parsed_from_its_word(state):
    """Each of the vendor's words is read in any case, with blanks around it."""
    assert CoverState.of(state.value) is state
    assert CoverState.of(f" {state.value.lower()} ") is state


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (0, CoverState.PENDING),
        (1, CoverState.SUCCESS),
        (2, CoverState.GENERATING),
        (3, CoverState.GENERATE_COVER_FAILED),
        (4, CoverState.UNKNOWN),
        (-1, CoverState.UNKNOWN),
    ],
)
def test_a_state_is_parsed_from_its_number(number, state):
    """2 means still generating, and an undocumented number is unknown."""
    assert CoverState.of(number) is state
    assert CoverState.of(str(number)) is state


def test_no_flag_is_an_unknown_state():
    """Without a flag the state is unknown."""
    assert CoverState.of(None) is CoverState.UNKNOWN


@pytest.mark.parametrize(
    ("flag", "response", "terminal", "success"),
    [
        (1, IMAGES, True, True),
        (1, CoverResponse(), True, False),
        (3, IMAGES, True, False),
        (2, IMAGES, False, False),
        (0, CoverResponse(), False, False),
        (4, IMAGES, False, False),
        (None, IMAGES, False, False),
    ],
)
def test_success_is_the_flag_and_an_image(flag, response, terminal, success):
    """A job is successful only with both a success flag and an image."""
    seen = details(success_flag=flag, response=response)
    assert (seen.is_terminal, seen.is_success) == (terminal, success)


def test_the_error_code_decides_nothing():
    """A success with an error code is a success: the vendor's own example has code 200."""
    assert details(success_flag=1, response=IMAGES, error_code=500).is_success
    assert details(success_flag=2, error_code=500).state is CoverState.GENERATING


def test_images_are_those_of_the_response():
    """The images keep the API's order."""
    assert details(response=IMAGES).images == ("https://h/a.png", "https://h/b.png")
    assert details().images == ()


@pytest.mark.parametrize(("seconds", "taken"), [(146, 146), (0, 0), (-1, None)])
def test_generation_time_is_from_creation_to_completion(seconds, taken):
    """It is unknown if the completion precedes the creation."""
    seen = details(create_time=CREATED, complete_time=CREATED + timedelta(seconds=seconds))
    assert seen.generation_time == (None if taken is None else timedelta(seconds=taken))


@pytest.mark.parametrize("known", [{}, {"create_time": CREATED}, {"complete_time": CREATED}])
def test_generation_time_needs_both_times(known):
    """If either time is missing, the generation time is unknown."""
    assert details(**known).generation_time is None


def test_images_expire_after_fourteen_days():
    """The vendor's retention counts from completion."""
    assert details(complete_time=CREATED).expires_at == datetime(2025, 1, 29, 10, 33, 1, tzinfo=UTC)
    assert details(create_time=CREATED).expires_at is None


def test_an_expiry_past_all_dates_is_unknown():
    """A completion at the end of time raises nothing."""
    assert details(complete_time=datetime.max.replace(tzinfo=UTC)).expires_at is None


def test_details_are_values():
    """Equal facts are equal details, which can be keys and cannot be changed."""
    one, other = details(response=IMAGES), details(response=IMAGES)
    assert {one: "seen"}[other] == "seen"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.success_flag = 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.response.images = ()


@pytest.mark.parametrize("kind", [CoverDetails, CoverResponse])
def test_fields_are_keyword_only(kind):
    """Neither model accepts a field by position."""
    with pytest.raises(TypeError, match="positional"):
        kind("a")
