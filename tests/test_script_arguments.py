"""Arguments of a script: a JSON list or shell words, and where they are wrong."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.script_arguments import MAX_ARGUMENTS, MAX_TEXT, parse_arguments


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", ()),
        ("  \n", ()),
        ("[]", ()),
        ("--lr 0.1  --name 'two words'", ("--lr", "0.1", "--name", "two words")),
        ('a"b c"d \'$HOME\' `date` a#b "\\""', ("ab cd", "$HOME", "`date`", "a#b", '"')),
        (' ["--lr", "0.1", "", "it\'s"] ', ("--lr", "0.1", "", "it's")),
        ("''", ("",)),
    ],
)
def test_both_forms_are_read(text: str, arguments: tuple[str, ...]) -> None:
    assert parse_arguments(text) == arguments


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("--name 'two words", "the quote ' at character 8 is never closed"),
        ('it\'s "a"', "the quote ' at character 3 is never closed"),
        ('"a \\" b', 'the quote " at character 1 is never closed'),
        ("'a' 'b' \"c", 'the quote " at character 9 is never closed'),
        ("a\\", "the backslash at character 2 has nothing behind it"),
        ('["a", "b"', "is not a JSON list: .* at character 10"),
        ("[1]", "argument 1 of the JSON list must be a string"),
        ('["a", ["b"]]', "argument 2 of the JSON list must be a string"),
        ("[" * 5000, "is not a JSON list"),
        ("a\0b", "argument 1 has a NUL character"),
        ('["a", "\\u0000"]', "argument 2 has a NUL character"),
        ("a " * (MAX_ARGUMENTS + 1), f"at most {MAX_ARGUMENTS} arguments"),
        ("a" * (MAX_TEXT + 1), f"at most {MAX_TEXT} characters"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_arguments(text)


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_words_that_were_quoted_come_back(words: list[str]) -> None:
    text = shlex.join(words)
    if not text.lstrip().startswith("["):
        assert parse_arguments(text) == tuple(words)


@given(st.text(st.sampled_from("ab '\"\\\t"), max_size=20))
def test_an_open_quote_is_where_a_closed_one_would_help(text: str) -> None:
    try:
        parse_arguments(text)
    except ValueError as error:
        if "quote" in str(error).partition(";")[0]:
            place = int(str(error).split("character ")[1].split()[0])
            assert text[place - 1] in "'\""
            # What is before it is whole, as far as quotes go.
            shlex.split(text[: place - 1])
