"""Points on this machine: secrets of the environment and of the matrix reach the server, and no file or argument."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.fakes.matrix import document, group
from tests.security.commands import environment
from tests.security.outputs import kept
from tests.security.processes import Onlooker, files_of
from tests.security.shapes import SHAPES, Shape, canary, forms, said_in

HELD = {"environment": canary("hf", "local environment"), "variable of the matrix": canary("word", "local matrix")}
PLACE = "local"
RUN_SECONDS = 60.0
READY = Path(__file__).parents[1] / "data" / "logs" / "cpu-0.27.1_info_ok.log"


@dataclass(frozen=True)
class Swept:
    """What was said and kept, and what an onlooker saw meanwhile."""

    said: dict[str, bytes]
    onlooker: Onlooker


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Sweep one point whose simulator replays a log that says every shape."""
    folder = tmp_path_factory.mktemp("local")
    replay = folder / "replay.log"
    head, _, rest = READY.read_text(encoding="utf-8").partition("\n")
    replay.write_text(f"{head}\n{said_in(PLACE)}\n{rest}", encoding="utf-8")
    env = {"DIALECT": HELD["variable of the matrix"], "KPROF_SIMULATE_REPLAY": str(replay)}
    matrix = folder / "matrix.yaml"
    matrix.write_text(yaml.safe_dump(document(group("a", model="Qwen/Qwen3-0.6B", env=env))), encoding="utf-8")
    variables = environment(folder, None, HF_TOKEN=HELD["environment"])
    # Not so fast that the pod has come and gone between two looks.
    options = ("--on", "local", "--simulate", "--simulate-speed", "20", "--format", "json")
    with Onlooker(str(folder), folder / "state") as onlooker:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "sweep", str(matrix), *options],
            cwd=folder,
            env=variables,
            capture_output=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    said = {"sweep": done.stdout, "talk of the sweep": done.stderr} | kept(folder) | files_of(folder / "state")
    return Swept(said | onlooker.files, onlooker)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_secret_in_a_local_log_is_nowhere(swept: Swept, shape: Shape) -> None:
    """The raw log is gone with its pod."""
    secrets = forms(shape.canary(PLACE))
    assert [name for name, text in swept.said.items() if any(secret in text for secret in secrets)] == []


@pytest.mark.parametrize("name", HELD)
def test_a_secret_given_to_the_server_is_in_no_file_and_no_argument(swept: Swept, name: str) -> None:
    """It is inherited, and never written down, not even while the pod runs."""
    secrets = forms(HELD[name])
    assert [where for where, text in swept.said.items() if any(secret in text for secret in secrets)] == []
    assert [words for words in swept.onlooker.arguments if any(secret in words for secret in secrets)] == []


def test_the_onlooker_saw_it_all(swept: Swept) -> None:
    """kprof, the shim and the server; the pod's files; a log with every secret masked."""
    for part in (b"orchestrator.cli", b"shim.py", b"orchestrator.simulator"):
        assert any(part in words for words in swept.onlooker.arguments), part
    assert {Path(name).name for name in swept.onlooker.files} >= {"pod.json", "status.json"}
    assert swept.said["the store's logs"].count(b"[redacted]") >= len(SHAPES)
