"""Recognizers that need more than a pattern: phones, tables, cards, IP addresses."""

import ipaddress
import re
from typing import Any

import phonenumbers
from presidio_analyzer import LocalRecognizer, Pattern, RecognizerResult
from presidio_analyzer.predefined_recognizers import CreditCardRecognizer, IpRecognizer

_PHONE = re.compile(
    r"(?:(?<![^\W_])(?<!\d )|(?<![^\W_])(?=[+(\[0])|(?=\+))(?<![+@#])(?<!\d[./:-])"
    r"(?!(?<=\d,)\d{3}(?!\d|[ .-]\d))[(\[]?(?:\+ ?)?[(\[]?"
    r"\d(?:[ ()\[\]./\t·•—_-]{0,3}\d){5,17}"
    r"(?:[ ,;]{0,3}(?:ext(?:ension|n)?|x|\#|poste|durchwahl|dw|option|ramal|int)"
    r"[.:= ]{0,2}\d{1,6})?"
    r"(?![^\W_]|[.:-]\d)",
    re.IGNORECASE,
)
_PHONE_WORDS = re.compile(
    r"phone|mobil|(?<![a-z])t[eé]l|whats ?app|handy|telegram|(?<![a-z])(?:fax|cell|sms|"
    r"ph|mob|fon|gsm|call(?:ed|er|ing|s|back)?|dial(?:led|ed|ing)?|ring|rang|hotline|"
    r"m[oó]vil|portable|celular|ligar|llamar|appel\w*|anruf\w*|r[uü]ckruf|voicemail|"
    r"pager|msisdn|viber|signal|landline|switchboard|fijo|fixe|puh|tlf|tfn|nr|sip)"
    r"(?![a-z])|(?<![a-z])[tmphfc] ?[.:]",
    re.IGNORECASE,
)
# With these, a number needs seven digits.
_WEAK_PHONE_WORDS = re.compile(
    r"(?<![a-z])(?<!order )(?<!voice )(?<!icket )(?<!serial )(?<!case )"
    r"(?:reach|contact(?:ed|s)?|text(?:ed)?|numbers?|direct|desk|home|work|"
    r"office|nummer|n[uú]m\w*|line|answer(?:ed)?|tried|emergency|msg|message)(?![a-z])",
    re.IGNORECASE,
)
# North American, with brackets, or with a zero in front: nothing else is written so.
_PHONE_SHAPE = re.compile(
    r"(?:(?:00)?1[ .-]{1,3})?(?:[(\[]\d{3}[)\]][ .-]{0,3}|\d{3}([ ./·•—_-]{1,3}))"
    r"\d{3}[ .·•—_-]{1,3}\d{4}(?!\d)"
    r"|(?:\+|00)?[\d ]{0,5}\(0?\d{1,5}\)[ -]?\d[\d /.-]{4,13}"
    r"|\(?0[1-9]\d{0,4}\)?[ /-]{1,3}\d{2,8}(?:[ -]\d{2,4}){0,4}(?!\d)"
    r"|00[1-9]\d{0,2}[ -.]\d[\d .-]{5,14}"
)
_NO_PHONE = re.compile(
    r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})(?: \d{2,4})?$"
    r"|\d{1,4}(?:\.\d{1,3}){3}$|\d{4}\.\d{4}\.\d{4}$|\d{4}([ -])\d{4}\1\d{4}\1"
    r"|\d{5} \d{5} \d{5}|\d{1,2}\.\d+ \d+\."
)
_REGIONS = (
    "GB",
    "FR",
    "DE",
    "ES",
    "IT",
    "NL",
    "AU",
    "IN",
    "BR",
    "JP",
    "PL",
    "SE",
    "CH",
)


class PhoneRecognizerOfManyRegions(LocalRecognizer):
    """
    Find phone numbers of any country: by a plus, a label, a shape or a plan.

    Parameters
    ----------
    **settings
        As Presidio's `LocalRecognizer` takes them.
    """

    def __init__(self, **settings: Any):
        super().__init__(["PHONE_NUMBER"], **settings)

    def load(self) -> None:
        """Load nothing: the numbering plans come with phonenumbers."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: object = None
    ) -> list[RecognizerResult]:
        """
        Find the phone numbers of a text.

        Parameters
        ----------
        text : str
            Where to look.
        entities : list of str
            The types asked for.
        nlp_artifacts : object
            Not used.

        Returns
        -------
        list of RecognizerResult
            One a number, its extension included.
        """
        found = [
            RecognizerResult("PHONE_NUMBER", match.start(), match.end(), score)
            for match in _PHONE.finditer(text)
            if (score := _score_phone(text, match))
        ]
        # A number may run over the end of a line: then it must be in a plan.
        for match in _PHONE.finditer(text.replace("\n", " ")) if "\n" in text else ():
            start, end = match.span()
            if "\n" in text[start:end] and _is_in_a_plan(match.group()):
                found.append(RecognizerResult("PHONE_NUMBER", start, end, 0.6))
        return found


def _is_in_a_plan(number: str) -> bool:
    """Say whether a country's numbering plan has a number."""
    regions = _REGIONS if number[0] in "0([" else ("US", "IN")
    for region in (None,) if number[0] == "+" else regions:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def _score_phone(text: str, match: re.Match) -> float:
    """Say how sure it is that a run of digits is a phone number."""
    number = match.group()
    n_digits = sum(character.isdigit() for character in number)
    if number.lstrip("([").startswith("+"):
        return 0.9 if n_digits >= 7 else 0.0
    if _NO_PHONE.match(number):
        return 0.0
    before = text[max(0, match.start() - 60) : match.start()]
    if _PHONE_WORDS.search(before):
        return 0.8
    if n_digits >= 9 and _PHONE_SHAPE.match(number):
        return 0.7
    around = before + text[match.end() : match.end() + 40]
    if n_digits >= 7 and _WEAK_PHONE_WORDS.search(before):
        return 0.7
    if n_digits >= 9 and _PHONE_WORDS.search(around):
        return 0.6
    groups = len(re.findall(r"\d+", number))
    if n_digits >= 9 and (groups > 2 or number[0] == "0"):
        return 0.6 if number[0] in "0([" and _is_in_a_plan(number) else 0.0
    return 0.0


# What the heading of a column says about its cells.
_HEADINGS = {
    "PASSWORD": r"pass(?:word|wd|phrase|code)?|pwd|pw|secret|kennwort|passwort|senha",
    "USERNAME": r"user(?: ?name| ?id)?|login|account|owner|actor|benutzer(?:name)?",
    "DATE_OF_BIRTH": r"dob|d o b|birth ?da(?:te|y)|date of birth|born|geburtsdatum",
    "PHONE_NUMBER": r"(?:tele)?phone(?: ?n\w+)?|mobile|cell|tel|fax|telefon|handy",
    "STREET_ADDRESS": r"addr(?:ess)?(?: ?line)? ?\d?|street|adresse|stra(?:ß|ss)e",
    "POSTCODE": r"zip(?: ?code)?|post(?:al)? ?code|plz|cep",
    "EMPLOYEE_ID": r"emp(?:loyee)?(?: ?(?:id|no|number))|staff (?:id|no)",
    "NATIONAL_ID": r"national id|ssn|tax id|id (?:number|card)",
    "BANK_ACCOUNT": r"account (?:no|number)|iban|konto",
}
_HEADING = re.compile(
    "(?:[a-z]{1,12} )?(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in _HEADINGS.items())
    + ")"
)
_QUOTED = re.compile(r'"[^"\n]*"')


class ColumnRecognizer(LocalRecognizer):
    """
    Find the cells of a table whose column's heading says what they are.

    Parameters
    ----------
    **settings
        As Presidio's `LocalRecognizer` takes them.
    """

    def __init__(self, **settings: Any):
        super().__init__(list(_HEADINGS), **settings)

    def load(self) -> None:
        """Load nothing: the headings are above."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: object = None
    ) -> list[RecognizerResult]:
        """
        Find the cells under known headings; the table may stand within other text.

        Parameters
        ----------
        text : str
            Where to look.
        entities : list of str
            The types asked for.
        nlp_artifacts : object
            Not used.

        Returns
        -------
        list of RecognizerResult
            One a cell.
        """
        found, kinds, mark, position = [], [], ",", 0
        for line in text.splitlines(keepends=True):
            cells = _QUOTED.sub(lambda m: "_" * len(m.group()), line).split(mark)
            if len(cells) == len(kinds):
                start = position
                for cell, kind in zip(cells, kinds, strict=True):
                    value = text[start : start + len(cell)]
                    if kind and any(character.isalnum() for character in value):
                        a = start + len(value) - len(value.lstrip())
                        b = start + len(value.rstrip())
                        found.append(RecognizerResult(kind, a, b, 0.7))
                    start += len(cell) + 1
            else:
                mark = max(",;\t|", key=line.count)
                names = [re.sub(r"[\W_]+", " ", cell) for cell in line.split(mark)]
                hits = [_HEADING.fullmatch(name.strip().lower()) for name in names]
                kinds = [hit and hit.lastgroup for hit in hits] if any(hits) else []
                kinds = kinds if len(kinds) > 1 else []
            position += len(line)
        return found


class CardNumberRecognizer(CreditCardRecognizer):
    """Find card numbers of 13 to 19 digits, in any grouping, by their check digit."""

    PATTERNS = [
        Pattern(
            "card",
            r"(?<![\w.-])(?:4|5[0-8]|6\d|3[04-9]|2[2-7]|9\d)"
            r"(?:[ -]?\d){11,18}(?![\w-])",
            0.3,
        )
    ]


# 10.0.0.5 is also written 10[.]0[.]0[.]5 and 10 .0 .0 .5
_DOT = r" ?(?:\.|[\[({](?:\.|dot)[\])}]) ?"


class IpAddressRecognizer(IpRecognizer):
    """Find IP addresses of both versions, but neither versions nor loopback."""

    PATTERNS = [
        Pattern(
            "IPv4",
            r"(?<![\w.-])(?<!\bv\.? ?|\bver\. ?|\bversion:? |\brelease |\bbuild )"
            rf"(?:\d{{1,3}}{_DOT}){{3}}\d{{1,3}}"
            r"(?:/\d{1,2}|-(?:\d{1,3}\.){3}\d{1,3}|\.\d{1,5}(?= ?[>:]))?(?!\w|\.\d|-\w)"
            r"|(?<=\bip-)\d{1,3}(?:-\d{1,3}){3}(?!\w)",
            0.6,
        ),
        Pattern(
            "IPv6",
            r"(?<![\w.])(?<![0-9a-f:]:)(?:(?:[0-9a-f]{1,4}:){1,7}:(?![0-9a-f:])"
            r"|(?:[0-9a-f]{0,4}:){2,7}(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9a-f]{1,4}))"
            r"(?:%[\w.-]{1,16})?(?:/\d{1,3})?(?![\w])",
            0.6,
        ),
    ]

    def validate_result(self, pattern_text: str) -> bool:
        """
        Say whether a match is an address that can belong to somebody.

        Parameters
        ----------
        pattern_text : str
            The match.

        Returns
        -------
        bool
            False for no address, loopback, any address, and net masks.
        """
        plain = re.sub(r"%[\w.-]+", "", pattern_text).split("/")[0]
        if ":" not in plain:
            plain = ".".join(re.findall(r"\d+", plain)[:4])
        try:
            address = ipaddress.ip_address(re.sub(r"\b0+(?=\d)", "", plain))
        except ValueError:
            return False
        if address.version == 6 and not re.search(r"\d", plain):
            return plain.count(":") > 3  # std::dead is code
        return not (
            address.is_loopback or address.is_unspecified or plain.startswith("255.")
        )

    def invalidate_result(self, pattern_text: str) -> bool:
        """
        Leave the decision to `validate_result`.

        Parameters
        ----------
        pattern_text : str
            The match.

        Returns
        -------
        bool
            False.
        """
        return False
