"""YAML from elsewhere: nothing runs, nothing grows."""

import time

import pytest

pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'edge_dsac[compile]'")

from edge_dsac.bundle.safe_yaml import MOST_BYTES, YamlError, load_yaml


def test_plain_settings_come_as_they_are():
    text = "a: 1\nb: [0.5, -2]\nc: {d: text, e: null}\nbase: &gains [1, 2]\nagain: *gains\n"
    assert load_yaml(text, "x.yaml") == {"a": 1, "b": [0.5, -2], "c": {"d": "text", "e": None}, "base": [1, 2], "again": [1, 2]}


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir",
        "!!python/object/new:pathlib.Path",
        "!!python/name:os.system",
        "!!python/object:os.system",
        "!run",
    ],
)
def test_a_document_with_an_object_is_refused_and_nothing_runs(tmp_path, tag):
    canary = tmp_path / "canary"
    with pytest.raises(YamlError, match=r"x.yaml: not plain YAML: could not determine a constructor"):
        load_yaml(f"num_obs: 3\nevil: {tag} [{canary}]\n", "x.yaml")
    assert not canary.exists()


def test_the_canary_would_have_died_with_an_unsafe_loader(tmp_path):
    import yaml

    canary = tmp_path / "canary"
    yaml.unsafe_load(f"!!python/object/apply:os.mkdir [{canary}]")
    assert canary.exists()


def test_a_billion_laughs_are_refused_at_once():
    lines = ['a0: &a0 ["lol"]'] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    begin = time.perf_counter()
    with pytest.raises(YamlError, match="more than 100000 values once its aliases are written out"):
        load_yaml("\n".join(lines), "x.yaml")
    assert time.perf_counter() - begin < 1.0


REFUSED = {
    "too long": ("a: " + "x" * MOST_BYTES, "at most 1000000 bytes"),
    "within itself": ("a: &a [*a]", "an alias lies within itself"),
    "deep": ("a: " + "[" * 50 + "]" * 50, "nested deeper than 40"),
    "deeper than Python": ("a:\n" + " [\n" * 5000, "nested deeper than 40"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", r"x.yaml:3: the key 'a' is there twice"),
    "a list": ("[1, 2]", "expected a mapping of settings, got list"),
    "nothing": ("", "expected a mapping of settings, got NoneType"),
    "two documents": ("a: 1\n---\na: 2\n", "not plain YAML"),
    "no YAML": ("a: [1, 2\nb: }", "not plain YAML"),
    "a list as key": ("? [1]\n: 2\n", "not plain YAML"),
    "a day that is none": ("a: 2024-99-99\n", "not plain YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_documents_are_refused_with_the_reason(case):
    text, said = REFUSED[case]
    with pytest.raises(YamlError, match=said) as caught:
        load_yaml(text, "x.yaml")
    assert caught.value.refused
    assert "\n" not in str(caught.value)
