"""Matching: whether a response is right, valid, or right in one field."""

from collections.abc import Mapping, Sequence
from typing import Any

from ftlib.scoring.score import Score
from ftlib.scoring.statistics import score_share
from ftlib.store import parse_row


def parse_json(text: str) -> dict[str, Any] | None:
    """
    Give the JSON object that a response is, or None.

    Strict: nothing before or after it, so prose around an object counts as wrong.

    Parameters
    ----------
    text : str
        The response.

    Returns
    -------
    dict or None
        The object, when the whole text is one.

    Examples
    --------
    >>> parse_json('{"a": 1}'), parse_json('Here: {"a": 1}')
    ({'a': 1}, None)
    """
    try:
        return parse_row(text.encode("utf-8"))
    except ValueError:  # BadRowError among them
        return None


def _tag(value: Any) -> Any:
    """Tell true from 1, which Python holds to be equal."""
    if isinstance(value, dict):
        return {name: _tag(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_tag(part) for part in value]
    return (value,) if isinstance(value, bool) else value


def match_exactly(responses: Sequence[str], references: Sequence[str]) -> list[bool]:
    """
    Say of each response whether it equals its reference.

    Two JSON objects are equal when their keys and values are; other texts when they
    are the same but for white space at the ends.

    Parameters
    ----------
    responses : sequence of str, length n
        What the model said.
    references : sequence of str, length n
        What it should have said.

    Returns
    -------
    list of bool, length n
        Whether each is right.

    Examples
    --------
    >>> match_exactly(['{"a":1, "b":2}', "Rome "], ['{"b": 2, "a": 1}', "Rome"])
    [True, True]
    """

    def equal(response: str, reference: str) -> bool:
        wanted = parse_json(reference)
        if wanted is not None:
            return _tag(parse_json(response)) == _tag(wanted)
        return response.strip() == reference.strip()

    return [equal(r, w) for r, w in zip(responses, references, strict=True)]


def match_schema(responses: Sequence[str], schema: Mapping[str, Any]) -> list[bool]:
    """
    Say of each response whether it is JSON that is valid under a JSON Schema.

    Parameters
    ----------
    responses : sequence of str, length n
        What the model said.
    schema : mapping
        A JSON Schema of an object, draft 2020-12.

    Returns
    -------
    list of bool, length n
        Whether each is valid.

    Raises
    ------
    jsonschema.SchemaError
        When the schema itself is not valid.

    Examples
    --------
    >>> match_schema(['{"a": 1}', "{}", "a"], {"required": ["a"]})
    [True, False, False]
    """
    # Here, for it takes a second to import, and few notebooks have a schema.
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    parsed = [parse_json(response) for response in responses]
    return [value is not None and validator.is_valid(value) for value in parsed]


def match_fields(
    responses: Sequence[str], references: Sequence[str]
) -> list[dict[str, bool]]:
    """
    Say of each response which of its reference's fields it has right.

    Parameters
    ----------
    responses : sequence of str, length n
        What the model said; one that is no JSON object is wrong in each field.
    references : sequence of str, length n
        JSON objects.

    Returns
    -------
    list of dict of str to bool, length n
        By field of the reference, in its order. A missing field is not null.

    Raises
    ------
    ValueError
        Naming the first reference that is no JSON object.

    Examples
    --------
    >>> match_fields(['{"a": 1, "b": 3}'], ['{"a": 1, "b": 2}'])
    [{'a': True, 'b': False}]
    """
    rows = []
    for i, (response, reference) in enumerate(zip(responses, references, strict=True)):
        given, wanted = parse_json(response) or {}, parse_json(reference)
        if wanted is None:
            raise ValueError(f"reference {i} is no JSON object: give one in each row")
        rows.append(
            {
                name: name in given and _tag(given[name]) == _tag(value)
                for name, value in wanted.items()
            }
        )
    return rows


def score_arms(
    responses: Mapping[str, Sequence[str]], references: Sequence[str]
) -> list[Score]:
    """
    Score how often each of several arms says exactly what it should.

    Parameters
    ----------
    responses : mapping of str to sequence of str, length n
        By arm, what it said.
    references : sequence of str, length n
        What each should have said.

    Returns
    -------
    list of Score
        One an arm, named after it.

    Examples
    --------
    >>> print(*score_arms({"base": ["Rome"] * 40}, ["Rome"] * 40))
    base 1.00 [0.91, 1.00], n=40
    """
    return [
        score_share(arm, match_exactly(said, references))
        for arm, said in responses.items()
    ]


def score_fields(responses: Sequence[str], references: Sequence[str]) -> list[Score]:
    """
    Score each field of JSON responses against their references.

    Parameters
    ----------
    responses : sequence of str, length n
        What the model said; one that is no JSON is wrong in each field.
    references : sequence of str, length n
        JSON objects, all with the same keys.

    Returns
    -------
    list of Score
        One a field, in the order of the first reference's keys.
    """
    rows = match_fields(responses, references)
    return [score_share(name, [row[name] for row in rows]) for name in rows[0]]
