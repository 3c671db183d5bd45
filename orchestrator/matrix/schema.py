"""The shape of a matrix file, as pydantic models; `matrices/schema.json` is generated from them."""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from orchestrator.vllm_log import redact

Scalar = bool | int | float | str
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,48}[a-z0-9])?$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f]+$")]
Seconds = Annotated[int, Field(ge=1, le=7 * 24 * 3600)]
Vendor = Literal["nvidia", "amd", "intel", "ascend", "cpu"]
Failure = Literal[
    "oom.load", "oom.profile", "oom.graph_capture", "oom.warmup", "oom.runtime", "oom",
    "kv.no_room", "kv.context_too_long",
    "gpu.busy", "gpu.insufficient", "gpu.hardware",
    "config.argument", "config.context_exceeds_model", "config.parallelism", "config.unsupported",
    "model.access", "model.missing", "model.unreachable",
    "comm.failure", "host.oom", "engine.died", "interrupted", "hang",
    "pod.image", "pod.unschedulable", "pod.config", "pod.quota", "pod.admission", "pod.evicted", "pod.preempted",
    "pod.deadline", "pod.node_lost",
    "unknown",
]  # fmt: skip


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, str) and re.search(r"[\x00-\x08\x0b-\x1f]", value):
        raise ValueError("must not hold control characters")
    if isinstance(value, list | dict):
        for item in value if isinstance(value, list) else [*value.keys(), *value.values()]:
            _finite(item)
    return value


def _no_secret_in_env(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if name in {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}:
            raise ValueError(f"{name} must not stand in a file: name its Secret under huggingFaceToken")
        if redact(f"{name}={value}") != f"{name}={value}":
            raise ValueError(f"{name} looks like a secret, which must not stand in a file: mount it by pod.volumes")
    return env


def _no_secret(value: Any, name: str = "") -> Any:
    if isinstance(value, str) and redact(said := f"{name}: {value}") != said:
        raise ValueError("looks like a secret, which must not stand in a file: mount it by pod.volumes")
    if isinstance(value, list):
        for item in value:
            _no_secret(item, name)
    if isinstance(value, dict):
        for key, item in value.items():
            _no_secret(item, str(key))
    return value


def _no_token(value: Any) -> None:
    """Refuse what is a secret by its own shape; the names of Kubernetes' fields say nothing of their values."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for item in value:
            _no_token(item)
    else:
        _no_secret(value)


# A value is one argument value; a list of values is an axis. A list inside the list is one value of several words.
Value = Annotated[Scalar | list[Any] | dict[str, Any] | None, AfterValidator(_finite), AfterValidator(_no_secret)]


class Strict(BaseModel):
    """A mapping of known fields only, spelled as Kubernetes spells them."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=to_camel, populate_by_name=False
    )


class AcceleratorFields(Strict):
    """The accelerators of a point; the count follows from the parallel sizes."""

    vendor: Vendor | None = Field(default=None, description="Sets the resource name; `cpu` asks for no device.")
    product: Text | None = Field(default=None, description="Product name as the node's label carries it.")
    resource: Text | None = Field(None, description="Extended resource, when it is not the vendor's usual one.")


class SecretKey(Strict):
    """A key of a Secret in the sweep's namespace."""

    secret_name: Name
    key: Text = "HF_TOKEN"


class CacheFields(Strict):
    """Where model files are kept: an emptyDir per pod, or a PersistentVolumeClaim by name."""

    claim_name: Name | None = None


class TimeoutFields(Strict):
    """Limits of one point in seconds; none of them runs while the pod is queued, except `queueSeconds`."""

    queue_seconds: Seconds | None = None
    startup_seconds: Seconds | None = None
    stall_seconds: Seconds | None = None
    probe_seconds: Seconds | None = None


class Toleration(Strict):
    """A Kubernetes toleration."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class PodFields(Strict):
    """Overlays of the pod, merged over kprof's own; values are Kubernetes' own objects."""

    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    node_selector: dict[str, str] | None = None
    tolerations: list[Toleration] | None = None
    affinity: dict[str, Any] | None = None
    runtime_class_name: str | None = None
    priority_class_name: str | None = None
    service_account_name: str | None = None
    scheduler_name: str | None = None
    image_pull_secrets: list[dict[str, str]] | None = None
    security_context: dict[str, Any] | None = Field(None, description="Of the pod, for example runAsUser.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    volumes: list[dict[str, Any]] | None = None
    volume_mounts: list[dict[str, Any]] | None = None
    resources: dict[Literal["requests", "limits"], dict[str, str]] | None = None
    shm_size: str | None = Field(None, description="Size of /dev/shm, for example 8Gi; default only for TP > 1.")

    @model_validator(mode="after")
    def _holds_no_secret(self) -> Self:
        _no_token(list(self.model_dump().values()))
        return self


class Settings(Strict):
    """What both `defaults` and a group may say; a group's value wins, mappings are merged key by key."""

    image: Text | list[Text] | None = Field(default=None, description="vLLM image; a list makes the version an axis.")
    arguments: dict[str, Value] = Field(default_factory=dict, description="vLLM arguments; a list is an axis.")
    env: Annotated[dict[EnvName, str], AfterValidator(_no_secret_in_env)] = Field(default_factory=dict)
    accelerator: AcceleratorFields = AcceleratorFields.model_validate({})
    hugging_face_token: SecretKey | None = None
    cache: CacheFields = CacheFields()
    pod: PodFields = PodFields.model_validate({})
    timeouts: TimeoutFields = TimeoutFields()


class KueueFields(Strict):
    """Run every point as a suspended Job in a queue of Kueue, instead of as a bare pod."""

    queue_name: Name = Field(description="A LocalQueue in the namespace of the sweep.")
    priority_class: Name | None = Field(None, description="A WorkloadPriorityClass.")


class Group(Settings):
    """Points that share a model family: the product of every list, plus `include`, minus `exclude`."""

    name: Name
    label: Text | None = Field(default=None, description="How tables name the model; default: the model's own name.")
    model: Text | list[Text]
    include: list[dict[str, Value]] = Field(default_factory=list, description="Further points of this group.")
    exclude: list[dict[str, Value]] = Field(default_factory=list, description="Points of the product to leave out.")
    expect: Failure | None = Field(None, description="The failure kind that these points are expected to end in.")


class Matrix(Strict):
    """One sweep: what to run, on which image, with which arguments."""

    version: Literal[1]
    name: Name
    description: str | None = None
    kueue: KueueFields | None = None
    defaults: Settings = Settings()
    groups: Annotated[list[Group], Field(min_length=1)]


MODELS: tuple[type[Strict], ...] = (
    Matrix,
    Group,
    KueueFields,
    AcceleratorFields,
    SecretKey,
    CacheFields,
    TimeoutFields,
    Toleration,
    PodFields,
)
