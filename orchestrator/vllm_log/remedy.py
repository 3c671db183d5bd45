"""The smallest change that would start, computed from the numbers of the failing line where there are any."""

from collections.abc import Mapping

MOST_HEADS = 4096  # more than any model has; a damaged log may say anything
LEAST_SHARE = 0.2  # of a device, below which no model is worth starting

REMEDIES: Mapping[str, str] = {
    "oom.load": "the weights do not fit one device: raise --tensor-parallel-size, or use a quantised checkpoint",
    "oom.profile": "lower --max-num-batched-tokens or --max-num-seqs, or raise --tensor-parallel-size",
    "oom.graph_capture": "lower --gpu-memory-utilization, capture fewer graphs, or use --enforce-eager",
    "oom.warmup": "lower --max-num-seqs or --gpu-memory-utilization",
    "oom.runtime": "lower --gpu-memory-utilization so that more memory stays outside the KV cache",
    "oom": "raise --tensor-parallel-size, or lower --max-num-seqs and --max-num-batched-tokens",
    "kv.no_room": "raise --tensor-parallel-size or --gpu-memory-utilization, or lower --max-num-seqs",
    "kv.context_too_long": "lower --max-model-len, raise --gpu-memory-utilization, or raise --tensor-parallel-size",
    "gpu.busy": "free the device: another process holds or released memory on it",
    "gpu.insufficient": "ask for as many devices as tensor x pipeline x data parallel size, or lower these",
    "gpu.hardware": "drain the node and look at the device (dmesg, Xid); the configuration is not to blame",
    "config.argument": "mend or remove the argument that the line names; flags come and go with vLLM versions",
    "config.context_exceeds_model": "lower --max-model-len to what the model's config.json allows",
    "config.parallelism": "choose a --tensor-parallel-size that divides the size that the line names",
    "config.unsupported": "use a vLLM version or a device that supports what the line names",
    "model.access": "accept the model's licence and give the pod a token that may read it",
    "model.missing": "mend the model's name or path",
    "model.unreachable": "give the pod a way to the model hub, or a cache volume that holds the model",
    "comm.failure": "look at the first rank that failed; check /dev/shm, interconnect and NCCL settings",
    "host.oom": "raise the container's memory limit",
    "hang": "look at the last lines of every rank for what they wait for; raise the limit if they are only slow",
    "engine.died": "read the log around the line; the cause is not one kprof knows",
    "interrupted": "run the point again",
}


def remedy_for(
    kind: str, numbers: Mapping[str, float], *, tensor_parallel_size: int | None, block_size: int | None
) -> str | None:
    """Return what to change, with numbers where the log gives them; None for a kind without advice."""
    if kind == "kv.context_too_long" and "estimated_max_model_len" in numbers:
        return _context_remedy(numbers, tensor_parallel_size, block_size)
    if kind == "config.context_exceeds_model" and "derived_max_model_len" in numbers:
        return (
            f"--max-model-len {int(numbers['derived_max_model_len'])} is the most that the model's config.json allows"
        )
    if kind == "config.parallelism" and "attention_heads" in numbers:
        heads = int(numbers["attention_heads"])
        size = int(numbers.get("tensor_parallel_size", tensor_parallel_size or 1))
        if not 0 < heads <= MOST_HEADS:
            return REMEDIES[kind]
        fitting = [count for count in range(1, heads + 1) if heads % count == 0]
        nearest = min(fitting, key=lambda count: (abs(count - size), count))
        return f"--tensor-parallel-size {nearest} divides the {heads} attention heads"
    if kind == "gpu.insufficient" and "available_gpus" in numbers:
        return f"{int(numbers['world_size'])} devices are needed, {int(numbers['available_gpus'])} are visible"
    if kind == "gpu.busy" and {"free_gib", "total_gib"} <= numbers.keys() and numbers["total_gib"] > 0:
        share = int(numbers["free_gib"] / numbers["total_gib"] * 100) / 100
        if share < LEAST_SHARE:
            return f"free the device: only {numbers['free_gib']:.2f} of {numbers['total_gib']:.2f} GiB are free"
        return f"free the device, or use --gpu-memory-utilization {share:.2f} at most"
    if kind == "kv.no_room" and "available_kv_gib" in numbers:
        more = f"{-numbers['available_kv_gib'] + 0.0:.2f} GiB are missing before the first KV block: "
        return more + (
            f"--tensor-parallel-size {2 * (tensor_parallel_size or 1)}, or " + "a higher --gpu-memory-utilization"
        )
    return REMEDIES.get(kind)


def _context_remedy(numbers: Mapping[str, float], tensor_parallel_size: int | None, block_size: int | None) -> str:
    longest = int(numbers["estimated_max_model_len"])
    text = ""
    if {"needed_gib", "available_gib"} <= numbers.keys():
        text = f"needs {numbers['needed_gib']:.2f} GiB for one request, {numbers['available_gib']:.2f} available: "
    blocks = ""
    if block_size:
        whole = longest // block_size
        if whole == 0:
            return text + REMEDIES["kv.context_too_long"]
        longest, blocks = whole * block_size, f" ({whole} blocks of {block_size})"
    return f"{text}--max-model-len {longest}{blocks} fits, or --tensor-parallel-size {2 * (tensor_parallel_size or 1)}"
