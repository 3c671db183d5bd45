"""Weights: "GB" is 2**30 bytes in every version that prints it."""

from orchestrator.vllm_log.wordings.wording import MIB, Stage, wording

_LOADED = Stage.PROFILE

WEIGHTS = (
    wording("0.14+", "Model loading took {weights_gib} GiB memory and {model_load_seconds} seconds", reached=_LOADED),
    wording("0.8.3-0.27", "Model loading took {weights_gib} GiB and {model_load_seconds} seconds", reached=_LOADED),
    wording("0.8.0-0.8.2", "Model loading took {weights_gib} GB and {model_load_seconds} seconds", reached=_LOADED),
    # The seconds may be cut off or on another line.
    wording("0.8.3+", "Model loading took {weights_gib} GiB", reached=_LOADED),
    wording("0.4-0.8.2, vllm-ascend", "Loading model weights took {weights_gib} GB", reached=_LOADED),
    wording("XPU 0.8.3-0.9.2", "Loading model weights took {weights_gib} GiB", reached=_LOADED),
    wording("0.2-0.3", "Loading model weights took {weights_gib} MB", anchor=" MB", scale=MIB, reached=_LOADED),
    wording(
        "Gaudi",
        "Loading model weights took in total {weights_gib:unit} of device memory",
        anchor="GiB",
        reached=_LOADED,
    ),
    wording("0.16+", "Peak GPU memory after loading weights: {load_peak_gib} GiB"),
    wording("0.20+", "Checkpoint size: {checkpoint_gib} GiB"),
    wording("0.17+", "Total CPU offloaded parameters: {cpu_offload_gib:unit}"),
    # Some releases leave the unit out.
    wording("0.17+", "Total CPU offloaded parameters: {cpu_offload_gib}", after=r"(?![\d.,]| ?[KMGTB])"),
)
