"""vLLM versions: read from an image tag, compared like releases."""

import re

from packaging.version import InvalidVersion, Version

_TAG = re.compile(r":v?(\d+\.\d+(?:\.\d+)*[A-Za-z0-9.+]*)(?:-[A-Za-z0-9._-]+)?(?:@sha256:[0-9a-f]+)?$")


def parse_version(text: str) -> Version | None:
    """Read a vLLM version such as `0.19.2rc1.dev206+g95995bb`; None when it is not one."""
    try:
        return Version(text.removeprefix("v"))
    except InvalidVersion:
        return None


def version_of_image(image: str) -> Version | None:
    """Read the version from an image's tag: `vllm/vllm-openai:v0.11.0` is 0.11.0; None for `nightly`."""
    match = _TAG.search(image)
    return parse_version(match.group(1)) if match else None


def at_least(version: Version, release: str) -> bool:
    """Say whether `version` has what `release` brought; a development build counts as its base release."""
    return Version(version.base_version) >= Version(release)
