"""What Kueue tells: whether a LocalQueue is there, and why a Job waits in it."""

from orchestrator.cluster.kubernetes.transport import ApiError, Transport

GROUP = "kueue.x-k8s.io"
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"


async def installed_version(transport: Transport) -> str | None:
    """Return the API version of Kueue that the server prefers, None when Kueue is not installed; raises ApiError."""
    groups = (await transport.call("GET", "/apis")).get("groups") or []
    return next(
        (str(group["preferredVersion"]["groupVersion"]) for group in groups if group.get("name") == GROUP), None
    )


async def local_queue(transport: Transport, namespace: str, name: str) -> bool | None:
    """Say whether Kueue is installed and has this LocalQueue; None without the right to look."""
    version = await installed_version(transport)
    if version is None:
        return False
    try:
        await transport.call("GET", f"/apis/{version}/namespaces/{namespace}/localqueues/{name}")
    except ApiError as error:
        return False if error.code == 404 else None
    return True


async def why_waiting(transport: Transport, namespace: str, job_uid: str) -> str | None:
    """Return why a Job is not admitted, in the words of its Workload; None without the right to read it."""
    try:
        version = await installed_version(transport)
        path = f"/apis/{version}/namespaces/{namespace}/workloads"
        found = await transport.call("GET", path, {"labelSelector": f"{JOB_UID_LABEL}={job_uid}"})
    except ApiError:
        return None
    for workload in found.get("items") or []:
        if (workload.get("spec") or {}).get("active") is False:
            return "the workload is deactivated"
        for condition in (workload.get("status") or {}).get("conditions") or []:
            if condition.get("type") == "QuotaReserved" and condition.get("status") == "False":
                return str(condition.get("message") or "") or None
    return None
