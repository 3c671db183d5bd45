"""Every line that carries a figure of a start-up, as vLLM and its vendors' plug-ins print it.

A new wording is one more line in one of these tables. The versions are those whose sources print the text.
"""

from orchestrator.vllm_log.wordings.graphs import GRAPHS
from orchestrator.vllm_log.wordings.kv_cache import KV_CACHE
from orchestrator.vllm_log.wordings.profiling import PROFILING
from orchestrator.vllm_log.wordings.vendors import VENDORS
from orchestrator.vllm_log.wordings.weights import WEIGHTS
from orchestrator.vllm_log.wordings.wording import MIB, Stage, Wording

WORDINGS: tuple[Wording, ...] = (*WEIGHTS, *PROFILING, *KV_CACHE, *GRAPHS, *VENDORS)

__all__ = ["MIB", "WEIGHTS", "WORDINGS", "Stage", "Wording"]
