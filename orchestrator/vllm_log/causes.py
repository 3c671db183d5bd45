"""The rules of `cause_table`, compiled, in the order in which they decide."""

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.vllm_log.cause_table import TABLE
from orchestrator.vllm_log.template import Template, compile_template
from orchestrator.vllm_log.weak_cause_table import WEAK_TABLE


@dataclass(frozen=True, slots=True)
class Cause:
    """One failing line: its kind and the numbers in it.

    `order` decides between two that match one line: the smaller. A `weak` cause is taken only when the engine did
    not come up and no strong one is in the log, a `hint` when there is no exception either. `remedy` replaces the
    kind's own.
    """

    kind: str
    template: Template
    order: int
    weak: bool
    remedy: str | None = None
    hint: bool = False


def _causes() -> Iterator[Cause]:
    order = 0
    for row in (*TABLE, *WEAK_TABLE):
        for text in row.texts:
            template = compile_template(text, needle=row.needle, before=row.before, after=row.after)
            yield Cause(row.kind, template, order, row.weak, row.remedy, row.hint)
            order += 1


CAUSES: tuple[Cause, ...] = tuple(_causes())
