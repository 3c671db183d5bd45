"""The bed's audit log: who asked the API server for what, and what came of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bed.control_plane import AUDIT_LOG
from tests.bed.layout import Layout, layout


@dataclass(frozen=True)
class Request:
    """One request: `resource` has its subresource, as RBAC rules write it; `dry` says that nothing was stored."""

    user: str
    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    code: int
    dry: bool
    uri: str


class AuditLog:
    """The requests since this object was made; it must be read before the log is rotated twice (100 MB)."""

    def __init__(self, where: Layout | None = None) -> None:
        """Note where the log ends now."""
        self._path = (where or layout()).logs / AUDIT_LOG
        status = self._path.stat()
        self._inode, self._offset = status.st_ino, status.st_size

    def requests(self, *, text: str = "") -> Iterator[Request]:
        """Yield each answered request whose line holds the text, in the order of the answers."""
        # A rotated log is called audit-<time>.log, which sorts before the one that is written.
        files = sorted(self._path.parent.glob(f"{self._path.stem}*{self._path.suffix}"))
        inodes = [path.stat().st_ino for path in files]
        assert self._inode in inodes, "the audit log was rotated away"
        first = inodes.index(self._inode)
        for number, path in enumerate(files[first:]):
            with path.open(encoding="utf-8", errors="replace") as log:
                log.seek(0 if number else self._offset)
                for line in log:
                    if text in line and line.endswith("\n") and (found := _request(json.loads(line))) is not None:
                        yield found


def _request(event: dict[str, object]) -> Request | None:
    # A stream is told of twice, at its beginning and at its end; its beginning may be all that a killed server told.
    target, answer, user = (event.get(name) for name in ("objectRef", "responseStatus", "user"))
    if not isinstance(target, dict) or not isinstance(answer, dict) or not isinstance(user, dict):
        return None
    parts = [target.get("resource", ""), target.get("subresource", "")]
    return Request(
        user=str(user.get("username", "")),
        verb=str(event.get("verb", "")),
        group=str(target.get("apiGroup", "")),
        resource="/".join(part for part in parts if part),
        namespace=str(target.get("namespace", "")),
        name=str(target.get("name", "")),
        code=int(answer.get("code", 0)),
        dry="dryRun=" in str(event.get("requestURI", "")),
        uri=str(event.get("requestURI", "")),
    )
