"""YAML that people write: given this text, that data, that place, that complaint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinekit.errors import UsageError
from machinekit.yamlfile import read, written

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
)
# each merges the one before ten times, and the first to look at them is the merge around
MERGED = "a:\n  <<: [&a0 {k: 1}"
MERGED += "".join(f", &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9)) + "]\n"
VARIABLES = {"N": "3", "EMPTY": "", "TEXT": "a: b"}


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("a: [1, 0x1f, -2, 1.5, true, null, ~, '']", {"a": [1, 31, -2, 1.5, True, None, None, ""]}),
        (
            "a: [yes, no, on, off, 0644, 22:30, 1_000, 29.1.2, 2024-01-01]",
            {"a": ["yes", "no", "on", "off", "0644", "22:30", "1_000", "29.1.2", "2024-01-01"]},
        ),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("a: ${N}", {"a": 3}),
        ("a: '${N}'", {"a": "3"}),
        ("a: x${N}y$$z", {"a": "x3y$z"}),
        ("a: ${EMPTY}", {"a": None}),
        ("a: ${EMPTY:-7}", {"a": 7}),
        ("a: ${NONE:-b}c", {"a": "bc"}),
        ("a: ${TEXT}", {"a": "a: b"}),
        ("1: a", {"1": "a"}),
    ],
)
def test_data(text: str, data: object) -> None:
    assert read(text, "f", VARIABLES).data == data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "f:3:1: 'a' is there twice"),
        ("a:\n\t- b", "f:2:1: not YAML: found character '\\t' that cannot start any token"),
        ("a: [", "f:1:5: not YAML: expected the node content, but found '<stream end>'"),
        ("--- 1\n--- 2", "f:2:1: not YAML: but found another document"),
        ("a: \x00", "f: not YAML: unacceptable character"),
        ("? [a]\n: b", "f:1:3: a key is a text"),
        ("a: $HOME", "f:1:4: $HOME: a variable is written ${NAME}, and a dollar sign $$"),
        ("a: |\n  echo \"$1\" $2", "f:1:4: $1: a variable is written ${NAME}, and a dollar sign $$"),
        ("a: 'x", "f:1:4: not YAML: found unexpected end of stream"),
        ("a:\n  b: ${NONE}", "f:2:6: ${NONE} is not set"),
        ("a: ${NONE:?ask the team}", "f:1:4: ${NONE} is not set: ask the team"),
        ("a: ${EMPTY:?ask the team}", "f:1:4: ${EMPTY} is not set: ask the team"),
        ("a: !!python/name:os.system", "f:1:4: tag:yaml.org,2002:python/name:os.system is no type that counts here"),
        ("a: &a [*a]", "f:1:4: too much of it"),
        ("a: {<<: 3}", "f:1:4: expected a mapping or list of mappings for merging, but found scalar"),
        ("[" * 5000, "f: not YAML: "),
        (BOMB, "too much of it"),
        (MERGED, "f:2:3: too much of it"),
        ("a: &a {<<: *a}", "too much of it"),
        (f"a: {'9' * 5000}", "f:1:4: '9999"),
        (f"a: 0x{'f' * 5000}", "is no number that counts here"),
        ("a: !!int foo", "f:1:4: 'foo' is no number that counts here"),
        ("a: !!float foo", "f:1:4: 'foo' is no number that counts here"),
        ("a: ${NONE:-${N}}", "f:1:4: what stands in for ${NONE} cannot have a variable in it"),
    ],
)  # fmt: skip
def test_what_is_wrong_and_where(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read(text, "f", VARIABLES)
    assert said in error.value.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n\t- b", "YAML is indented with spaces"),
        ("- a: b\n   c: d", "lines of one list or section begin in the same column; quote"),
        ("- a\nb: c", "lines of one list or section begin in the same column; quote"),
        ("a: b: c", "lines of one list or section begin in the same column; quote"),
        ("a: {index}-a", 'a value with { or : in it wants quotes, as in "runner-{index}"'),
        ("{a: a-{index}}", 'a value with { or : in it wants quotes, as in "runner-{index}"'),
        ("a: 'x", "the quote that begins there is not closed"),
        ("a: [", "a bracket or brace is not closed"),
    ],
)
def test_what_to_do_about_text_that_is_not_yaml(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        read(text, "f", VARIABLES)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("text", "yaml"),
    [
        ("hello\nyou\n", "a: |\n  hello\n  you\n"),
        ("no end\nhere", "a: |-\n  no end\n  here\n"),
        ("one", "a: one\n"),
    ],
)
def test_lines_are_written_as_lines(text: str, yaml: str) -> None:
    assert written({"a": text}) == yaml


@given(st.text(alphabet="ab:-#'\"| \n\t$", max_size=40))
def test_what_is_written_is_read_again(text: str) -> None:
    assert read(written({"a": [text]}), "f", {}).data == {"a": [text]}


def test_places() -> None:
    document = read("a:\n  - b: 1\n    c: 2\n", "f", {})
    assert document.at(("a", 0, "c")) == "f:3:8"
    assert document.at(("a", 0, "c"), key=True) == "f:3:5"
    assert document.at(("a", 0, "missing", "below")) == "f:2:5"


@given(st.text(alphabet="ab:-[]{}&*<>!'\"|? \n\t#%@$1", max_size=60))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        read(text, "f", {})
    except UsageError as error:
        assert error.message.startswith("f")
