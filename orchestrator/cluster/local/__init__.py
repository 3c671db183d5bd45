"""This machine as a cluster: each pod is a process group with a shim above it that outlives kprof."""

from orchestrator.cluster.local.adapter import LocalCluster

__all__ = ["LocalCluster"]
