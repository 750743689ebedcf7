"""The ledger in PostgreSQL: the contract, kills and outages of the server, and hostile input."""

import pytest
from support.ledger_contract import LedgerContract, LedgerStore
from support.postgres_server import needs_postgres

pytestmark = needs_postgres


class TestPostgresLedger(LedgerContract):
    """The contract."""

    @pytest.fixture
    def store(self, database):
        return LedgerStore(
            "support.postgres_server:opened",
            f"{database.url} {database.schema}",
            expire=database.expire,
        )
