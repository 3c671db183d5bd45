"""All that the parser looks for, tied to the anchors by which `scan` finds their lines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.vllm_log.causes import CAUSES, Cause
from orchestrator.vllm_log.marks import NEEDLES, STAGE_FRAMES, Mark
from orchestrator.vllm_log.scan import Scanner
from orchestrator.vllm_log.wordings import WORDINGS, Wording

Rule = Wording | Cause | Mark

# Every wording and mark must hold one of these texts, or it would never be found; a test sees to it.
_FIGURES = (
    "GiB",
    " GB",
    " MB",
    "KV cache size: ",
    "Maximum concurrency for",
    " blocks: ",
    "num_gpu_blocks is",
    "Available memory: ",
    "total memory: ",
    "memory after",
    "raph capturing finished",
    "init engine (profile",
    "torch.compile t",
    "torch.compile and init",
    "Warmup finished in",
    "Memory profiling takes",
    "Encoder cache will be",
    "offloaded parameters: ",
)
_MARKS = (
    " version ",
    "LLM engine (v",
    "detected platform",
    "Platform plugin ",
    "SpecDecodeWorker",
    "startup complete",
    "Avg prompt throughput",
    "Uvicorn running on",
    "Starting to load model",
    "Starting vLLM ",
    "Available routes are",
    "Capturing cudagraphs for",
    "Capturing the model for",
    "graph memory profiling",
    "kprof simulator ",
    "parallel_size",
    "non-default args: ",
    "args: Namespace",
    "max_num_batched_tokens",
    "max_num_seqs to ",
    "max model len",
    "Auto-fit max_model_len",
    "distributed_init_method",
    "is assigned as DP",
    "Traceback (most recent",
    "File ",
    "memory before",
    "memory after",
    "_peak before",
    "_peak after",
    "activation_memory new",
)
# A cause nearly always stands beside the name of an exception; these are the ones that also stand alone. A size in
# GiB finds those that carry one.
_CAUSES = (
    "rror",
    "Exception: ",
    "GiB",
    "KeyboardInterrupt",
    "SIGTERM",
    "Received signal",
    "died unexpectedly",
    "failed to start",
    "hit an exception",
    "startup failed",
    "already dead",
    "NVRM: Xid",
    "GPU is lost",
    "GPU has fallen",
    "OOMKilled",
    "ImagePullBackOff",
    "Failed to pull image",
    "Watchdog caught",
    "No available memory",
    "max seq len",
    "out of memory",
    "compute capability",
    "not enough GPU memory",
    "RESOURCE_EXHAUSTED",
    "load NCCL library",
    "Input should be",
    "Unexpected keyword argument",
    "are not supported for now",
    "thrown while requesting",
    "offline mode is enabled",
    "OutOfResources: ",
    "option 'gpu-name'",
    "invalid value for --gpu",
    "Segfault encountered",
    "NCCL WARN ",
    "exceeds the total number of available",
    "running low on memory",
    "memory usage threshold",
    "appears to be a URI",
)
_ANY_CAUSE = frozenset({"rror", "Exception: "})


def _pairs() -> Iterator[tuple[str, Rule]]:
    for wording in WORDINGS:
        yield wording.anchor or _anchor_in(_FIGURES, wording.template.text), wording
    for mark, needles in NEEDLES.items():
        if mark is not Mark.DEATH:
            for anchor in dict.fromkeys(_anchor_in((*_MARKS, *_FIGURES), needle) for needle in needles):
                yield anchor, mark
    for anchor in _CAUSES:
        for cause in CAUSES:
            if anchor in _ANY_CAUSE or anchor in cause.template.text or (anchor == "GiB" and cause.kind == "oom"):
                yield anchor, cause
        if anchor in _ANY_CAUSE or any(anchor in needle for needle in NEEDLES[Mark.DEATH]):
            yield anchor, Mark.DEATH


def _anchor_in(anchors: tuple[str, ...], text: str) -> str:
    found = next((anchor for anchor in anchors if anchor in text), None)
    if found is None:
        raise ValueError(f"no anchor for {text!r}")
    return found


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one line's anchors, by kind; causes in the order in which they decide.

    Lines are many, so what is asked of every one of them is worked out once for each set of anchors.
    """

    wordings: tuple[Wording, ...]
    causes: tuple[Cause, ...]
    marks: tuple[Mark, ...]
    deadly: bool
    frame: bool
    starts: bool
    simulator: bool


def _bundle(rules: Iterable[Rule]) -> Rules:
    unique = list(dict.fromkeys(rules))
    causes = sorted((rule for rule in unique if isinstance(rule, Cause)), key=lambda cause: cause.order)
    marks = {rule for rule in unique if isinstance(rule, Mark)}
    return Rules(
        wordings=tuple(wording for wording in WORDINGS if wording in unique),
        causes=tuple(causes),
        marks=tuple(mark for mark in Mark if mark in marks and mark not in _ASKED),
        deadly=Mark.DEATH in marks,
        frame=Mark.FRAME in marks,
        starts=Mark.START in marks or Mark.ENGINE_START in marks,
        simulator=Mark.SIMULATOR in marks,
    )


_ASKED = frozenset({Mark.DEATH, Mark.SIMULATOR, Mark.START})
# Of a traceback's many frames only those count whose function tells the stage.
_STAGE_NAMES = "|".join(sorted(name for _, names in STAGE_FRAMES for name in names))
# In JSON the quotes have backslashes before them.
_GUARDS = {"File ": rf'\\{{0,3}}"[^"\n]{{1,1000}}", line \d{{1,9}}, in (?:{_STAGE_NAMES})\b'}
SCANNER: Scanner[Rule, Rules] = Scanner(_pairs(), _bundle, _GUARDS)
