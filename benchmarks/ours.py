"""What is asked, as requests of this library, and the batch that everything here measures."""

from collections.abc import Iterator

from benchmarks import tenants
from respan_async import AsyncRespan, CreateKeyRequest, Issued
from respan_async.issuing import Ticket


def request(number: int) -> CreateKeyRequest:
    """Return a tenant's request."""
    return CreateKeyRequest(name=tenants.name(number), expires_in=tenants.LIFETIME, max_usage=tenants.MAX_USAGE)


def requests(count: int) -> Iterator[CreateKeyRequest]:
    """Give so many tenants' requests, one at a time."""
    return map(request, range(count))


def ticket(number: int) -> Ticket:
    """Return a tenant's ticket."""
    return Ticket(tenants.name(number), request(number))


async def stream(respan: AsyncRespan, count: int) -> list[str]:
    """Create so many keys in a batch; return the ids of those that were issued."""
    async with respan.temporary_keys.create_many(requests(count)) as batch:
        return [outcome.key.id async for outcome in batch if isinstance(outcome, Issued)]
