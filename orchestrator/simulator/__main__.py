"""`python -m orchestrator.simulator serve MODEL --flags` and `--version`."""

import os
import signal
import sys
from types import FrameType


def _stop_early(_number: int, _frame: FrameType | None) -> None:
    """Leave at once: nothing has been started that would have to be stopped."""
    os._exit(0)


def main() -> int:
    """Run the command line; returns the exit code."""
    # A signal must not find Python's default while the imports below still run.
    signal.signal(signal.SIGTERM, _stop_early)
    signal.signal(signal.SIGINT, _stop_early)
    from orchestrator.errors import UsageError
    from orchestrator.simulator.environment import read_environment

    try:
        environment = read_environment(os.environ, tty=sys.stdout.isatty())
    except UsageError as error:
        sys.stderr.write(f"kprof simulator: {error}\n")
        return error.exit_code
    if sys.argv[1:2] in (["--version"], ["-v"]):
        sys.stdout.write(f"{environment.version_text}\n")
        return 0
    from orchestrator.simulator.launch import marker

    sys.stdout.write(f"{marker(environment)}\n")
    sys.stdout.flush()
    from orchestrator.simulator.arguments import parse_serve

    arguments = parse_serve(sys.argv[1:], environment.version)
    import asyncio

    from orchestrator.simulator.launch import serve

    try:
        return asyncio.run(serve(arguments, environment))
    except BrokenPipeError:
        # Nobody reads the log any more; the interpreter must not complain about it at its own exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
