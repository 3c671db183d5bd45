"""Foreign text from every place reaches a terminal as text only."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.faults.background import BackgroundServer
from tests.faults.faults import Answer, on, refusal
from tests.security.commands import environment, inside, on_terminal
from tests.security.hostile import HOSTILE, LONG, SHORT, line, unsafe
from tests.security.places import PLACES, matrix, refuse, script

OURS = {"app.kubernetes.io/managed-by": "kprof"}
CONTEXT = f"ctx {SHORT}"
IMAGE = "repo/\x9b2J\u202e\u200b[red]:v0.11.0"
JSON_COMMANDS = (
    ("summary", "--format", "json"),
    ("doctor", "--format", "json"),
    ("clean", "--dry-run", "--format", "json"),
    *(("show", place, "--format", "json") for place in PLACES),
)
HUMAN_COMMANDS = (
    *(("summary", "--format", name) for name in ("table", "markdown", "csv")),
    ("doctor",),
    ("clean", "--dry-run"),
    *(("show", place) for place in PLACES),
    *(("logs", place) for place in ("log", "log-in-utf-16", "last-words", "failure")),
)


@dataclass(frozen=True)
class Printed:
    """What a terminal got, and what a program got, by the command that said it."""

    to_people: dict[str, bytes]
    to_programs: dict[str, bytes]


def _says(place: str) -> str:
    if place == "queue":
        return SHORT
    if place in {"log", "last-words"}:
        return f"{line()}\n{LONG}\n{line()}"
    return line(text_only=True)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Printed]:
    """Sweep through every place, with a live view and with lines, then run every command."""
    folder = tmp_path_factory.mktemp("hostile")
    with BackgroundServer(script(_says)) as background:
        background.do(lambda: _prepare(background))
        variables = environment(folder, _kubeconfig(background.server.kubeconfig(folder)))
        plan = str(matrix(folder, image=IMAGE))
        people, programs = {}, {}
        code, people["live view"] = on_terminal(variables, "sweep", plan, cwd=folder)
        assert code == 1, people["live view"].decode("utf-8", "replace")
        people["a real terminal: logs"] = on_terminal(variables, "logs", "log", cwd=folder)[1]
        people["a real terminal: show"] = on_terminal(variables, "show", "log", cwd=folder)[1]
        people["lines"] = inside(variables, "sweep", plan, "--fresh")[1]
        for command in (*HUMAN_COMMANDS, ("sweep", plan, "--dry-run"), ("doctor", plan)):
            people[_name(command)] = inside(variables, *command, terminal=True)[1]
        for command in JSON_COMMANDS:
            programs[_name(command)] = inside(variables, *command)[1]
        people |= _errors(background, variables, plan)
        _parse(variables, folder, people, programs)
        yield Printed(people, programs)


def _name(command: tuple[str, ...]) -> str:
    return " ".join("PLAN" if "/" in word else word for word in command)


def _prepare(background: BackgroundServer) -> None:
    """Give hostile names to what kprof finds on a cluster: nodes, devices, quotas, versions, what other runs left."""
    server, evil = background.server, line(text_only=True)
    refuse(server, _says)
    status = {"allocatable": {f"{evil}/gpu": "4"}, "images": [{"names": [evil]}]}
    server.objects.add(("nodes", "", evil), {"spec": {}, "status": status})
    used = {f"requests.{evil}/gpu": "1"}
    server.objects.add(("resourcequotas", "default", evil), {"status": {"hard": used, "used": used}})
    labels = OURS | {"kprof.io/run": evil}
    for kind in ("configmaps", "leases"):
        server.objects.add((kind, "default", f"kp-{evil}"), {"metadata": {"labels": labels}})
    server.faults.add(Answer(on("GET", "/version"), None, 200, {"gitVersion": evil}))


def _kubeconfig(path: Path) -> Path:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["contexts"][0]["name"] = config["current-context"] = CONTEXT
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _errors(background: BackgroundServer, variables: dict[str, str], plan: str) -> dict[str, bytes]:
    said, evil = {}, line(text_only=True)
    for name, (where, arguments) in {
        "refused anchor": (on("POST", "/configmaps"), ("sweep", plan, "--fresh")),
        "refused list": (on("GET", "/configmaps"), ("clean",)),
        "refused deletion": (on("PUT", f"/leases/kp-{evil}"), ("clean",)),
        "no Status": (on("POST", "/configmaps"), ("sweep", plan, "--fresh")),
    }.items():
        fault = refusal(403, "Forbidden", evil, where=where)
        if name == "no Status":
            fault = Answer(where, None, 403, evil.encode(), "text/html")
        with background.server.faults.during(fault):
            said[name] = inside(variables, *arguments, terminal=True)[1]
    said["unknown context"] = inside(variables, "doctor", "--context", evil.replace("\x00", ""), terminal=True)[1]
    return said


def _parse(variables: dict[str, str], folder: Path, people: dict[str, bytes], programs: dict[str, bytes]) -> None:
    name = "\x1b]0;owned\x07\u202e[red].log"
    file, empty = folder / name, folder / f"empty{name}"
    head = "INFO 01-01 00:00:01 [m.py:1] Model loading took 14.99 GiB and 7.4 seconds"
    last = "ValueError: No available memory for the cache blocks."
    texts = [head, *(f"{head} {text}" for text in HOSTILE.values()), f"Took 3.5 GiB for {line()}", f"{last} {line()}"]
    file.write_bytes("\n".join([*texts, LONG, ""]).encode("utf-8", "surrogateescape"))
    empty.write_bytes(b"nothing\n")
    for shown, words in {"parse": (file,), "parse --unread": (file, "--unread"), "parse nothing": (empty,)}.items():
        arguments = ("parse", *map(str, words))
        people[shown] = inside(variables, *arguments, terminal=True)[1]
        if shown != "parse nothing":
            programs[shown] = inside(variables, *arguments, "--format", "json")[1]


COMMANDS = [
    "live view",
    "lines",
    "a real terminal: logs",
    "a real terminal: show",
    *map(_name, HUMAN_COMMANDS),
    "sweep PLAN --dry-run",
    "doctor PLAN",
    "refused anchor",
    "refused list",
    "refused deletion",
    "no Status",
    "unknown context",
    "parse",
    "parse --unread",
    "parse nothing",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_people_read_holds_no_raw_control_character(printed: Printed, command: str) -> None:
    """Nor one that hides or reorders words; kprof's own colours and the live view's steps are known."""
    text = printed.to_people[command]
    assert text.strip()
    assert sorted(set(unsafe(text))) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_no_hostile_text_reaches_a_terminal_as_it_is(printed: Printed, name: str) -> None:
    """Markup that only a library would read is text, and stays."""
    raw = HOSTILE[name].encode("utf-8", "surrogateescape")
    got = [command for command, text in printed.to_people.items() if raw in text]
    assert bool(got) == (name in {"markup", "link of markup", "emoji"}), got


def test_every_command_was_looked_at(printed: Printed) -> None:
    """The names above are those of all that was run."""
    assert set(printed.to_people) == set(COMMANDS)


@pytest.mark.parametrize("place", [place for place in PLACES if place not in {"queue", "answer", "log-in-utf-16"}])
def test_the_words_around_hostile_text_are_shown(printed: Printed, place: str) -> None:
    """Only so the rest proves something: what came from there was printed, a dot for each taken character."""
    command = "logs" if place == "log" else "show"
    assert "safe····evil" in printed.to_people[f"{command} {place}"].decode()


@pytest.mark.parametrize("command", [*map(_name, JSON_COMMANDS), "parse", "parse --unread"])
def test_json_stays_json(printed: Printed, command: str) -> None:
    """One object on each line, in plain ASCII, which a terminal survives as well."""
    lines = printed.to_programs[command].decode("ascii").splitlines()
    assert lines
    assert all(isinstance(json.loads(text), dict) for text in lines)
