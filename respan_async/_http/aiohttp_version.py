"""Refuses, at import, an aiohttp that cannot prove whether a request has left.

Every module that imports aiohttp imports this module first.

Raises:
    ImportError: aiohttp is older than 3.12. It does not write a request's body by `write_with_length`, so that there is
        no proof whether the request has left, and the key of a lost answer would be reported as unsent.
"""

import aiohttp

if not hasattr(aiohttp.Payload, "write_with_length"):
    raise ImportError(
        f"respan_async needs aiohttp 3.12 or newer, and aiohttp {aiohttp.__version__} is installed, which cannot tell "
        "whether a request has left"
    )
