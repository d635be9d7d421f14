"""Ways to make keys against a limit: ours, and those of the peers."""

from functools import partial
from typing import Final, Literal

from benchmarks import ours
from benchmarks.limited import Strategy
from benchmarks.peers import MANY, Peer, evening, gathered, present
from benchmarks.tenants import API_KEY
from respan_async import AsyncRespan, RateLimit

LIMITED: Final = "an evening's own with aiolimiter at the limit"


def streamed(pace: RateLimit | Literal["auto"]) -> Strategy:
    """Return ours: `create_many`, streamed."""

    async def run(url: str, count: int) -> int:
        async with AsyncRespan(API_KEY, base_url=url, pace=pace) as respan:
            return len(await ours.stream(respan, count))

    return run


def of(peer: Peer, retries: int | None) -> Strategy:
    """Return a peer's, 64 at a time."""

    async def run(url: str, count: int) -> int:
        async with peer.open(url, retries) as create:
            return sum(isinstance(key, str) for key in await gathered(create, count))

    return run


def by_peers() -> dict[str, Strategy]:
    """Return every peer's, with its defaults and with many retries."""
    found: dict[str, Strategy] = {}
    for name, peer in present().items():
        if name != "as_told":  # has no number of retries
            found[f"{peer.label}, defaults"] = of(peer, None)
        found[f"{peer.label}, patient"] = of(peer, MANY)
    return found


def limited(limit: float, per: float) -> dict[str, Strategy]:
    """Return what one would write by hand where the limit is known; nothing when its packages are missing."""
    peer = present().get("evening")
    if peer is None:
        return {}
    return {LIMITED: of(peer._replace(open=partial(evening, limit=(limit, per))), MANY)}
