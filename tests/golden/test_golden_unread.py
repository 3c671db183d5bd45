"""Nothing that looks like a memory figure in the log of a known version is left unread."""

from pathlib import Path

import pytest

from orchestrator.vllm_log import unread_lines

FOLDERS = (Path(__file__).parent / "logs", Path(__file__).parents[1] / "data" / "logs")
FILES = sorted(path for folder in FOLDERS for path in folder.iterdir() if path.suffix in {".log", ".logs"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.name))
def test_every_figure_of_a_known_version_is_understood(path: Path) -> None:
    """Read, or known to be no part of the budget; what is not is shown with its line."""
    assert [(line.line_number, line.line) for line in unread_lines(path.read_bytes())] == []
