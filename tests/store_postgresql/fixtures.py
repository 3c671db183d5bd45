"""The server that the tests share, or the reason why there is none."""

import os

import pytest

from tests.store_postgresql.server import NoServerError, Server, shared


def server_or_skip() -> Server:
    """Return the shared server; fail without one where it is promised (CI), else skip, loudly."""
    try:
        return shared()
    except NoServerError as error:
        sentence = f"NOT RUN ON POSTGRESQL: {error}"
        if os.environ.get("KPROF_REQUIRE_BED") == "1":
            pytest.fail(sentence, pytrace=False)
        pytest.skip(sentence)
