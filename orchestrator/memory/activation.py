"""Peak activation of the profile run, in bytes.

vLLM profiles with a full batch. On current models two things decide the peak: the sampler, which works on
`max_num_seqs x vocab_size` logits in several copies, and the widest layer of the forward pass over
`max_num_batched_tokens`. The bytes per logit were fitted to breakdown lines of real H100 start-ups (0.11.0:
seven models of the H100 summary table; 0.19.0: nine DEBUG logs); they are a property of the sampler, not of a model.
"""

from packaging.version import Version

from orchestrator.vllm.model_config import ModelConfig
from orchestrator.vllm.settings import EngineSettings
from orchestrator.vllm.version import at_least

LOGIT_BYTES_SORTING_SAMPLER = 38  # until 0.16: float32 copies, sort values and int64 indices, masks
LOGIT_BYTES = 14  # from 0.17: no full sort
LIVE_HIDDEN_STATES = 2  # hidden states and residual stay alive while the sampler runs


def activation_bytes(model: ModelConfig, settings: EngineSettings, version: Version) -> int:
    """Return the peak activation of the fullest rank in bytes (the larger of sampler and forward pass)."""
    tokens, element = settings.max_num_batched_tokens, settings.dtype_bytes
    hidden = LIVE_HIDDEN_STATES * tokens * model.hidden_size * element
    per_logit = LOGIT_BYTES if at_least(version, "0.17.0") else LOGIT_BYTES_SORTING_SAMPLER
    sampler = settings.max_num_seqs * model.vocab_size * per_logit
    width = model.intermediate_size // settings.tensor_parallel_size
    forward = 3 * tokens * width * element  # gate and up projections, and their product
    return hidden + max(sampler, forward)
