"""A running service forgets a person, in the tables' rows and in those that it has scored itself."""

import asyncio
from dataclasses import replace

from fastapi.testclient import TestClient

from assets.lifecycle.erasure.person import Person
from assets.lifecycle.erasure.stored import Scope, remove_from_log, remove_from_table
from assets.models.fraud import model
from resources.request_log import RequestLog
from resources.tables import ParquetTables
from resources.tombstones import Tombstone, Tombstones
from serving.scoring.service import Endpoint, Served
from tests.serving.conftest import app_of, payment

CUSTOMER = 5


def in_memory(endpoint: Endpoint, customer: int) -> tuple[int, int]:
    """Rows of a customer from the tables, and from requests."""
    events = endpoint.served.entity_events
    return tuple(int((part.columns["customer_id"] == customer).sum()) for part in (events._past, events._recent))


def test_a_service_forgets_a_person_when_the_removal_is_done_and_nobody_else(home, bundles):
    tables, log = ParquetTables(root=str(home / "tables")), RequestLog(folder=str(home / "serving"))
    endpoint = Endpoint("fraud", tables, log=log, served=Served.prepare("1", bundles["1"], tables, log))
    client = TestClient(app_of(endpoint))
    for number, customer in enumerate((CUSTOMER, CUSTOMER, 6)):
        assert client.post("/models/fraud/predict", json=payment(number, customer_id=customer)).status_code == 200
    past, recent = in_memory(endpoint, CUSTOMER)
    assert past > 0
    assert recent == 2
    others = in_memory(endpoint, 6)
    scope = Scope([model], "customer_id")
    tombstones = Tombstones.read(tables.files)
    person = Person("customer_id", str(CUSTOMER), tombstones)
    begun = Tombstone(column="customer_id", digest=tombstones.digest(str(CUSTOMER)), keys={}, at="2026-01-01T00:00:00",
                      until="2026-01-01", who="ada")  # fmt: skip
    tombstones.having(begun).write(tables.files)
    remove_from_table(tables, "fraud/payments", scope, person)
    assert remove_from_log(log, scope, person) == 2
    asyncio.run(endpoint.follow())
    assert in_memory(endpoint, CUSTOMER)[1] == 2, "the removal is not done yet"
    tombstones.having(replace(begun, state="done")).write(tables.files)
    asyncio.run(endpoint.follow())
    assert in_memory(endpoint, CUSTOMER) == (0, 0)
    assert in_memory(endpoint, 6) == others
    assert client.post("/models/fraud/predict", json=payment(9, customer_id=CUSTOMER)).status_code == 200
    assert in_memory(endpoint, CUSTOMER) == (0, 1), "a later request is new data"
