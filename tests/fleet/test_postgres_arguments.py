"""What a `PostgresLedger` accepts; none of this needs a server."""

import sys

import pytest

from kie_cover_async.fleet import PostgresLedger
from kie_cover_async.ledger import Api, Candidate

URL = "postgresql://user:secret@localhost/covers"


def test_missing_extra_is_named(monkeypatch):
    """Without asyncpg the error says what to install."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ImportError, match=r"install the extra `fleet` .*, or pip install 'asyncpg"):
        PostgresLedger(URL)


@pytest.mark.parametrize("url", ["localhost:5432", "mysql://u:secret@h", "", None])
def test_other_urls_are_rejected(url):
    """A URL must have one of libpq's schemes, and its password is not shown."""
    with pytest.raises(ValueError, match="url must begin with postgresql:// or postgres://:") as e:
        PostgresLedger(url)
    assert "secret" not in str(e.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@h:secret/d", "postgresql://u:secret@h/d?sslmode=odd"]
)
async def test_error_about_a_url_shows_no_password(url):
    """A URL that asyncpg cannot read may have a password."""
    with pytest.raises(ValueError, match="url is not one that asyncpg can read") as caught:
        await PostgresLedger(url).__aenter__()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "schema", ["", "pg_covers", "line\nbreak", "zero\0", "é" * 32, "\ud800", 5]
)
def test_unusable_schema_is_rejected(schema):
    """PostgreSQL would refuse or truncate the name."""
    with pytest.raises(ValueError, match="schema must be a printable text of 1 to 63 bytes"):
        PostgresLedger(URL, schema=schema)


@pytest.mark.parametrize("name", ["claim_timeout", "wait_timeout", "max_connections"])
def test_numbers_are_checked(name):
    """The error names the argument."""
    with pytest.raises(ValueError, match=f"{name} must be "):
        PostgresLedger(URL, **{name: 0})


def test_repr_shows_no_url():
    """A repr ends up in logs, and the URL may have a password."""
    assert repr(PostgresLedger(URL)) == "PostgresLedger(…, schema='kie_cover')"


async def test_a_ledger_must_be_opened():
    """Any method says so, and closing does nothing."""
    ledger = PostgresLedger(URL)
    with pytest.raises(RuntimeError, match="is not open: use `async with`"):
        await ledger.counts()
    await ledger.aclose()


async def test_ids_that_cannot_be_stored_are_rejected():
    """An index has entries of a limited size."""
    ledger, long = PostgresLedger(URL), "é" * 301
    api = Api(route="suno", origin="https://api.kie.ai")
    with pytest.raises(ValueError, match="music_task_ids must be an id of at most 600 bytes, not"):
        await ledger.want([long])
    with pytest.raises(ValueError, match="task_id must be an id of at most 600 bytes"):
        await ledger.record_id("s", long, api)
    with pytest.raises(ValueError, match=r"candidate\.music_task_id must be an id of at most"):
        await ledger.add_candidate(Candidate(task_id="t", api=api, music_task_id=long))
    for task_id in (long, "t\0", "\ud800"):
        await ledger.keep(task_id)
        await ledger.mark_failed(task_id, ValueError())
