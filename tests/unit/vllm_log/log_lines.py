"""Lines framed as vLLM 0.8 and later frames them, and the start-ups that a log of such lines gives."""

from orchestrator.vllm_log import Check, Failure, StartUp, parse_log


def record(message: str, *, process: str = "EngineCore", pid: int = 1, level: str = "INFO", file: str = "core") -> str:
    """Return one record; without a process name it has no prefix, as in a single process of old versions."""
    prefix = f"({process} pid={pid}) " if process else ""
    return f"{prefix}{level} 01-02 03:04:05 [{file}.py:1] {message}"


def server(version: str) -> str:
    """Return the line by which a server says its version."""
    return record(f"vLLM API server version {version}", process="APIServer", pid=9)


READY = record("Application startup complete.", process="APIServer", pid=9)


def text(*lines: str) -> bytes:
    """Return the lines as a log file."""
    return "".join(f"{line}\n" for line in lines).encode()


def read_all(*lines: str) -> list[StartUp]:
    """Return every start-up of the lines."""
    return parse_log(text(*lines))


def read(*lines: str) -> StartUp:
    """Return the only start-up of the lines."""
    (found,) = read_all(*lines)
    return found


def failed(*lines: str) -> Failure:
    """Return the failure of the only start-up of the lines."""
    failure = read(*lines).failure
    assert failure is not None
    return failure


def checks(found: StartUp, name: str) -> dict[str | None, Check]:
    """Return the checks of one name by rank."""
    return {check.rank: check for check in found.checks if check.name == name}
