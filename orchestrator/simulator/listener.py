"""The TCP port of the server, taken before the engine starts."""

import os
import socket

from orchestrator.simulator.arguments import ServeArguments
from orchestrator.simulator.failures import ConfigError


def bind(arguments: ServeArguments) -> socket.socket:
    """Take the TCP port as vLLM does before it starts an engine; nobody listens on it yet."""
    family = socket.AF_INET6 if ":" in (arguments.host or "") else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((arguments.host or "", arguments.port))
    except OSError as error:
        taken.close()
        frames = (("vllm/entrypoints/openai/api_server.py", 520, "create_server_socket", "sock.bind(addr)"),)
        raise ConfigError(f"OSError: [Errno {error.errno}] {os.strerror(error.errno or 0)}", frames) from error
    return taken
