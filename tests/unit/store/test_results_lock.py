"""A run has one driver at a time."""

import subprocess
import sys
from pathlib import Path

from orchestrator.store import open_store
from tests.fakes.matrix import group, points


def test_a_second_driver_of_one_run_is_refused_and_others_are_not(tmp_path: Path) -> None:
    """Both processes would create the same pods; another run of the store is no matter."""
    of = points(group())
    store = open_store(str(tmp_path / "kprof.db"))
    first = store.create_run("aaaa", "m", "d", "local", "measured", of)
    second = store.create_run("bbbb", "m", "d", "local", "measured", of)
    code = (
        "import sys\nfrom orchestrator.store import open_store\n"
        "store = open_store(sys.argv[1]); run = store.run(sys.argv[2]); assert run is not None\n"
        "with store.driving(run): pass\n"
    )

    def drive(name: str) -> str:
        command = [sys.executable, "-c", code, str(tmp_path / "kprof.db"), name]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    with store.driving(first):
        assert "is being driven by another kprof" in drive("aaaa")
        assert drive(second.id) == ""
    assert drive("aaaa") == ""
