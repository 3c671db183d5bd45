"""Which cluster a command speaks to, without starting anything on it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.cli.console import LibraryTalk
from orchestrator.cluster.local.adapter import LocalCluster
from orchestrator.cluster.port import Cluster


@dataclass(frozen=True, slots=True)
class Where:
    """This machine, or a kubeconfig's context and namespace; None takes kubectl's default."""

    local: bool
    kubeconfig: str | None
    context: str | None
    namespace: str | None


@asynccontextmanager
async def opened(where: Where, *, queued: bool = False) -> AsyncIterator[Cluster]:
    """Open the cluster for as long as the body runs; raises ClusterError when there are no credentials.

    `queued` says that the points to run have a queue.
    """
    if where.local:
        yield LocalCluster()
        return
    from orchestrator.cluster.kubernetes.adapter import KubernetesCluster

    logging.basicConfig(handlers=[LibraryTalk()])
    async with KubernetesCluster.connect(where.kubeconfig, where.context, where.namespace, queued=queued) as cluster:
        yield cluster
