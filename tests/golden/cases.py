"""The start-ups of the golden set: versions, settings and what is awkward about each."""

from collections.abc import Callable

from tests.golden.catalogue import GIB, Value
from tests.golden.figures import Awkward
from tests.golden.session import Session
from tests.golden.setup import Setup
from tests.golden.startup import V1Start, Wish
from tests.golden.v0 import V0Start
from tests.golden.vendors import start_up

TP2 = Setup(tensor=2)
LLAMA = Setup(model="meta-llama/Llama-3.1-8B-Instruct", architecture="LlamaForCausalLM", length=16384)
Case = Callable[[], Session]


def v1(version: str, setup: Setup = TP2, wish: Wish | None = None, *, tag: str = "") -> tuple[str, Case]:
    """Return a named case of the V1 engine."""
    name = f"{version}-v1{tag}"
    return name, lambda: V1Start(name, version, setup, wish).run()


def v0(
    version: str, setup: Setup = TP2, wish: Wish | None = None, *, tag: str = "", ray: bool = False, device: str = "GPU"
) -> tuple[str, Case]:
    """Return a named case of the V0 engine."""
    name = f"{version}-v0{tag}"
    return name, lambda: V0Start(name, version, setup, wish, ray=ray, device=device).run()


def awkward(
    *, graph: float | None = None, non_torch: float | None = None, device: int | None = None, kv: float | None = None
) -> Awkward:
    """Return what is to be awkward."""
    return Awkward(graph=graph, non_torch=non_torch, device=device, kv=kv)


def values(**shown: Value) -> dict[str, Value]:
    """Return what a warning prints."""
    return shown


DEBUG = Wish(debug=True)
# Warnings in the words of failures, in starts that went well.
SPECULATION = (("fail.graph_sizes.1", values(multiple_of=5)),)
PLACEMENT = (("fail.gpu_count.6", values(device_str="GPU")),)
MAMBA = (
    ("fail.mamba_blocks.1", values(max_cudagraph_capture_size=512, capped_sizes_1=256, num_mamba_cache_blocks=300)),
    ("fail.mamba_blocks.2", values(num_mamba_cache_blocks=0, cudagraph_capture_sizes_0=1)),
)
SWAP = (
    ("fail.swap.1", values(msg="64.00 GiB out of the 124.91 GiB total CPU memory is allocated for the swap space.")),
)
LONGER = (
    (
        "fail.maxlen_derived.3",
        values(
            max_model_len="5000",
            max_len_key="max_position_embeddings",
            derived_max_model_len="4096.0",
            model_max_length="None",
        ),
    ),
)
ODD_LENGTH = Setup(tensor=2, length=5000, sequences=128, batched=4096)
FP8 = Setup(model="RedHatAI/Qwen2.5-72B-Instruct-FP8", tensor=2, quantization="fp8", kv_dtype="fp8", length=32768)


def start_ups() -> dict[str, Case]:
    """Return every complete start-up on GPUs, by name."""
    return dict(
        [
            v0("0.4.2"),
            v0("0.5.0.post1", LLAMA),
            v0("0.5.3.post1", FP8),
            v0("0.5.4", Setup(tensor=2, sequences=64)),
            v0("0.5.5", Setup(tensor=2, eager=True)),
            v0("0.6.0"),
            v0("0.6.1.post2", LLAMA),
            v0("0.6.2", Setup(tensor=2, block=32)),
            v0("0.6.3.post1", Setup(tensor=2, batched=2048, length=65536)),
            v0("0.6.4.post1"),
            v0("0.6.5"),
            v0("0.6.5", TP2, Wish(awkward=awkward(non_torch=0.003)), tag="-near-zero"),
            v0("0.6.6.post1", LLAMA),
            v0("0.7.0", FP8),
            v1("0.7.0"),
            v0("0.7.1", LLAMA, Wish(noise=SWAP)),
            v1("0.7.2"),
            v0("0.7.3", Setup(tensor=2, batched=4096, sequences=256)),
            v0("0.7.3", TP2, tag="-ray", ray=True),
            v1("0.7.3", LLAMA, Wish(encoder_tokens=2048)),
            v1("0.8.0"),
            v0("0.8.0", LLAMA),
            v1("0.8.2", LLAMA),
            v1("0.8.3"),
            v0("0.8.4", FP8),
            v1("0.8.5", TP2, Wish(encoder_tokens=8192)),
            v1("0.9.0"),
            v1("0.9.0.1", Setup(eager=True)),
            v1("0.9.1"),
            v1("0.9.1", ODD_LENGTH, DEBUG, tag="-debug"),
            v1("0.9.2", TP2, Wish(awkward=awkward(graph=-0.97))),
            v0("0.9.2"),
            v1("0.10.0", LLAMA, DEBUG, tag="-debug"),
            v1("0.10.0"),
            v1("0.10.1", TP2, DEBUG, tag="-debug"),
            v1("0.10.1.1", FP8),
            v1("0.10.2"),
            v1("0.10.2", LLAMA, DEBUG, tag="-debug"),
            v0("0.10.2"),
            v1("0.10.2", Setup(tensor=2, kv_bytes=4 * GIB), tag="-kv-bytes"),
            v1("0.11.0"),
            v1("0.11.0", TP2, DEBUG, tag="-debug"),
            v1("0.11.0", LLAMA, Wish(platform="rocm"), tag="-rocm"),
            v1("0.11.1", TP2, Wish(encoder_tokens=16384)),
            v1("0.11.1", TP2, DEBUG, tag="-debug"),
            v1("0.11.2", Setup(tensor=2, eager=True), Wish(noise=SPECULATION)),
            v1("0.12.0", TP2, Wish(debug=True, awkward=awkward(graph=-0.42)), tag="-debug"),
            v1("0.12.0", LLAMA),
            v1("0.13.0", TP2, DEBUG, tag="-debug"),
            v1("0.13.0", FP8),
            v1("0.13.0", Setup(tensor=2, kv_bytes=6 * GIB), tag="-kv-bytes"),
            v1("0.14.0", TP2, Wish(debug=True, awkward=awkward(non_torch=0.002, graph=-0.003)), tag="-debug"),
            v1("0.14.0"),
            v1("0.14.0", Setup(tensor=2, length=131072), Wish(fits=65536), tag="-autofit"),
            v1("0.15.0", TP2, DEBUG, tag="-debug"),
            v1("0.15.0", ODD_LENGTH, Wish(noise=LONGER)),
            v1("0.16.0", LLAMA),
            v1("0.16.0", TP2, DEBUG, tag="-debug"),
            v1("0.17.0", TP2, Wish(outer="vllm-1  | ")),
            v1("0.18.0", TP2, Wish(noise=MAMBA)),
            v1("0.18.0", TP2, DEBUG, tag="-debug"),
            v1("0.19.0", TP2, DEBUG, tag="-debug"),
            v1("0.19.0", Setup(data=2, tensor=2), DEBUG, tag="-dp2"),
            v1("0.19.0", Setup(pipeline=2), DEBUG, tag="-pp2"),
            v1("0.19.1", Setup(tensor=2, kv_bytes=13_421_772_800), tag="-kv-bytes"),
            v1("0.20.0", TP2, DEBUG, tag="-debug"),
            v1("0.20.0", LLAMA, Wish(noise=PLACEMENT)),
            v1("0.20.1", ODD_LENGTH),
            v1("0.21.0", TP2, Wish(awkward=awkward(graph=-0.004))),
            v1("0.22.0", TP2, DEBUG, tag="-debug"),
            v1("0.23.0", LLAMA, Wish(cached=True)),
            v1("0.24.0", TP2, DEBUG, tag="-debug"),
            v1("0.25.0", TP2, Wish(v2_runner=True, awkward=Awkward(no_estimate=True)), tag="-v2-runner"),
            v1("0.25.0", ODD_LENGTH, DEBUG, tag="-debug"),
            v1("0.26.0"),
            v1("0.26.0", TP2, Wish(startup_plan=True), tag="-plan"),
            v1("0.27.0", TP2, Wish(encoder_tokens=16384)),
            v1("0.27.0", TP2, DEBUG, tag="-debug"),
            v1("0.28.0", FP8),
            v1("0.29.0"),
            v1("0.29.0", LLAMA, DEBUG, tag="-debug"),
            v1("0.29.0", Setup(tensor=4), tag="-tp4"),
            v1("0.30.0", ODD_LENGTH),
            v1("0.30.0", Setup(data=2, tensor=2), tag="-dp2"),
            v1("0.31.0"),
            v1("0.31.0", LLAMA, Wish(plan_refused=True), tag="-plan-refused"),
            v1("0.31.0", LLAMA, Wish(api_key="golden-key-not-a-secret"), tag="-tp1"),
            v1("0.32.0"),
            v1("0.32.0", TP2, Wish(as_json=True), tag="-json"),
            v1("0.32.0", TP2, Wish(awkward=Awkward(external=5.5)), tag="-external-weights"),
            v1("0.33.0"),
            v1("0.33.0", TP2, DEBUG, tag="-debug"),
            v1("0.33.0", Setup(tensor=2, pipeline=2), tag="-pp2-tp2"),
        ]
    )


def device(kind: str, version: str, setup: Setup = TP2, wish: Wish | None = None, *, tag: str = "") -> tuple[str, Case]:
    """Return a named case on another device."""
    name = f"{version}-{kind}{tag}"
    return name, lambda: start_up(kind, name, version, setup, wish)


SMALL = Setup(model="Qwen/Qwen3-0.6B", architecture="Qwen3ForCausalLM", length=2048)


def other_devices() -> dict[str, Case]:
    """Return the start-ups on other devices, by name."""
    return dict(
        [
            device("cpu", "0.20.0", SMALL),
            device("cpu", "0.27.0", SMALL),
            device("cpu", "0.32.0", Setup(model="Qwen/Qwen3-0.6B", tensor=2, length=2048)),
            device("cpu-explicit", "0.30.0", SMALL),
            device("xpu", "0.9.2"),
            device("xpu", "0.15.1", SMALL),
            device("gaudi", "0.6.4.post1", LLAMA),
            device("gaudi", "0.9.2"),
            device("tpu", "0.5.0.post1", LLAMA),
            device("tpu", "0.6.6.post1", LLAMA),
            device("old-cpu", "0.6.6.post1", LLAMA),
            device("ascend", "0.8.5rc1"),
            device("ascend", "0.9.1rc2"),
            device("ascend", "0.15.0rc1"),
            device("ascend", "0.15.0rc1", TP2, DEBUG, tag="-debug"),
            device("ascend", "0.19.1rc1"),
            device("ascend", "0.21.0rc1"),
            device("ascend", "0.24.0rc1"),
            device("ascend", "0.30.0rc2"),
            device("ascend", "0.30.0rc2", Setup(tensor=2, kv_bytes=6 * GIB), tag="-kv-bytes"),
        ]
    )
