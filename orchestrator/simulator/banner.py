"""The first lines of a server: platform, version and arguments."""

from orchestrator.simulator.arguments import ServeArguments
from orchestrator.simulator.environment import Environment
from orchestrator.simulator.log import Level, Log, Process
from orchestrator.vllm.version import at_least

_LOGO = (
    "",
    "       █     █     █▄   ▄█",
    " ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}",
    "  █▄█▀ █     █     █     █  model   {model}",
    "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀",
    "",
)
_PLATFORMS = (
    "Checking if TPU platform is available.",
    "TPU platform is not available because: No module named 'libtpu'",
    "Checking if CUDA platform is available.",
    "Confirmed CUDA platform is available.",
    "Checking if ROCm platform is available.",
    "Checking if XPU platform is available.",
    "Checking if CPU platform is available.",
)


def show_platform(log: Log, environment: Environment) -> None:
    """Print how the platform was found; the processes of these lines have no name yet."""
    nobody = Process(None, 0)
    for text in _PLATFORMS:
        log.record(nobody, "DEBUG", "platforms/__init__.py:37", text)
    level: Level = "DEBUG" if at_least(environment.version, "0.11.1") else "INFO"
    text = f"Automatically detected platform {environment.device.platform}."
    log.record(nobody, level, "platforms/__init__.py:247", text)


def show_arguments(log: Log, front: Process, arguments: ServeArguments, environment: Environment) -> None:
    """Print version and arguments; like vLLM this prints secrets that stand in arguments."""
    version, text = environment.version, environment.version_text
    if at_least(version, "0.15.0"):
        banner = "\n".join(_LOGO).format(version=text, model=arguments.model)
        log.record(front, "INFO", "entrypoints/utils.py:299", banner)
    else:
        log.record(front, "INFO", "entrypoints/openai/api_server.py:1839", f"vLLM API server version {text}")
    shown = dict(arguments.non_default)
    if at_least(version, "0.9.0"):
        log.record(front, "INFO", "entrypoints/utils.py:233", f"non-default args: {shown}")
        return
    pairs = ", ".join(f"{name}={value!r}" for name, value in shown.items())
    line = f"args: Namespace(subparser='serve', {pairs})"
    log.record(front, "INFO", "entrypoints/openai/api_server.py:1044", line)
