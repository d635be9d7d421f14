"""The same in Postgres: something happens before and after every operation of the ledger, and costs nothing."""

import asyncio
import gc
import time
from typing import Final

import attrs
import pytest

from respan_async import RespanError
from respan_async.issuing import AESGCMCipher, Ledger, LedgerError, PostgresLedger
from tests.hostile.clocked_ledger import Clock
from tests.hostile.issuer_faults import Happening, cancel_twice, close_and_let_go, close_at_once, fail, take_over
from tests.hostile.issuing_world import Life, MakesLedger
from tests.hostile.ledger_steps import all_survived
from tests.hostile.test_cancel_at_every_step_of_issuing import SCENARIOS
from tests.servers.postgres import PostgresServer


async def lapse(life: Life) -> None:
    """Let every lease be over, by the server's clock, and another process take over what is left."""
    ledger = life.ledger._ledger
    assert isinstance(ledger, PostgresLedger)
    if ledger._session._pool is not None:
        await ledger._session._pool.ask("UPDATE respan.owners SET lease_until = to_timestamp(0)", {})
    await take_over(life)


async def sever(life: Life) -> None:
    """Break every connection that lies idle, so that the next operation finds it broken."""
    ledger = life.ledger._ledger
    assert isinstance(ledger, PostgresLedger)
    for connection in ledger._session._pool._idle if ledger._session._pool is not None else []:
        await connection.close()


HAPPENINGS: Final = {
    "cancelled": Happening(act=cancel_twice),
    "client closed at once": Happening(act=close_at_once, raises=(RespanError,), goes_on=False),
    "closing cancelled": Happening(act=close_and_let_go, raises=(RespanError,), goes_on=False),
    "store fails": Happening(act=fail, raises=(LedgerError,)),
    "taken over": Happening(act=lapse, raises=(LedgerError,)),
    "connections broken": Happening(act=sever),
}
SAME: Final = ["answer lost", "opened and closed"]


@pytest.mark.hostile
@pytest.mark.parametrize("name", SAME)
def test_whatever_happens_at_any_operation_of_the_ledger_costs_nothing(
    name: str, postgres_server: PostgresServer, postgres_database: str
) -> None:
    """Every key that lives is recorded or looked for, every ticket gets its one key, and no connection is left."""
    dsn = postgres_server.dsn(postgres_database)
    asyncio.run(PostgresLedger(dsn).create_schema())
    scenario = attrs.evolve(SCENARIOS[name], cipher=True)

    def make(clock: Clock, cipher: AESGCMCipher | None) -> Ledger:
        return PostgresLedger(dsn, cipher)

    def fresh() -> MakesLedger:
        tables = ("owners", "tickets", "attempts", "meta WHERE name <> 'version'")
        postgres_server.execute(";".join(f"DELETE FROM respan.{table}" for table in tables), postgres_database)
        return make

    gc.disable()  # which would close what was forgotten
    try:
        for happening in HAPPENINGS:
            steps = all_survived(scenario, HAPPENINGS[happening], fresh=fresh)
            assert len(steps) >= 8, happening
            until = time.monotonic() + 10
            while postgres_server.backends(postgres_database):
                assert time.monotonic() < until, f"{happening}: a connection was left open"
                time.sleep(0.01)
    finally:
        gc.enable()
