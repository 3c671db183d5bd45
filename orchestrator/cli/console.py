"""Where answers are printed: a terminal's own width, or as wide as needed in a pipe or file."""

import logging
import sys

from rich.console import Console

from orchestrator.errors import KprofError
from orchestrator.report.tables import printable
from orchestrator.vllm_log import redact

PIPE_COLUMNS = 160


def stdout_console() -> Console:
    """Return the console of stdout; only a terminal gets colours and line breaks to its width."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def shown(text: str) -> str:
    """Return the words of a cluster, a file or a library as people may see them; line breaks stay."""
    return printable_lines(redact(text))


def told(error: KprofError) -> str:
    """Return an error with its remedy. The message may quote anybody; a remedy may show how a token is given."""
    remedy = "" if error.remedy is None else f"\n  {printable_lines(error.remedy)}"
    return shown(error.message) + remedy


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, which takes an s for more than one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable_lines(text: str) -> str:
    """Return text of several lines that is safe to print."""
    return "\n".join(printable(line) for line in text.split("\n"))


class LibraryTalk(logging.Handler):
    """Prints what libraries log: the one for credentials passes on what a login command says."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as people may see it."""
        sys.stderr.write(shown(self.format(record)) + "\n")
