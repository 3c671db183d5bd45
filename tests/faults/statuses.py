"""The API server's refusals, in its own words."""

import json
from typing import Any

Object = dict[str, Any]


class Refusal(Exception):  # noqa: N818 - it is the server's answer, and no error of the server
    """An answer that is a Status."""

    def __init__(self, code: int, reason: str, message: str, cause: str = "", seconds: int = 0) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.body = status(code, reason, message, cause, seconds)


def status(code: int, reason: str, message: str, cause: str = "", seconds: int = 0) -> Object:
    """Return a Status; `cause` is the reason of its one cause, `seconds` when to try again."""
    details: Object = {}
    if cause:
        details["causes"] = [{"reason": cause, "message": message}]
    if seconds:
        details["retryAfterSeconds"] = seconds
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
        "code": code,
    }


def status_bytes(code: int, reason: str, message: str, cause: str = "") -> bytes:
    """Return a Status as it is sent."""
    return json.dumps(status(code, reason, message, cause)).encode() + b"\n"


def not_found(resource: str, name: str) -> Refusal:
    """Refuse what is not there."""
    return Refusal(404, "NotFound", f'{resource} "{name}" not found')


def already_exists(resource: str, name: str, *, deleting: bool = False) -> Refusal:
    """Refuse a name that is taken."""
    prefix = "object is being deleted: " if deleting else ""
    return Refusal(409, "AlreadyExists", f'{prefix}{resource} "{name}" already exists')


def conflict(resource: str, name: str, why: str) -> Refusal:
    """Refuse a write that is based on another version, or on another object of that name."""
    return Refusal(409, "Conflict", f'Operation cannot be fulfilled on {resource} "{name}": {why}')


def expired(asked: int, oldest: int) -> Refusal:
    """Refuse a version that was forgotten."""
    return Refusal(410, "Expired", f"too old resource version: {asked} ({oldest})")


def too_large(asked: int, current: int) -> Refusal:
    """Refuse a version of the future."""
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return Refusal(504, "Timeout", message, "ResourceVersionTooLarge", 1)


def forbidden(message: str, cause: str = "") -> Refusal:
    """Refuse for lack of a right, or for an admission rule."""
    return Refusal(403, "Forbidden", message, cause)
