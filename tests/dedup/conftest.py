"""The fixtures of the tests of runs."""

from tests.run.conftest import make_config

__all__ = ["make_config"]
