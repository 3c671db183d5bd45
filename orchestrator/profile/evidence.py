"""The raw log as evidence: redacted line by line, compressed as it comes, bounded."""

import zlib

from orchestrator.vllm_log import redact_bytes

MAX_LOG_BYTES = 256 << 20


class LogEvidence:
    """Collects a log; `compressed()` gives a zlib stream of at most 256 MiB of redacted text."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(6)
        self._parts: list[bytes] = []
        self.size = 0
        self.truncated = False

    def add(self, lines: bytes) -> None:
        """Add whole lines."""
        if self.size + len(lines) > MAX_LOG_BYTES:
            self.truncated = True
            return
        self.size += len(lines)
        self._parts.append(self._compressor.compress(redact_bytes(lines)))

    def compressed(self) -> bytes:
        """Return what was collected so far as one complete zlib stream."""
        return b"".join(self._parts) + self._compressor.copy().flush()
