"""Where answers are printed: a terminal's own width, or as wide as needed in a pipe or file."""

import sys

from rich.console import Console

PIPE_COLUMNS = 160


def stdout_console() -> Console:
    """Return the console of stdout; only a terminal gets colours and line breaks to its width."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
