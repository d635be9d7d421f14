"""A rate limit shared by all processes of an account, on all machines: a log in Redis (6 or newer) or Valkey.

    window = RedisWindow("rediss://user:password@host/0", RateLimit(60, per=60))
    async with AsyncRespan(pace=window) as respan: ...

Needs the extra: `pip install 'respan-async[redis]'`.
"""

from respan_async.redis.window import RedisWindow

__all__ = ["RedisWindow"]
