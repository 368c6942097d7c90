"""Recognizers that need more than a pattern: phones, card numbers, IP addresses."""

import ipaddress
import re
from typing import Any

import phonenumbers
from presidio_analyzer import LocalRecognizer, Pattern, RecognizerResult
from presidio_analyzer.predefined_recognizers import CreditCardRecognizer, IpRecognizer

_PHONE = re.compile(
    r"(?<![\w+@#])(?<!\d[.,/:=-])(?<!\d )(?:\+ ?|\()?\(?\d(?:[ ()./\t-]{0,3}\d){5,17}"
    r"(?:[ ,;]{0,3}(?:ext(?:ension|n)?|x|\#|poste|durchwahl|option)\.?:? ?\d{1,6})?"
    r"(?![\w]|[.:-]\d)",
    re.IGNORECASE,
)
_PHONE_WORDS = re.compile(
    r"\b(?:tel|tele?phone|phone|ph|mobile|mob|cell|fax|call(?:ed|er|ing|s)?|"
    r"dial(?:led)?|ring|rang|reach|contact|whats ?app|sms|text(?:ed)?|hotline|handy|"
    r"landline|telefon\w*|t[eé]l|tel[eé]fono|m[oó]vil|portable|celular|voicemail|"
    r"pager|msisdn|viber|signal|number is|direct|switchboard|desk|home|work|"
    r"office|phone_?\w{0,10})\b",
    re.IGNORECASE,
)
# North American, with brackets, or with a zero in front: nothing else is written so.
_PHONE_SHAPE = re.compile(
    r"(?:(?:00)?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}([ .-]))\d{3}[ .-]\d{4}(?!\d)"
    r"|(?:\+|00)?[\d ]{0,5}\(0?\d{1,5}\)[ -]?\d[\d /.-]{4,13}"
    r"|\(?0[1-9]\d{0,4}\)?[ /-]{1,3}\d{2,8}(?:[ -]\d{2,4}){0,4}(?!\d)"
    r"|00[1-9]\d{0,2}[ -.]\d[\d .-]{5,14}"
)
_NO_PHONE = re.compile(
    r"(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{2,4})(?: \d{2,4})?$"
    r"|\d{1,4}(?:\.\d{1,3}){3}$|\d{4}\.\d{4}\.\d{4}$|\d{4}([ -])\d{4}\1\d{4}\1"
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
        return [
            RecognizerResult("PHONE_NUMBER", match.start(), match.end(), score)
            for match in _PHONE.finditer(text)
            if (score := _score_phone(text, match))
        ]


def _score_phone(text: str, match: re.Match) -> float:
    """Say how sure it is that a run of digits is a phone number."""
    number = match.group()
    n_digits = sum(character.isdigit() for character in number)
    if number.lstrip("(").startswith("+"):
        return 0.9 if n_digits >= 7 else 0.0
    if _NO_PHONE.match(number):
        return 0.0
    if _PHONE_WORDS.search(text[max(0, match.start() - 40) : match.start()]):
        return 0.8
    if n_digits >= 9 and _PHONE_SHAPE.match(number):
        return 0.7
    if n_digits < 9 or len(re.findall(r"\d+", number)) < 3:
        return 0.0
    for region in _REGIONS if number[0] in "0(" else ():
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number, region)):
                return 0.6
        except phonenumbers.NumberParseException:
            continue
    return 0.0


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


class IpAddressRecognizer(IpRecognizer):
    """Find IP addresses of both versions, but neither versions nor loopback."""

    PATTERNS = [
        Pattern(
            "IPv4",
            r"(?<![\w.-])(?<!\bv\.? ?|\bver\. ?|\bversion:? |\brelease |\bbuild )"
            r"(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?!\w|\.\d|-\w)",
            0.6,
        ),
        Pattern(
            "IPv6",
            r"(?<![\w:.])(?:(?:[0-9a-f]{1,4}:){1,7}:(?![0-9a-f:])"
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
