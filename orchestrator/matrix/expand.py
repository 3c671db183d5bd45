"""From a matrix file to its points: merge defaults, take the product of the axes, include, exclude, name."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from orchestrator.errors import NothingSelectedError, UsageError
from orchestrator.matrix.point import RESOURCES, Accelerator, PodOverlay, Point, Queue, Timeouts
from orchestrator.matrix.schema import MODELS, Group, Matrix, Settings
from orchestrator.matrix.source import Path_, Source, field_name, read_source
from orchestrator.vllm.arguments import (
    ArgumentValue,
    accelerators_needed,
    canonical_argument,
    canonical_value,
    check_value,
    value_text,
)
from orchestrator.vllm.version import version_of_image
from orchestrator.vllm_log import redact

MAX_POINTS = 10_000
KNOWN_FIELDS = sorted({to_camel(name) for model in MODELS for name in model.model_fields})
SHORT = {
    "tensor-parallel-size": "tp",
    "pipeline-parallel-size": "pp",
    "data-parallel-size": "dp",
    "gpu-memory-utilization": "util",
    "max-model-len": "len",
    "max-num-seqs": "seqs",
    "max-num-batched-tokens": "tokens",
    "block-size": "block",
    "kv-cache-dtype": "kv",
    "image": "",
    "model": "",
}
Combination = dict[str, ArgumentValue]


@dataclass(frozen=True, slots=True)
class LoadedMatrix:
    """A matrix resolved to its points, in the order they are written."""

    name: str
    points: tuple[Point, ...]


def load_matrix(path: Path) -> LoadedMatrix:
    """Read and expand a matrix file.

    Raises UsageError (file, line, field, remedy) for a bad one, NothingSelectedError when no point is left.
    """
    source = read_source(path)
    matrix = _validated(source)
    points: list[Point] = []
    seen: dict[str, Point] = {}
    names: dict[str, int] = {}
    ids: set[str] = set()
    for index, group in enumerate(matrix.groups):
        at: Path_ = ("groups", index)
        if group.name in names:
            raise _error(source, (*at, "name"), f"the name {group.name!r} is taken", "give every group its own name")
        names[group.name] = index
        for point in _group_points(source, at, matrix.defaults, group):
            twin = seen.get(point.hash)
            if twin is not None:
                raise _error(source, at, f"{point.id} is the same configuration as {twin.id}", "leave one of them out")
            seen[point.hash] = point
            if point.id in ids:
                raise _error(source, at, f"two points would be called {point.id}", "give the group another name")
            ids.add(point.id)
            points.append(point)
            if len(points) > MAX_POINTS:
                raise _error(source, at, f"more than {MAX_POINTS} points so far", "split the matrix")
    if not points:
        raise NothingSelectedError(f"{path}: no point is left", remedy="look at `exclude:`")
    if matrix.kueue is not None:
        queue = Queue(matrix.kueue.queue_name, matrix.kueue.priority_class)
        points = [replace(point, queue=queue) for point in points]
    return LoadedMatrix(name=matrix.name, points=tuple(points))


def _error(source: Source, path: Path_, message: str, remedy: str | None) -> UsageError:
    return UsageError(_told(source, path, field_name(path), message), remedy=remedy)


def _told(source: Source, path: Path_, name: str, message: str) -> str:
    # Behind a name such as hf-token a colon and a word would be taken for the token.
    colon = ":" if redact(f"{name}: x") == f"{name}: x" else " is refused:"
    return f"{source.where(path)}: {name}{colon} {message}"


def _validated(source: Source) -> Matrix:
    if not isinstance(source.data, dict):
        raise UsageError(f"{source.name}:1: the document is not a mapping", remedy="start with `version: 1`")
    try:
        return Matrix.model_validate(source.data)
    except ValidationError as error:
        problems = list(_problems(source, error))
        raise UsageError("\n".join(problems), remedy="docs/matrix.md describes every field") from None


def _problems(source: Source, error: ValidationError) -> Iterator[str]:
    shown: set[tuple[str, str]] = set()
    for problem in error.errors(include_url=False, include_input=False):
        # Union members add names of types to the path; only what is written in the file helps a reader.
        path: Path_ = ()
        for part in problem["loc"]:
            if (*path, part) in source.lines or problem["type"] in {"missing", "extra_forbidden"}:
                path = (*path, part)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            name = str(problem["loc"][-1])
            near = get_close_matches(name, KNOWN_FIELDS, n=1)
            message = "unknown field" + (f"; did you mean {near[0]}?" if near else "")
            if name in KNOWN_FIELDS:
                message = "this field does not belong here"
        elif problem["type"] == "missing":
            message = "this field is required"
        key = (field_name(path), message)
        if key not in shown:
            shown.add(key)
            yield _told(source, path, *key)


def _axes(source: Source, at: Path_, defaults: Settings, group: Group) -> tuple[Combination, dict[str, list[Any]]]:
    """Return the fixed arguments and the axes (model and image among them) of a group."""
    merged: dict[str, tuple[Any, Path_]] = {}
    for settings, where in ((defaults, ("defaults", "arguments")), (group, (*at, "arguments"))):
        written: set[str] = set()
        for name, value in settings.arguments.items():
            path = (*where, name)
            canonical, plain = _canonical(source, path, name, value)
            if canonical in written:
                raise _error(source, path, f"{canonical} is written twice", "keep one spelling")
            written.add(canonical)
            merged[canonical] = (plain, path)
    image = group.image or defaults.image
    if image is None:
        raise _error(source, at, "no image", "add `image:` to the group or to `defaults:`")
    merged["image"] = (image, (*at, "image"))
    merged["model"] = (group.model, (*at, "model"))
    fixed: Combination = {}
    axes: dict[str, list[Any]] = {}
    for name, (value, path) in merged.items():
        if isinstance(value, list):
            if not value:
                raise _error(source, path, "an axis without values", "give it a value or take it out")
            values = [canonical_value(item) for item in value]
            if any(item in values[:place] for place, item in enumerate(values)):
                raise _error(source, path, "the axis holds a value twice", "leave one of them out")
            axes[name] = values
        elif value is not None:
            fixed[name] = canonical_value(value)
    return fixed, axes


def _canonical(source: Source, path: Path_, name: str, value: ArgumentValue) -> tuple[str, ArgumentValue]:
    try:
        canonical, value = canonical_argument(name, value)
        for item in value if isinstance(value, list) else [value]:
            check_value(canonical, item)
    except UsageError as error:
        raise _error(source, path, error.message, error.remedy) from None
    return canonical, value


def _combinations(
    source: Source, at: Path_, group: Group, fixed: Combination, axes: dict[str, list[Any]]
) -> list[Combination]:
    _check_size(source, at, axes)
    product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    for index, rule in enumerate(group.exclude):
        path = (*at, "exclude", index)
        wanted = dict(_rule(source, (*path, name), name, value) for name, value in rule.items())
        if unknown := [name for name in wanted if name not in axes]:
            raise _error(source, path, f"{unknown[0]} is no axis of this group", "exclude by the group's lists only")
        kept = [item for item in product if not all(_matches(item[name], value) for name, value in wanted.items())]
        if len(kept) == len(product):
            raise _error(source, path, "excludes nothing", "mend the values or take the entry out")
        product = kept
    for index, entry in enumerate(group.include):
        path = (*at, "include", index)
        extra = dict(_rule(source, (*path, name), name, value) for name, value in entry.items())
        if missing := [name for name in axes if name not in extra]:
            raise _error(source, path, f"gives no value for the axis {missing[0]}", f"add {missing[0]}")
        lists = {name: value if isinstance(value, list) else [value] for name, value in extra.items()}
        _check_size(source, path, lists)
        product += [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    return [{**fixed, **{k: v for k, v in item.items() if v is not None}} for item in product]


def _check_size(source: Source, at: Path_, lists: Mapping[str, list[Any]]) -> None:
    size = math.prod(len(values) for values in lists.values())
    if size > MAX_POINTS:
        raise _error(source, at, f"{size} points; a matrix has at most {MAX_POINTS}", "split it")


def _rule(source: Source, path: Path_, name: str, value: ArgumentValue) -> tuple[str, ArgumentValue]:
    return (name, value) if name in {"model", "image"} else _canonical(source, path, name, value)


def _matches(value: Any, wanted: Any) -> bool:
    return any(canonical_value(item) == value for item in (wanted if isinstance(wanted, list) else [wanted]))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "x"


def _point_id(group: Group, combination: Combination, axes: Mapping[str, list[Any]], extra: Combination) -> str:
    parts = [group.name]
    for name in [*axes, *(name for name in extra if name not in axes)]:
        value = combination.get(name)
        if name == "image":
            text = _slug(str(value).rsplit(":", 1)[-1])
        elif name == "model":
            text = _slug(str(value).rsplit("/", 1)[-1])
        elif isinstance(value, bool):
            text = _slug(name if value else f"no-{name}")
        else:
            short = SHORT.get(name, _slug(name) + "-")
            text = f"{short}{_slug('default' if value is None else value_text(value))}"
        parts.append(text)
    return "-".join(parts)[:120]


def _group_points(source: Source, at: Path_, defaults: Settings, group: Group) -> Iterator[Point]:
    fixed, axes = _axes(source, at, defaults, group)
    for combination in _combinations(source, at, group, fixed, axes):
        extra = {name: value for name, value in combination.items() if fixed.get(name) != value}
        arguments = {name: value for name, value in combination.items() if name not in {"model", "image"}}
        image = str(combination["image"])
        version = version_of_image(image)
        model = str(combination["model"])
        yield Point(
            id=_point_id(group, combination, axes, extra),
            group=group.name,
            label=group.label or model.rsplit("/", 1)[-1],
            model=model,
            image=image,
            vllm_version=None if version is None else str(version),
            arguments=arguments,
            env={**defaults.env, **group.env},
            accelerator=_accelerator(source, at, defaults, group, arguments),
            overlay=_overlay(defaults, group),
            timeouts=_timeouts(defaults, group),
            cache_claim=group.cache.claim_name or defaults.cache.claim_name,
            token_secret=_token(defaults, group),
            expect=group.expect,
        )


def _token(defaults: Settings, group: Group) -> tuple[str, str] | None:
    secret = group.hugging_face_token or defaults.hugging_face_token
    return None if secret is None else (secret.secret_name, secret.key)


def _accelerator(
    source: Source, at: Path_, defaults: Settings, group: Group, arguments: Mapping[str, ArgumentValue]
) -> Accelerator:
    own, base = group.accelerator, defaults.accelerator
    vendor = own.vendor or base.vendor or "nvidia"
    # A vendor of the group's own brings its own resource name; the default's belongs to the default's vendor.
    inherited = base.resource if own.vendor in {None, base.vendor} else None
    try:
        count = accelerators_needed(arguments)
    except UsageError as error:
        raise _error(source, (*at, "arguments"), error.message, error.remedy) from None
    resource = own.resource or inherited or RESOURCES[vendor]
    return Accelerator(vendor, resource, own.product or base.product, count if resource else 0)


def _overlay(defaults: Settings, group: Group) -> PodOverlay:
    base = defaults.pod.model_dump(by_alias=True, exclude_none=True)
    own = group.pod.model_dump(by_alias=True, exclude_none=True)
    merged = dict(base)
    for name, value in own.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = {**base[name], **value} if both else value
    return PodOverlay(merged)


def _timeouts(defaults: Settings, group: Group) -> Timeouts:
    own = group.timeouts.model_dump(exclude_none=True)
    return Timeouts(**{**defaults.timeouts.model_dump(exclude_none=True), **own})
