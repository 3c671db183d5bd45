"""A matrix stands for the full product of its axes, and every point knows what it is."""

import itertools
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.matrix.point import Point, matrix_digest
from tests.fakes.matrix import IMAGE, group, load, point, points

NAMES = st.from_regex(r"[a-z]{1,8}(-[a-z]{1,8}){0,2}", fullmatch=True).filter(
    lambda name: name not in {"model", "host", "port", "uds", "headless", "config", "tp", "pp", "dp", "q"}
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.from_regex(r"[a-z0-9_./-]{1,12}", fullmatch=True),
)


@given(
    st.dictionaries(NAMES, st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True), max_size=3),
    st.integers(1, 3),
)
@settings(max_examples=25)
def test_a_group_expands_to_the_full_product_of_its_axes(axes: dict[str, list[int]], models: int) -> None:
    """No combination is missing and none stands twice."""
    found = points(group(model=[f"org/m{n}" for n in range(models)], arguments=axes))
    expected = {(f"org/m{n}", *values) for n in range(models) for values in itertools.product(*axes.values())}
    assert {(p.model, *(p.arguments[name] for name in axes)) for p in found} == expected
    assert len(found) == len(expected) == models * math.prod(len(values) for values in axes.values())


@given(
    st.dictionaries(NAMES, st.lists(SCALARS, min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.sampled_from(["org/Model_A", "b/MODEL b", "b/ü"]), min_size=1, max_size=3, unique=True),
)
@settings(max_examples=60)
def test_ids_are_unique_and_safe_for_a_shell(axes: dict[str, list[Any]], models: list[str]) -> None:
    """Every id is of lower-case letters, digits, dots and dashes; where values cannot give that, loading says so."""
    try:
        found = points(group(model=models, arguments=axes))
    except UsageError as error:
        refusal = error.message
    else:
        ids = [p.id for p in found]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in ids)
        return
    assert "twice" in refusal or "would be called" in refusal


@pytest.mark.parametrize("name", ["O", "Enable-Thing"])
@pytest.mark.parametrize("values", [[1, 2], [True, False]])
def test_an_argument_with_capital_letters_still_gives_a_plain_id(name: str, values: list[Any]) -> None:
    """Ids stay lower case whatever the argument is called."""
    for p in points(group(arguments={name: values})):
        assert re.fullmatch(r"[a-z0-9.-]+", p.id)


def test_exclude_takes_points_out_and_include_adds_points() -> None:
    """Both are about this group's points only."""
    found = points(
        group(
            arguments={"tp": [1, 2], "max-model-len": [100, 200]},
            exclude=[{"tp": 1, "max-model-len": [200]}],
            include=[{"tp": 4, "max-model-len": [300, 400], "seed": 7}],
        )
    )
    shapes = [(p.argument("tensor-parallel-size"), p.argument("max-model-len"), p.argument("seed")) for p in found]
    assert shapes == [(1, 100, None), (2, 100, None), (2, 200, None), (4, 300, 7), (4, 400, 7)]


def test_null_in_an_axis_leaves_the_argument_to_vllm() -> None:
    """`null` stands for vLLM's own default."""
    found = points(group(arguments={"dtype": [None, "half"]}))
    assert [p.argv for p in found] == [["org/model"], ["org/model", "--dtype=half"]]


@pytest.mark.parametrize("value", [1, 1.0, 0.9, 0.01, "0.9", "0.90", ".9", "9e-1"])
def test_a_utilization_may_be_written_as_any_number_from_0_to_1(value: float | str) -> None:
    """YAML itself takes 9e-1 for a word, and vLLM reads it as a number."""
    (found,) = points(group(arguments={"gpu-memory-utilization": [value]}))
    assert float(str(found.arguments["gpu-memory-utilization"])) == float(value)


def test_a_list_in_the_list_is_one_value_of_several_words() -> None:
    """An argument that takes several words is written as a list inside the axis."""
    (only,) = points(group(arguments={"middleware": [["a", "b"]]}))
    assert only.argv == ["org/model", "--middleware", "a", "b"]


def test_the_version_is_an_axis_through_the_image() -> None:
    """Each image gives a point with its vLLM version; a tag without a version has none."""
    images = ["vllm/vllm-openai:v0.11.0", "vllm/vllm-openai:v0.19.0", "registry:5000/x/vllm:nightly"]
    found = points(group(), image=images)
    assert [p.vllm_version for p in found] == ["0.11.0", "0.19.0", None]
    assert [p.image for p in found] == images


def test_a_groups_own_values_win_over_the_defaults() -> None:
    """Mappings are merged key by key, single values replaced."""
    (only,) = points(
        group(
            arguments={"seed": 2},
            env={"B": "group"},
            timeouts={"startupSeconds": 60},
            pod={"nodeSelector": {"b": "2"}},
            cache={"claimName": "group-cache"},
        ),
        arguments={"seed": 1, "dtype": "half"},
        env={"A": "default", "B": "default"},
        timeouts={"startupSeconds": 50, "probeSeconds": 40},
        pod={"nodeSelector": {"a": "1"}, "schedulerName": "s"},
        cache={"claimName": "default-cache"},
        huggingFaceToken={"secretName": "token"},
    )
    assert only.arguments == {"seed": 2, "dtype": "half"}
    assert only.env == {"A": "default", "B": "group"}
    assert (only.timeouts.startup_seconds, only.timeouts.probe_seconds) == (60, 40)
    assert only.overlay.fields == {"nodeSelector": {"a": "1", "b": "2"}, "schedulerName": "s"}
    assert only.cache_claim == "group-cache"
    assert only.token_secret == ("token", "HF_TOKEN")


@pytest.mark.parametrize(
    ("vendor", "resource", "count"),
    [
        ("nvidia", "nvidia.com/gpu", 12),
        ("amd", "amd.com/gpu", 12),
        ("ascend", "huawei.com/Ascend910", 12),
        ("cpu", None, 0),
    ],
)
def test_devices_follow_from_vendor_and_parallel_sizes(vendor: str, resource: str | None, count: int) -> None:
    """A server takes tensor x pipeline x data parallel size devices of its vendor; vLLM on CPU takes none."""
    accelerator = point(accelerator={"vendor": vendor}, arguments={"tp": 2, "pp": 3, "dp": 2}).accelerator
    assert (accelerator.resource, accelerator.count) == (resource, count)


def test_a_groups_vendor_does_not_inherit_the_resource_of_another_vendor() -> None:
    """The default's special resource name belongs to the default's vendor."""
    (only,) = points(
        group(accelerator={"vendor": "amd"}), accelerator={"vendor": "nvidia", "resource": "nvidia.com/mig-1g.10gb"}
    )
    assert only.accelerator.resource == "amd.com/gpu"


# Identity: equal configuration, equal hash, however it was written.

SPELLINGS = [
    "tp",
    "-tp",
    "--tensor_parallel_size",
    "tensor_parallel_size",
    "tensor-parallel-size",
    "--tensor-parallel-size",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_argument_may_be_spelled_as_vllm_or_people_spell_it(spelling: str) -> None:
    """Every spelling is the same argument of the same configuration."""
    found = point(arguments={spelling: 2})
    assert found.argv == ["org/model", "--tensor-parallel-size=2"]
    assert found.hash == point(arguments={"tensor-parallel-size": 2}).hash


def _spell(name: str, style: int) -> str:
    return [name, name.replace("-", "_"), f"--{name}", "--" + name.replace("-", "_")][style]


@given(
    st.dictionaries(NAMES, SCALARS, max_size=5),
    st.data(),
)
@settings(max_examples=50)
def test_equal_configurations_have_equal_hashes_however_they_are_written(
    arguments: dict[str, Any], data: st.DataObject
) -> None:
    """Order, spelling, 1.0 for 1, and a value's place in defaults or group do not change what runs."""
    names = data.draw(st.permutations(list(arguments)))
    base: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name in names:
        value = arguments[name]
        if type(value) is int and abs(value) < 10**6 and data.draw(st.booleans()):
            value = float(value)
        target = base if data.draw(st.booleans()) else own
        target[_spell(name, data.draw(st.integers(0, 3)))] = value
    if data.draw(st.booleans()):
        own["tp"] = 1
    plain = point(arguments=arguments)
    (written,) = points(group(name="other", label="Other", arguments=own), arguments=base)
    assert written.hash == plain.hash


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"seed": 1}, {"seed": 1.0}),
        ({"tp": 1}, {}),
        ({"tp": 1, "pp": 1, "dp": 1}, {}),
        ({"tp": "1"}, {}),
        ({"tp": "2"}, {"tp": 2}),
        ({"seed": "5"}, {"seed": 5}),
        ({"hf-overrides": {"a": 1, "b": 2}}, {"hf-overrides": {"b": 2.0, "a": 1}}),
        ({"no-enable-prefix-caching": True}, {"enable-prefix-caching": False}),
        ({"no-enable-prefix-caching": False}, {"enable-prefix-caching": True}),
        ({"dtype": None}, {}),
    ],
)
def test_two_ways_to_write_one_configuration(left: dict[str, Any], right: dict[str, Any]) -> None:
    """What gives `vllm serve` the same settings has the same hash."""
    assert point(arguments=left).hash == point(arguments=right).hash


def test_a_negated_flag_is_never_negated_twice() -> None:
    """vLLM has `--no-enable-x`, and no `--no-no-enable-x`."""
    assert not [
        word for word in point(arguments={"no-enable-prefix-caching": False}).argv if word.startswith("--no-no-")
    ]


def test_names_expectations_and_limits_do_not_change_the_hash() -> None:
    """A group may be renamed or given more time without its finished points running again."""
    renamed = point(name="b", label="B", expect="oom.load", timeouts={"startupSeconds": 5})
    assert renamed.hash == point().hash


@given(st.dictionaries(NAMES, SCALARS, max_size=3), st.dictionaries(NAMES, SCALARS, max_size=3))
@settings(max_examples=60)
def test_different_argument_vectors_have_different_hashes(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Points share a hash exactly when they start vLLM with the same arguments."""
    one, two = point(arguments=left), point(arguments=right)
    assert (one.hash == two.hash) == (one.argv == two.argv)


CHANGES: dict[str, dict[str, Any]] = {
    "model": {"model": "org/other"},
    "image": {"image": "vllm/vllm-openai:v0.12.0"},
    "argument": {"arguments": {"seed": 1}},
    "boolean": {"arguments": {"enforce-eager": True}},
    "boolean off": {"arguments": {"enforce-eager": False}},
    "boolean as text": {"arguments": {"enforce-eager": "true"}},
    "tensor parallel size": {"arguments": {"tp": 2}},
    "env": {"env": {"A": "1"}},
    "pod": {"pod": {"nodeSelector": {"a": "b"}}},
    "product": {"accelerator": {"product": "NVIDIA-L4"}},
    "vendor": {"accelerator": {"vendor": "amd"}},
}


def test_every_change_of_what_runs_changes_the_hash() -> None:
    """Model, image, arguments, environment, pod and accelerator are all part of a point's identity."""
    found: dict[str, Point] = {"plain": point()}
    for name, fields in CHANGES.items():
        found[name] = point(**{"model": "org/model", **fields})
    assert len({p.hash for p in found.values()}) == len(found)


def test_a_matrix_is_known_by_its_points_in_whatever_order() -> None:
    """Groups may be moved without losing the run."""
    one, two = group("a", "m1"), group("b", "m2")
    assert matrix_digest(points(one, two)) == matrix_digest(points(two, one))
    assert matrix_digest(points(one)) != matrix_digest(points(one, two))


def test_the_name_of_the_matrix_is_kept() -> None:
    """Tables are headed by it."""
    assert load(group()).name == "m"
    assert point().image == IMAGE
