"""A fake Respan to test against: serves the temporary-keys endpoints on loopback.

    async with FakeRespan(limit=SlidingLog(60, per=60)) as fake:
        fake.script("refuse:2", "lose_answer_after_create")
        ...  # a client with base_url=fake.url and api_key=fake.api_key

It shares no code with the client, because it would otherwise share the client's bugs.
"""

from respan_async.testing.faults import FAULTS, Fault
from respan_async.testing.limits import Bucket, FixedWindow, Limit, SlidingLog
from respan_async.testing.received_request import ReceivedRequest
from respan_async.testing.server import FakeRespan
from respan_async.testing.store import Counts, KeyRecord

__all__ = [
    "FAULTS",
    "Bucket",
    "Counts",
    "FakeRespan",
    "Fault",
    "FixedWindow",
    "KeyRecord",
    "Limit",
    "ReceivedRequest",
    "SlidingLog",
]
