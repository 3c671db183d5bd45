"""One line of a table: a template, the versions that print it, and what it tells beside its figures."""

from dataclasses import dataclass
from enum import IntEnum

from orchestrator.vllm_log.template import Template, compile_template


class Stage(IntEnum):
    """How far a start-up is once the line was printed, in the order in which vLLM goes through them."""

    CONFIG = 0
    LOAD = 1
    PROFILE = 2
    KV_CACHE = 3
    GRAPH_CAPTURE = 4
    WARMUP = 5
    RUNTIME = 6


@dataclass(frozen=True, slots=True)
class Wording:
    """A line with figures; facts in GiB unless their name says otherwise.

    `versions` is for the reader; the text alone decides. `reached` is the stage that a start-up has reached with this
    line. `in_passing` marks figures of error messages, which count only when no other line gives them. `anchor` is
    the text by which the line is found, for a template that holds no anchor of its own (see `rules`). `given` says
    that no profile was made: the size of the KV cache was told to the engine.
    """

    versions: str
    template: Template
    reached: Stage | None = None
    scale: float = 1.0
    in_passing: bool = False
    anchor: str | None = None
    given: bool = False


def wording(
    versions: str,
    text: str,
    *,
    reached: Stage | None = None,
    scale: float = 1.0,
    in_passing: bool = False,
    needle: str | None = None,
    anchor: str | None = None,
    given: bool = False,
    before: str = "",
    after: str = "",
) -> Wording:
    """Make a wording of a template's text."""
    template = compile_template(text, needle=needle, before=before, after=after)
    return Wording(versions, template, reached, scale, in_passing, anchor, given)


BYTES = 2**-30
MIB = 2**-10
