"""The errors kprof shows to people, each with the exit code of the command line's contract."""


class KprofError(Exception):
    """kprof could not do its job; says what happened, where, and what to do next.

    A failed configuration is not an error: it is a result (see `orchestrator.profile`).
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  {self.remedy}"


class UsageError(KprofError):
    """A bad matrix, option or store address: nothing was started."""

    exit_code = 2


class NothingSelectedError(KprofError):
    """The matrix is fine, but no point of it was selected."""

    exit_code = 3


class RunDrivenError(KprofError):
    """Another kprof drives this run."""


class ClusterError(KprofError):
    """The cluster is unreachable, refuses access, or lacks what every point needs."""

    exit_code = 4
