"""Notes what requests say of who sends them."""

from dataclasses import dataclass, field

from tests.faults.calls import Exchange
from tests.faults.faults import Fault, Serve


@dataclass
class Headers(Fault):
    """Notes one header of every request, None where it is not there; the server answers."""

    name: str = "Authorization"
    values: list[str | None] = field(default_factory=list)

    async def meet(self, exchange: Exchange, serve: Serve) -> bool:
        """Note it."""
        self.values.append(exchange.request.headers.get(self.name))
        return False
