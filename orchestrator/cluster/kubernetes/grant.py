"""The command that gives an account what a sweep needs, for whoever may grant it to run on any machine."""

import json
import shlex

from orchestrator.cluster.kubernetes.preflight import (
    HELPFUL_QUEUE_RIGHTS,
    HELPFUL_RIGHTS,
    NEEDED_RIGHTS,
    QUEUE_RIGHTS,
)
from orchestrator.cluster.kubernetes.transport import ApiError, Object, Transport

ROLE = "kprof-user"  # the manifests and the chart call theirs otherwise, so that applying this one changes none of them
SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def grant_command(transport: Transport, namespace: str, *, queued: bool) -> str:
    """Return a shell line that makes the Role and binds it to the account that asks."""
    kubectl = f"kubectl -n {namespace}"
    user = await _own_name(transport)
    who = user or "WHO"
    role = json.dumps(_role(queued=queued), separators=(",", ":"))
    # Each account has a binding of its own, whose name may hold anything but these two.
    binding = f"{ROLE}:{who}".replace("/", "-").replace("%", "-")
    bind = shlex.join(["create", "rolebinding", binding, f"--role={ROLE}", f"--user={who}"])
    line = f"echo {shlex.quote(role)} | {kubectl} apply -f - && {kubectl} {bind}"
    return line if user else f"{line}  # WHO: kubectl auth whoami"


def _role(*, queued: bool) -> Object:
    """Return a Role with the rights of manifests/base, and with those for queues of Kueue."""
    rights = [*NEEDED_RIGHTS, *(right for right, _ in HELPFUL_RIGHTS)]
    if queued:
        rights += [*QUEUE_RIGHTS, *(right for right, _ in HELPFUL_QUEUE_RIGHTS)]
    verbs: dict[tuple[str, str], list[str]] = {}
    for right in rights:
        verbs.setdefault((right.group, right.name), []).append(right.verb)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": ROLE},
        "rules": [
            {"apiGroups": [group], "resources": [name], "verbs": allowed} for (group, name), allowed in verbs.items()
        ],
    }


async def _own_name(transport: Transport) -> str | None:
    """Ask under which name the API server knows this account; older ones do not tell."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await transport.call("POST", SELF, body=review)
    except ApiError:
        return None
    user = ((answer.get("status") or {}).get("userInfo") or {}).get("username")
    return str(user) if user else None
