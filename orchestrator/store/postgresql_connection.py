"""A connection to PostgreSQL that never makes its caller wait for long: the caller is the event loop."""

import math
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

OPERATION_SECONDS = 5.0  # of one operation of the store, connecting included; longer waits are the caller's
CONNECT_SECONDS = 2  # the shortest limit that the driver takes
_SILENT = f"the server did not answer within {OPERATION_SECONDS:g} s"
_T = TypeVar("_T")

# The server gives up before the client does, so that its words reach the user. The keepalives are the server's too:
# a holder whose machine is gone loses its lock within half a minute.
_SETTINGS = {
    "statement_timeout": "4s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_DEFAULTS: dict[str, str | int] = {
    "application_name": "kprof",
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


class Patience:
    """The time that is left of one operation."""

    def __init__(self) -> None:
        self._end = 0.0
        self.renew()

    def renew(self) -> None:
        """Begin an operation."""
        self._end = time.monotonic() + OPERATION_SECONDS

    def extend(self, seconds: float) -> None:
        """Leave at least so much time: connecting may have taken all of it."""
        self._end = max(self._end, time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds that are left, not below 0."""
        return max(0.0, self._end - time.monotonic())


class PatientConnection(psycopg.Connection[Any]):
    """Closes itself when the server is silent for too long; without that a lost network holds a read for minutes."""

    patience: Patience | None = None

    def wait(self, gen: Generator[Any, Any, _T], *args: Any, **options: Any) -> _T:
        """Wait for the server's answer, at most until the end of the operation."""
        return super().wait(self._until_the_end(gen), *args, **options)

    def _until_the_end(self, steps: Generator[Any, Any, _T]) -> Generator[Any, Any, _T]:
        # The driver asks again every 0.1 s while nothing comes.
        ready = None
        while True:
            try:
                wanted = steps.send(ready)
            except StopIteration as end:
                result: _T = end.value
                return result
            if self.patience is not None and not self.patience.left():
                steps.close()
                self.close()
                raise psycopg.OperationalError(_SILENT)
            ready = yield wanted


def connect(parameters: dict[str, str | int], patience: Patience) -> PatientConnection:
    """Connect with the settings of every connection of kprof; raises psycopg.Error."""
    if not patience.left():
        raise psycopg.OperationalError(_SILENT)  # an old connection has used it all
    # The driver's limit counts for each host of the address anew.
    hosts = 1 + str(parameters.get("host", "")).count(",")
    limit = max(CONNECT_SECONDS, math.floor(patience.left() / hosts))
    conninfo = make_conninfo("", **(_DEFAULTS | parameters | {"client_encoding": "utf8", "connect_timeout": limit}))
    # Without prepared statements it works behind a pooler that hands connections around.
    connection = PatientConnection.connect(conninfo, prepare_threshold=None)
    patience.extend(CONNECT_SECONDS)
    connection.patience = patience
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SETTINGS.items())
    try:
        connection.execute(f"SELECT {settings}".encode())
        connection.commit()
    except psycopg.Error:
        connection.close()
        raise
    return connection
