"""What vLLM checks before and while it starts: configuration first, then memory."""

from pathlib import Path

from packaging.version import Version

from orchestrator.errors import UsageError
from orchestrator.simulator.arguments import ServeArguments
from orchestrator.simulator.environment import Environment
from orchestrator.simulator.failures import CHAIN, ConfigError, validation_error
from orchestrator.simulator.tracebacks import traceback
from orchestrator.simulator.wording.errors import length_above_model, too_few_gpus
from orchestrator.vllm.model_config import ModelConfig, model_config
from orchestrator.vllm.settings import EngineSettings
from orchestrator.vllm.version import at_least

_HUB = "https://huggingface.co"
_REQUEST = "(Request ID: Root=1-67f00000-5e4d1ab35b0a4c1f0000cafe;0b4d8f5e-0000-4000-8000-9b0f5a1c7e21)"


def _hub_failure(hub_error: str, error: str) -> ConfigError:
    frames = (("huggingface_hub/utils/_http.py", 467, "hf_raise_for_status", "raise _format(...) from e"),)
    return ConfigError(
        error,
        (("transformers/utils/hub.py", 479, "cached_files", "hf_hub_download("),),
        before=traceback(frames, hub_error) + CHAIN,
    )


def gated_model(model: str) -> ConfigError:
    """Return the failure of a token without access to a gated repository."""
    url = f"{_HUB}/{model}/resolve/main/config.json"
    detail = (
        f"403 Client Error. {_REQUEST}\n\nCannot access gated repo for url {url}.\nAccess to model {model} is "
        f"restricted and you are not in the authorized list. Visit {_HUB}/{model} to ask for access."
    )
    return _hub_failure(
        f"huggingface_hub.errors.GatedRepoError: {detail}",
        f"OSError: You are trying to access a gated repo.\nMake sure to have access to it at {_HUB}/{model}.\n{detail}",
    )


def missing_model(model: str) -> ConfigError:
    """Return the failure of a name that no repository has."""
    url = f"{_HUB}/{model}/resolve/main/config.json"
    return _hub_failure(
        # 404 is what a request with a token gets; without one the hub answers 401 for private and missing alike.
        f"huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error. {_REQUEST}\n\n"
        f"Repository Not Found for url: {url}.\nPlease make sure you specified the correct `repo_id` and `repo_type`.\n"
        "If you are trying to access a private or gated repo, make sure you are authenticated. For more details, see "
        f"{_HUB}/docs/huggingface_hub/authentication",
        f"OSError: {model} is not a local folder and is not a valid model identifier listed on "
        f"'{_HUB}/models'\nIf this is a private repository, make sure to pass a token having permission to this repo "
        "either by logging in with `hf auth login` or by passing `token=<your_token>`",
    )


def unreachable_hub() -> ConfigError:
    """Return the failure of a hub that cannot be reached."""
    return _hub_failure(
        "huggingface_hub.errors.LocalEntryNotFoundError: An error happened while trying to locate the file on the Hub "
        "and we cannot find the requested files in the local cache. Please check your connection and try again or make "
        "sure your Internet connection is on.",
        f"OSError: We couldn't connect to '{_HUB}' to load the files, and couldn't find them in the cached files.\n"
        "Check your internet connection or see how to run the library in offline mode at "
        "'https://huggingface.co/docs/transformers/installation#offline-mode'.",
    )


def _invalid_folder(model: str) -> ConfigError:
    return ConfigError(
        f"ValueError: Invalid repository ID or local directory specified: '{model}'.\n"
        "Please verify the following requirements:\n1. Provide a valid Hugging Face repository ID.\n"
        "2. Specify a local directory that contains a recognized configuration file.\n"
        "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
        "   - For Mistral models: ensure the presence of a 'params.json'."
    )


def find_model(arguments: ServeArguments, environment: Environment) -> ModelConfig:
    """Return the model's shape; raises ConfigError for an unknown model and for the model faults."""
    model = arguments.model
    if environment.fault == "gated":
        raise gated_model(model)
    if environment.fault == "missing":
        raise missing_model(model)
    if environment.fault == "unreachable":
        raise unreachable_hub()
    try:
        return model_config(model)
    except UsageError:
        folder = Path(model)
        if folder.is_dir() or folder.is_absolute() or model.startswith("."):
            raise _invalid_folder(model) from None
        raise missing_model(model) from None


def _utilization_error(version: Version, utilization: float) -> ConfigError | None:
    if 0 < utilization <= 1:
        return None
    if not at_least(version, "0.11.1"):
        text = f"GPU memory utilization must be less than 1.0. Got {utilization}."
        return ConfigError(validation_error(version, "CacheConfig", text))
    rule, kind = "less than or equal to 1", "less_than_equal"
    if utilization <= 0:
        rule, kind = "greater than 0", "greater_than"
    return ConfigError(
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig\ngpu_memory_utilization\n"
        f"  Input should be {rule} [type={kind}, input_value={utilization}, input_type=float]"
    )


def check_model_length(settings: EngineSettings, model: ModelConfig, version: Version) -> None:
    """Refuse a context longer than the model's own."""
    if settings.max_model_len > model.max_position_embeddings:
        text = length_above_model(version, settings.max_model_len, model.max_position_embeddings)
        raise ConfigError(validation_error(version, "ModelConfig", text))


def check_configuration(
    settings: EngineSettings, model: ModelConfig, version: Version, visible_gpus: int | None
) -> None:
    """Refuse what the release refuses before it starts a worker."""
    refused = _utilization_error(version, settings.gpu_memory_utilization)
    if refused is not None:
        raise refused
    tensor = settings.tensor_parallel_size
    engines = settings.data_parallel_size if at_least(version, "0.13.0") else 1
    needed = settings.world_size * engines
    if visible_gpus is not None and needed > visible_gpus and needed > 1:
        text = too_few_gpus(version, needed, visible_gpus)
        if at_least(version, "0.11.1"):
            raise ConfigError(validation_error(version, "ParallelConfig", text))
        raise ConfigError(f"ValueError: {text}")
    if model.attention_heads % tensor:
        text = (
            f"Total number of attention heads ({model.attention_heads}) must be divisible by tensor parallel size "
            f"({tensor})."
        )
        raise ConfigError(validation_error(version, "VllmConfig", text))
