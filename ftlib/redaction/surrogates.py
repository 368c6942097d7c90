"""Surrogates: invented values that keep the type and the form of the original."""

import random
import re
import string
from collections.abc import Callable, Collection
from pathlib import Path

import yaml

_NAMES = yaml.safe_load(Path(__file__).with_name("surrogates.yaml").read_text("utf-8"))
_STREET_WORDS = re.compile(
    r"(?i)\b(?!(?:street|road|avenue|lane|drive|court|place|boulevard|terrace|close|rue|"
    r"calle|via|weg|flat|suite|unit|floor|apartment|box)\b)[^\W\d_]{4,}"
)
_WORD = re.compile(r"[^\W\d_]+")


def _match_case(word: str, original: str) -> str:
    """Write `word` as the original is written: lower, UPPER or Title."""
    if original.islower():
        return word.lower()
    return word.upper() if original.isupper() and len(original) > 1 else word


def _scramble(original: str, rng: random.Random) -> str:
    """Give other digits and letters in the same places, of the same case."""
    kinds = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
    new = []
    for character in original:
        kind = next((kind for kind in kinds if character in kind), None)
        if kind is None and character.isalpha():
            kind = kinds[2] if character.isupper() else kinds[1]
        new.append(rng.choice(kind) if kind else character)
    return "".join(new)


def _name(original: str, rng: random.Random) -> str:
    """Give a name of as many parts."""
    words = list(_WORD.finditer(original))

    def replace(match: re.Match) -> str:
        if len(match.group()) == 1:
            return _scramble(match.group(), rng)
        is_last = len(words) > 1 and match.start() == words[-1].start()
        return _match_case(
            rng.choice(_NAMES["last" if is_last else "first"]), match.group()
        )

    return _WORD.sub(replace, original)


def _place(original: str, rng: random.Random) -> str:
    """Give a place that does not exist."""
    return _match_case(rng.choice(_NAMES["places"]), original)


def _street(original: str, rng: random.Random) -> str:
    """Give another house number and street, of the same kind of street."""
    new = _STREET_WORDS.sub(
        lambda m: _match_case(rng.choice(_NAMES["last"]), m[0]), original
    )
    return re.sub(r"\d+", lambda m: str(rng.randrange(1, 10 ** len(m[0]))), new)


def _mail(original: str, rng: random.Random) -> str:
    """Give an address at a domain that nobody can own."""
    host = rng.choice(_NAMES["places"]).lower()
    return f"{_scramble(original.partition('@')[0], rng)}@{host}.example"


def _url(original: str, rng: random.Random) -> str:
    """Give an address of the same scheme and path form."""
    host = rng.choice(_NAMES["places"]).lower()
    scheme, _, path = re.match(r"(?s)(\w+://)?([^/?#]*)(.*)", original).groups()
    return f"{scheme or ''}{host}.example{_scramble(path, rng)}"


def _ip(original: str, rng: random.Random) -> str:
    """Give an address from the ranges kept for documentation."""
    suffix = re.search(r"(?:%[\w.-]+)?(?:/\d+)?$", original).group()
    if ":" in original:
        return (
            f"2001:db8:{rng.randrange(1, 65536):x}::{rng.randrange(1, 65536):x}{suffix}"
        )
    net = rng.choice(("192.0.2", "198.51.100", "203.0.113"))
    return f"{net}.{rng.randrange(1, 255)}{suffix}"


def _hexadecimal(original: str, rng: random.Random) -> str:
    """Give other hexadecimal digits in the same places."""

    def replace(match: re.Match) -> str:
        digits = "0123456789ABCDEF" if original.isupper() else "0123456789abcdef"
        return rng.choice(digits)

    return re.sub(r"[0-9a-fA-F]", replace, original)


def _card(original: str, rng: random.Random) -> str:
    """Give a number of the same issuer and grouping with a right check digit (Luhn)."""
    new = original[:1] + _scramble(original[1:], rng)
    places = [i for i, character in enumerate(new) if character.isdigit()]
    doubled = [int(new[i]) * (2 if k % 2 else 1) for k, i in enumerate(places[::-1])]
    others = sum(digit // 10 + digit % 10 for digit in doubled[1:])
    return new[: places[-1]] + str(-others % 10) + new[places[-1] + 1 :]


def _iban(original: str, rng: random.Random) -> str:
    """Give an account of the same country with right check digits (ISO 7064)."""
    places = [i for i, character in enumerate(original) if character.isalnum()]
    new = list(original)
    for i in places[4:]:
        new[i] = _scramble(original[i], rng)
    plain = "".join(new[i] for i in places)
    moved = plain[4:] + plain[:2] + "00"
    check = 98 - int("".join(str(int(character, 36)) for character in moved)) % 97
    for i, digit in zip(places[2:4], f"{check:02d}", strict=True):
        new[i] = digit
    return "".join(new)


def _date(original: str, rng: random.Random) -> str:
    """Give another date in the same form."""

    def replace(match: re.Match) -> str:
        digits = match.group()
        if len(digits) == 4:
            return str(rng.randrange(1940, 2006))
        if len(digits) == 8:
            return f"{rng.randrange(1940, 2006)}{rng.randrange(1, 13):02d}15"
        if len(digits) == 2 and digits > "31":
            return str(rng.randrange(40, 100))
        limit = 28 if len(digits) == 2 and digits > "12" else 12
        return (
            f"{rng.randrange(1, min(limit, 10 ** len(digits) - 1) + 1):0{len(digits)}d}"
        )

    return re.sub(r"\d+", replace, original)


def _phone(original: str, rng: random.Random) -> str:
    """Give a number of the same country and grouping."""
    kept = re.match(r"\(?\+? ?\d{0,2}|", original).group() if "+" in original else ""
    kept = kept or original[: len(original) - len(original.lstrip("(0"))]
    return kept + _scramble(original[len(kept) :], rng)


def _key_block(original: str, rng: random.Random) -> str:
    """Give a block with the same first and last line."""
    parts = re.split(r"(-----[A-Z0-9 ]+-----)", original)
    return "".join(p if p.startswith("-----") else _scramble(p, rng) for p in parts)


_MAKERS: dict[str, Callable[[str, random.Random], str]] = {
    "PERSON": _name, "LOCATION": _place, "ORGANIZATION": _place,
    "STREET_ADDRESS": _street, "EMAIL_ADDRESS": _mail, "URL": _url, "IP_ADDRESS": _ip,
    "MAC_ADDRESS": _hexadecimal, "CREDIT_CARD": _card, "IBAN_CODE": _iban,
    "DATE_OF_BIRTH": _date, "PHONE_NUMBER": _phone, "PRIVATE_KEY": _key_block,
}  # fmt: skip


class Surrogates:
    """
    Makes surrogates, and knows those it made.

    The same original gets the same surrogate under one salt, others under another.

    Parameters
    ----------
    salt : str
        A secret of the data set: who has it can test guesses.
    """

    def __init__(self, salt: str) -> None:
        if not salt:
            raise ValueError("the salt is empty: give a secret text of your own")
        self._salt = salt
        self._made: dict[str, tuple[str, str]] = {}

    def make(self, entity_type: str, original: str, texts: Collection[str] = ()) -> str:
        """
        Make the surrogate of an original.

        Parameters
        ----------
        entity_type : str
            Its type.
        original : str
            What stood in the text.
        texts : collection of str
            The texts it stood in: the surrogate occurs in none of them.

        Returns
        -------
        str
            A value of the same type and form.

        Raises
        ------
        ValueError
            When each value of that form is in the texts or is taken.

        Examples
        --------
        >>> made = Surrogates("a salt").make("CREDIT_CARD", "4111 1111 1111 1111")
        >>> made[0], len(made), made == "4111 1111 1111 1111"
        ('4', 19, False)
        """
        present = "\n".join((original, *texts)).casefold()
        maker = _MAKERS.get(entity_type, _scramble)
        for attempt in range(1000):
            rng = random.Random(f"{self._salt}\0{entity_type}\0{original}\0{attempt}")
            new = maker(original, rng)
            owner = self._made.get(new, (entity_type, original))
            if owner == (entity_type, original) and new.casefold() not in present:
                self._made[new] = owner
                return new
        raise ValueError(
            f"no surrogate is left for a {entity_type} of {len(original)} characters: "
            "use placeholders"
        )

    def find(self, text: str) -> list[tuple[int, int]]:
        """
        Find the surrogates of this object in a text.

        Parameters
        ----------
        text : str
            Where to look.

        Returns
        -------
        list of (int, int)
            Where each starts and ends.

        Examples
        --------
        >>> surrogates = Surrogates("a salt")
        >>> name = surrogates.make("PERSON", "Ana")
        >>> surrogates.find(f"to {name}") == [(3, 3 + len(name))]
        True
        """
        return [
            match.span()
            for new in self._made
            if new in text
            for match in re.finditer(rf"(?<!\w){re.escape(new)}(?!\w)", text)
        ]
