"""A plugin for pytest under mutmut: run whole test functions.

mutmut asks for the cases that it saw use a function, by their names. Pytest does not find a name with brackets or `::`
in it again, exits with an error, and mutmut takes that for a mutant killed.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Leave the case out of each test that is asked for."""
    config.args = list(dict.fromkeys(argument.partition("[")[0] for argument in config.args))
