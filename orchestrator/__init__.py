"""kprof: a Kubernetes profiling-job orchestrator for vLLM."""

__version__ = "0.1.0"
