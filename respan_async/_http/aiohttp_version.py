"""Whether the installed aiohttp can prove what the library says of it; checked at import, by what it has.

Every module that knows aiohttp is imported after this one.

Raises:
    ImportError: aiohttp is older than 3.12. It does not write a request's body by `write_with_length`, so that nothing
        tells whether the request has left, and the key of a lost answer would be called unsent.
"""

import aiohttp

if not hasattr(aiohttp.Payload, "write_with_length"):
    raise ImportError(
        f"respan_async needs aiohttp 3.12 or newer, and aiohttp {aiohttp.__version__} is installed, which cannot tell "
        "whether a request has left"
    )
