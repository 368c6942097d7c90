"""The labelled sets that redaction is measured on: seven files of `data/pii/`.

`python -m data.build pii` writes them, the same bytes for the same seed. The words
stand in `data/build/pii_*.txt`: names of 60 origins, templates of each set, and
hand-written technical prose without personal data. A template's slots record their
spans as they are filled, so the labels are exact. Nothing here is shared with the text
that the redactor is trained on. Check digits are valid, people are composed, phone
numbers lie in ranges kept for fiction or are a library's examples, and no secret opens
anything.
"""

import base64
import json
import re
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

SEED = 0
FOLDER = Path(__file__).parents[1] / "pii"
ROWS = {"prose": 200, "logs": 220, "contracts": 180, "hostile": 240, "secrets": 220}
FORMATS = {
    "EMAIL_ADDRESS": 14,
    "PHONE_NUMBER": 22,
    "IP_ADDRESS": 14,
    "MAC_ADDRESS": 10,
    "URL": 14,
    "CREDIT_CARD": 18,
    "IBAN_CODE": 16,
    "US_SSN": 8,
    "DATE_OF_BIRTH": 12,
    "STREET_ADDRESS": 8,
    "POSTCODE": 8,
    "BANK_ACCOUNT": 8,
    "PASSPORT": 8,
    "EMPLOYEE_ID": 9,
    "CUSTOMER_ID": 9,
    "USERNAME": 11,
}
PLAIN = {"EMAIL_ADDRESS", "IP_ADDRESS", "MAC_ADDRESS", "URL", "IBAN_CODE"}
# The share of names made of syllables; the others are drawn from the lists.
COMPOSED = {"prose": 0.15, "logs": 0.4, "contracts": 0.4}
ENTITIES = {
    "PERSON": "person given family formal short",
    "EMAIL_ADDRESS": "mail",
    "USERNAME": "user",
    "LOCATION": "city country state",
    "ORGANIZATION": "org",
    "PHONE_NUMBER": "phone",
    "IP_ADDRESS": "ip ipsix",
    "MAC_ADDRESS": "mac",
    "URL": "url",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "US_SSN": "ssn",
    "DATE_OF_BIRTH": "dob",
    "STREET_ADDRESS": "street",
    "POSTCODE": "postcode",
    "BANK_ACCOUNT": "account",
    "PASSPORT": "passport",
    "EMPLOYEE_ID": "emp",
    "CUSTOMER_ID": "cust",
    "PASSWORD": "password password_plain",
    "API_KEY": "key jwt entropy entropy_hex azure aws_id aws_secret basic",
    "PRIVATE_KEY": "pem pem_indented pem_escaped",
}
ENTITY = {slot: name for name, slots in ENTITIES.items() for slot in slots.split()}
SECRETS = {"PASSWORD", "API_KEY", "PRIVATE_KEY"}
SLOT = re.compile(r"\{([a-z_]+\d?)\}")
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOOKALIKES = dict(zip("aceiopxyBEHKMPTAOv", "асеіорхуВЕНКМРТАОν", strict=True))
SPACES = "\u00a0\u2009\u202f\u3000\u2007"
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
Row = dict[str, Any]
Maker = Callable[[Random], str]
Pieces = list[tuple[str, str | None]]


def read_lines(name: str) -> list[str]:
    """Return the lines of `pii_NAME.txt` but comments; ⏎ stands for a line break."""
    text = Path(__file__).with_name(f"pii_{name}.txt").read_text("utf-8")
    lines = [line.replace("⏎", "\n") for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith(";")]


def read_parts(name: str) -> dict[str, list[str]]:
    """Return the lines of each part of `pii_NAME.txt`."""
    parts: dict[str, list[str]] = {}
    for line in read_lines(name):
        if line.startswith("# "):
            lines = parts[line[2:]] = []
        else:
            lines.append(line)
    return parts


def read_templates(name: str) -> list[list[str]]:
    """Return kind and template of each line."""
    return [line.split(": ", 1) for line in read_lines(name)]


WORDS = {part: lines[0].split(" | ") for part, lines in read_parts("words").items()}
PHONES = [line.split(" | ") for line in read_lines("phones")]
NAMES = [
    (
        line.startswith("*"),
        *(part.split(", ") for part in line.split(": ")[1].split(" | ")),
    )
    for line in read_lines("names")
]


# --- values of one shape ------------------------------------------------------------


def shape(rng: Random, pattern: str, marks: str = "#@%*$~") -> str:
    """Fill the marks of a pattern with random characters of their kinds."""
    alphabets = {
        "#": "0123456789",
        "@": "ABCDEFGHJKLMNPRSTUVWXYZ",
        "%": "abcdefghiklmnoprstuvz",
        "*": "ABCDEFGHJKLMNPQRSTUVWXYZ234567",
        "$": "0123456789abcdef",
        "~": "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789",
    }
    if re.search("[A-F]", pattern) and not re.search("[a-z]", pattern):
        alphabets["$"] = alphabets["$"].upper()
    return "".join(rng.choice(alphabets[c]) if c in marks else c for c in pattern)


def one_of(part: str, marks: str = "#@%*$~") -> Maker:
    """Return a maker that draws a line of a part and fills its marks."""
    return lambda rng: shape(rng, rng.choice(WORDS[part]), marks)


def digits(rng: Random, count: int) -> list[int]:
    """Draw digits, the first not zero."""
    return [rng.randrange(1, 10), *(rng.randrange(10) for _ in range(count - 1))]


def grouped(text: str, *sizes: int, mark: str = " ") -> str:
    """Cut a text into groups of these sizes; the last size goes on to the end."""
    groups, left = [], list(sizes)
    while text:
        size = left.pop(0) if len(left) > 1 else left[0]
        groups.append(text[:size])
        text = text[size:]
    return mark.join(groups)


def weighted(values: list[int], weights: str) -> int:
    """Return the sum of digits times weights; a weight is one character, base 36."""
    return sum(v * int(w, 36) for v, w in zip(values, weights, strict=False))


def joined(values: list[int]) -> str:
    """Write digits as one string."""
    return "".join(map(str, values))


def luhn(values: list[int]) -> list[int]:
    """Append the Luhn check digit."""
    total = sum(
        v if i % 2 else sum(divmod(2 * v, 10)) for i, v in enumerate(reversed(values))
    )
    return [*values, -total % 10]


def phone(rng: Random) -> str:
    """Write a phone number in one of many spellings."""
    world, home = (shape(rng, form, "#") for form in rng.choice(PHONES))
    code, rest = world.split(" ", 1)
    flat = re.sub(r"\W", " ", rest)
    text = rng.choice(
        [
            world,
            world,
            home,
            world.replace(" ", ""),
            world.replace(" ", "-"),
            world.replace(" ", ".").replace("-", "."),
            f"({code}) {rest}",
            f"{code} (0){rest}" if home[0] == "0" else world,
            f"00{code[1:]} {rest}",
            f"00{code[1:]}{flat}".replace(" ", ""),
            f"{code[1:]} {flat}",
            f"{code[1:]}-{rest}".replace(" ", "-"),
            home.replace(" ", "."),
            home.replace(" ", "/", 1),
        ]
    )
    extension = rng.choice([" ext. ##", " x###", " extension ####", ", ext ##"])
    return text + shape(rng, extension, "#") if rng.random() < 0.12 else text


def card(rng: Random) -> str:
    """Make up a card number of 13 to 19 digits."""
    start, size, groups = rng.choice(
        [
            ("4", 16, (4,)),
            ("4", 13, (4, 3, 3, 3)),
            ("4", 19, (4, 4, 4, 4, 3)),
            ("52", 16, (4,)),
            ("2345", 16, (4,)),
            ("34", 15, (4, 6, 5)),
            ("37", 15, (4, 6, 5)),
            ("36", 14, (4, 6, 4)),
            ("38", 14, (4, 6, 4)),
            ("6011", 16, (4,)),
            ("3530", 16, (4,)),
            ("6759", 18, (4, 4, 4, 4, 2)),
            ("62", 17, (6, 11)),
        ]
    )
    number = joined(luhn([*map(int, start), *digits(rng, size - len(start) - 1)]))
    return rng.choice(
        [number, grouped(number, *groups), grouped(number, *groups, mark="-")]
    )


IBANS = {
    "DE": "#" * 18, "GB": "@@@@" + "#" * 14, "FR": "#" * 10 + "*" * 11 + "##",
    "ES": "#" * 20, "IT": "@" + "#" * 10 + "*" * 12, "NL": "@@@@" + "#" * 10,
    "BE": "#" * 12, "AT": "#" * 16, "CH": "#" * 5 + "*" * 12, "PL": "#" * 24,
    "SE": "#" * 20, "NO": "#" * 11, "DK": "#" * 14, "FI": "#" * 14, "PT": "#" * 21,
    "IE": "@@@@" + "#" * 14, "CZ": "#" * 20, "HU": "#" * 24, "RO": "@@@@" + "*" * 16,
    "GR": "#" * 7 + "*" * 16, "SA": "##" + "*" * 18, "AE": "#" * 19,
    "TR": "#" * 6 + "*" * 16, "MT": "@@@@" + "#" * 5 + "*" * 18, "LT": "#" * 16,
    "EE": "#" * 16, "HR": "#" * 17, "CY": "#" * 8 + "*" * 16, "IL": "#" * 19,
}  # fmt: skip


def iban(rng: Random) -> str:
    """Make up an account number with a valid pair of check digits."""
    country = rng.choice(list(IBANS))
    body = shape(rng, IBANS[country])
    check = 98 - int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
    number = f"{country}{check:02d}{body}"
    return rng.choice([number, grouped(number, 4), grouped(number, 4)])


def password_plain(rng: Random) -> str:
    """Make up a password that needs no quotes in a shell, a URL or XML."""
    while not re.fullmatch(r"[\w.!+-]+", word := password(rng)):
        pass
    return word


def password(rng: Random) -> str:
    """Make up a weak or a strong password."""
    return one_of(rng.choice(("weakpassword", "strongpassword")), "#%")(rng)


def pem(rng: Random) -> str:
    """Make up a key block that no library reads."""
    name = rng.choice(
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"]
        + ["ENCRYPTED PRIVATE KEY", "PGP PRIVATE KEY BLOCK", "DSA PRIVATE KEY"]
    )
    lines = ["EXAMPLE" + shape(rng, "~" * 57)]
    lines += [shape(rng, "~" * 64) for _ in range(rng.randrange(1, 5))]
    lines += [shape(rng, "~" * rng.randrange(12, 50)) + "=="]
    return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----"])


def stamp(rng: Random) -> str:
    """Write a time as one of three kinds of log do."""
    when = datetime(2026, 1, 5) + timedelta(seconds=rng.randrange(90 * 86400))
    forms = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M:%S")
    return f"{when:{rng.choice(forms)}}"


# --- national numbers ---------------------------------------------------------------


def birth(rng: Random) -> str:
    """Draw a birthday as six digits, year first."""
    day = (rng.randrange(40, 99), rng.randrange(1, 13), rng.randrange(1, 29))
    return "".join(f"{part:02d}" for part in day)


def uk_nhs(rng: Random) -> str:
    """Make up a number of the range kept for tests, which starts with 999."""
    check = 10
    while check == 10:
        values = [9, 9, 9, *digits(rng, 6)]
        check = -weighted(values, "a98765432") % 11
    number = joined([*values, check])
    return rng.choice(
        [number, grouped(number, 3, 3, 4), grouped(number, 3, 3, 4, mark="-")]
    )


def uk_nino(rng: Random) -> str:
    """Make up a number; it has no check digit."""
    number = rng.choice(("AB", "CE", "JK", "PX", "WM")) + shape(rng, "######")
    return rng.choice((number, grouped(number, 2))) + rng.choice("ABCD")


def spanish(start: str) -> Maker:
    """Return a maker of Spanish numbers that start with one of these characters."""

    def make(rng: Random) -> str:
        body = rng.choice(start) + shape(rng, "#######")
        number = int(body.translate(str.maketrans("XYZ", "012")))
        return body + rng.choice(("", "", "-")) + "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23]

    return make


def it_fiscal_code(rng: Random) -> str:
    """Make up a code of someone born abroad, in a place that does not exist."""
    body = "".join(rng.choices("BCDFGLMNPRSTV", k=6)) + shape(rng, "##")
    body += (
        rng.choice("ABCDEHLMPRST") + f"{rng.randrange(1, 29):02d}Z9" + shape(rng, "##")
    )
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8)
    odd += (12, 14, 16, 10, 22, 25, 24, 23)
    places = [int(c) if c.isdigit() else UPPER.index(c) for c in body]
    total = sum(p if i % 2 else odd[p] for i, p in enumerate(places))
    return body + UPPER[total % 26]


def pl_pesel(rng: Random) -> str:
    """Make up a number from a birthday, a serial and a check digit."""
    values = [int(c) for c in birth(rng) + shape(rng, "####")]
    return joined([*values, -weighted(values, "1379137913") % 10])


def in_aadhaar(rng: Random) -> str:
    """Make up a number whose Verhoeff sum is zero."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
        return 5 + (a - b) % 5 if b < 5 else (a - b) % 5

    def verhoeff(values: list[int]) -> int:
        total = 0
        for i, value in enumerate(reversed(values)):
            for _ in range(i % 8):
                value = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[value]
            total = times(total, value)
        return total

    values = [rng.randrange(2, 10), *digits(rng, 10)]
    check = next(c for c in range(10) if verhoeff([*values, c]) == 0)
    number = joined([*values, check])
    return rng.choice((number, grouped(number, 4), grouped(number, 4, mark="-")))


def au_tfn(rng: Random) -> str:
    """Make up a number whose weighted sum is a multiple of 11."""
    while weighted(values := digits(rng, 9), "14375869a") % 11:
        pass
    return rng.choice((joined(values), grouped(joined(values), 3)))


def au_abn(rng: Random) -> str:
    """Make up a number whose weighted sum, its first digit less one, divides by 89."""
    number = ""
    while not number:
        tail = digits(rng, 9)
        for head in range(10, 100):
            values = [head // 10 - 1, head % 10, *tail]
            if weighted(values, "a13579bdfhj") % 89 == 0:
                number = f"{head}{joined(tail)}"
    return rng.choice((number, grouped(number, 2, 3)))


def au_medicare(rng: Random) -> str:
    """Make up a card number; its ninth digit is the check."""
    values = [rng.randrange(2, 7), *digits(rng, 7)]
    number = joined([*values, weighted(values, "13791379") % 10, rng.randrange(1, 6)])
    return grouped(number, 4, 5, 1)


def sg_nric_fin(rng: Random) -> str:
    """Make up a number of a citizen (S, T) or a foreigner (F, G)."""
    series, values = rng.choice("STFG"), digits(rng, 7)
    total = weighted(values, "2765432") + (4 if series in "TG" else 0)
    letters = "JZIHGFEDCBA" if series in "ST" else "XWUTRQPNMLK"
    return series + joined(values) + letters[total % 11]


def fi_code(rng: Random) -> str:
    """Make up a code of the range kept for tests, 900 to 999."""
    day = grouped(birth(rng), 2, mark=" ").split()[::-1]
    serial = f"{rng.randrange(900, 1000)}"
    check = "0123456789ABCDEFHJKLMNPRSTUVWXY"[int("".join(day) + serial) % 31]
    return f"{''.join(day)}-{serial}{check}"


def kr_rrn(rng: Random) -> str:
    """Make up a number from a birthday, a sex digit, a serial and a check digit."""
    values = [int(c) for c in f"{birth(rng)}{rng.choice('12')}0" + shape(rng, "####")]
    number = joined([*values, (11 - weighted(values, "234567892345") % 11) % 10])
    return rng.choice((number, grouped(number, 6, 7, mark="-")))


def de_tax_id(rng: Random) -> str:
    """Make up a number in which one digit comes twice, as the rule wants."""
    values = [0]
    while values[0] == 0:
        values = rng.sample(range(10), 9)
        values.insert(rng.randrange(9), rng.choice(values))
    product = 10
    for value in values:
        product = ((value + product) % 10 or 10) * 2 % 11
    number = joined([*values, (11 - product) % 10])
    return rng.choice((number, grouped(number, 2, 3)))


def tr_national_id(rng: Random) -> str:
    """Make up a number with its two check digits."""
    values = digits(rng, 9)
    values.append((7 * sum(values[::2]) - sum(values[1::2])) % 10)
    return joined([*values, sum(values) % 10])


def th_tnin(rng: Random) -> str:
    """Make up a number whose weights run from 13 down to 2."""
    values = [3, 1, *digits(rng, 10)]
    number = joined([*values, (11 - weighted(values, "dcba98765432") % 11) % 10])
    return rng.choice((number, grouped(number, 1, 4, 5, 2, 1, mark="-")))


def ca_sin(rng: Random) -> str:
    """Make up a number of nine digits."""
    number = joined(luhn([rng.randrange(1, 8), *digits(rng, 7)]))
    return rng.choice((number, grouped(number, 3), grouped(number, 3, mark="-")))


def se_number(rng: Random) -> str:
    """Make up a number of the serials kept for tests, 980 to 999."""
    number = joined(luhn([int(c) for c in f"{birth(rng)}{rng.randrange(980, 1000)}"]))
    return rng.choice(("", "19")) + f"{number[:6]}-{number[6:]}"


def za_id_number(rng: Random) -> str:
    """Make up a number of a citizen."""
    return joined(luhn([int(c) for c in birth(rng) + shape(rng, "####08")]))


def ssn(rng: Random) -> str:
    """Make up a number with an area that was not issued before 2011."""
    number = (
        f"{rng.randrange(773, 900)}{rng.randrange(10, 99)}{rng.randrange(1000, 9999)}"
    )
    return grouped(number, 3, 2, 4, mark=rng.choice("-- "))


NATIONAL: dict[str, Maker] = {
    "UK_NHS": uk_nhs,
    "UK_NINO": uk_nino,
    "ES_NIF": spanish("0123456789"),
    "ES_NIE": spanish("XYZ"),
    "IT_FISCAL_CODE": it_fiscal_code,
    "PL_PESEL": pl_pesel,
    "IN_AADHAAR": in_aadhaar,
    "IN_PAN": lambda rng: shape(rng, "@@@P@####@"),
    "AU_TFN": au_tfn,
    "AU_ABN": au_abn,
    "AU_MEDICARE": au_medicare,
    "SG_NRIC_FIN": sg_nric_fin,
    "FI_PERSONAL_IDENTITY_CODE": fi_code,
    "KR_RRN": kr_rrn,
    "DE_TAX_ID": de_tax_id,
    "CA_SIN": ca_sin,
    "SE_PERSONNUMMER": se_number,
    "TR_NATIONAL_ID": tr_national_id,
    "ZA_ID_NUMBER": za_id_number,
    "TH_TNIN": th_tnin,
}
NATIONAL_ROWS = 3
ENTITY |= {name.lower(): name for name in NATIONAL}
MAKERS: dict[str, Maker] = {name.lower(): make for name, make in NATIONAL.items()} | {
    "city": one_of("city", ""),
    "country": one_of("country", ""),
    "state": one_of("state", ""),
    "org": lambda rng: " ".join(rng.choice(WORDS[w]) for w in ("orgstem", "orgtail")),
    "street": one_of("street", "#"),
    "postcode": one_of("postcode", "#"),
    "title": one_of("title", ""),
    "day": one_of("day", ""),
    "host": one_of("host", ""),
    "ticket": one_of("ticket", "#"),
    "amount": one_of("amount", "#"),
    "ip": one_of("ipshape", "#"),
    "ipsix": one_of("ip6shape", "#$"),
    "mac": one_of("macshape", "$"),
    "url": one_of("urlshape", "#%"),
    "dob": one_of("dobshape", ""),
    "account": one_of("accountshape", "#"),
    "passport": one_of("passportshape", "#@"),
    "emp": one_of("empshape", "#"),
    "cust": one_of("custshape", "#"),
    "phone": phone,
    "card": card,
    "iban": iban,
    "ssn": ssn,
    "n": lambda rng: str(rng.randrange(101, 9999)),
    "hex": lambda rng: shape(rng, "$" * 40),
    "time": lambda rng: f"{rng.randrange(24):02d}:{rng.randrange(60):02d}",
    "date": lambda rng: rng.choice(
        ("3 May 2025", "2024-11-08", "14/02/2026", "June 9")
    ),
    "stamp": stamp,
    "password": password,
    "password_plain": password_plain,
    "jwt": one_of("jwt", "~"),
    "entropy": one_of("entropy"),
    "entropy_hex": lambda rng: shape(rng, "$" * 32),
    "azure": lambda rng: shape(rng, "~" * 86) + "==",
    "aws_id": lambda rng: shape(rng, "AKIA*********EXAMPLE", "*"),
    "aws_secret": lambda rng: shape(rng, "~" * 12 + "/~" + "~" * 16 + "EXAMPLEKEY"),
    "basic": lambda rng: base64.b64encode(
        f"api:{password_plain(rng)}".encode()
    ).decode(),
    "pem": pem,
    "pem_indented": lambda rng: pem(rng).replace("\n", "\n  "),
    "pem_escaped": lambda rng: pem(rng).replace("\n", "\\n"),
}


# --- people and rows ----------------------------------------------------------------


def composed(rng: Random) -> str:
    """Make up a name of two to four syllables."""
    parts = [
        rng.choice(WORDS["onset"]) + rng.choice(WORDS["nucleus"])
        for _ in range(rng.randrange(2, 4))
    ]
    return ("".join(parts) + rng.choice(WORDS["coda"]).strip("-")).capitalize()


def ascii_word(name: str) -> str:
    """Fold a name to the plain letters of an address."""
    name = name.lower().translate(str.maketrans("øłßıđæþœ", "olsidato"))
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub("[^a-z]", "", name)


class Cast:
    """The people and values of one row; a slot asked for twice has one value."""

    def __init__(self, rng: Random, composed_share: float) -> None:
        self.rng, self.share = rng, composed_share
        self.people: dict[str, tuple[str, str, bool]] = {}
        self.values: dict[str, str] = {}

    def person(self, number: str) -> tuple[str, str, bool]:
        """Return given and family name of a person, and if the family comes first."""
        if number not in self.people:
            first, given, family = self.rng.choice(NAMES)
            names = (self.rng.choice(given), self.rng.choice(family), first)
            if self.rng.random() < self.share:
                names = (composed(self.rng), composed(self.rng), False)
            self.people[number] = names
        return self.people[number]

    def name(self, slot: str, number: str) -> str:
        """Write a person's name, address or user name as the slot wants it."""
        rng = self.rng
        given, family, first = self.person(number)
        start, plain, last = given[0], ascii_word(given), ascii_word(family)
        match slot:
            case "given":
                return given
            case "family":
                return family
            case "formal":
                return f"{family}, {given}"
            case "short":
                return f"{start}. {family}"
            case "user":
                own = [f"{plain[:1]}{last[:7]}", f"{plain[:8]}{rng.randrange(99)}"]
                own += [
                    f"{last}.{plain[:1]}",
                    shape(rng, rng.choice(WORDS["username"])),
                ]
                return rng.choice(own)
            case "mail":
                locals_ = [
                    f"{plain}.{last}",
                    f"{plain[:1]}{last}",
                    f"{last}_{plain[:1]}",
                ]
                locals_ += [f"{plain}+orders", f"{plain}-{last}{rng.randrange(99)}"]
                locals_ += [f"{plain.title()}.{last.title()}", f"o'{last}", "accounts"]
                return f"{rng.choice(locals_)}@{rng.choice(WORDS['domain'])}"
        if first and rng.random() < 0.5:
            return f"{family} {given}"
        other = self.person(f"{number}+")
        forms = [f"{given} {family}"] * 15
        forms += [f"{given} {other[0][0]}. {family}", f"{given} {other[0]} {family}"]
        forms += [f"{given} {family}-{other[1].split()[-1]}", f"{given} {family} Jr."]
        return rng.choice(forms)

    def value(self, slot: str) -> str:
        """Return the value of a slot; a digit at its end keeps people apart."""
        if slot not in self.values:
            name = slot.rstrip("0123456789")
            if name in MAKERS:
                self.values[slot] = MAKERS[name](self.rng)
            else:
                self.values[slot] = self.name(name, slot[len(name) :])
        return self.values[slot]


def pieces(template: str, cast: Cast) -> Pieces:
    """Fill a template; return each piece of text with its entity type or None."""
    filled: Pieces = []
    for i, piece in enumerate(SLOT.split(template)):
        if i % 2:
            filled.append((cast.value(piece), ENTITY.get(piece.rstrip("0123456789"))))
        else:
            filled.append((piece, None))
    return filled


def row(kind: str, filled: Pieces) -> Row:
    """Join pieces to a row; a piece with an entity type becomes a span."""
    text, spans = "", []
    for piece, entity_type in filled:
        start, text = len(text), text + piece
        if entity_type:
            span = {"start": start, "end": len(text), "entity_type": entity_type}
            spans.append(span)
    return {"kind": kind, "text": text, "spans": spans}


def write_set(rng: Random, name: str) -> list[Row]:
    """Fill the templates of a set in turn until it has its rows, none twice."""
    rows: dict[str, Row] = {}
    keys = cycle(WORDS["key"])
    for kind, template in cycle(read_templates(name)):
        if len(rows) == ROWS[name]:
            break
        cast = Cast(rng, COMPOSED.get(name, 0.2))
        if "{key}" in template:  # in turn, so that each shape comes
            cast.values["key"] = shape(rng, next(keys))
        made = row(kind, pieces(template, cast))
        rows.setdefault(made["text"], made)
    return list(rows.values())


# --- hostile spelling ---------------------------------------------------------------


def accented(rng: Random, name: str) -> str:
    """Write the accents of a name as characters of their own."""
    return unicodedata.normalize("NFD", name)


def alternating(rng: Random, name: str) -> str:
    """Write every other letter in upper case."""
    return "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(name))


def zero_width(rng: Random, text: str) -> str:
    """Put characters without width inside a value."""
    for _ in range(rng.randrange(1, 4)):
        i = rng.randrange(1, len(text))
        text = text[:i] + rng.choice(ZERO_WIDTH) + text[i:]
    return text


def lookalike(rng: Random, text: str) -> str:
    """Swap some letters, at least one, for Cyrillic or Greek ones that look alike."""
    able = [i for i, c in enumerate(text) if c in LOOKALIKES]
    chosen = rng.sample(able, rng.randrange(1, len(able) + 1)) if able else []
    return "".join(LOOKALIKES[c] if i in chosen else c for i, c in enumerate(text))


def spaced(rng: Random, name: str) -> str:
    """Put a space between all letters and more between words."""
    return rng.choice(("  ", "   ")).join(" ".join(word) for word in name.split())


def dashed(rng: Random, name: str) -> str:
    """Make a double name, its hyphen or apostrophe one of many that look the same."""
    if not re.search("['-]", name):
        name = f"{name}{rng.choice((chr(45), ' O' + chr(39)))}{composed(rng)}"
    hyphen = rng.choice("\u2010\u2011\u2013\u2212\u00ad")
    return name.replace("-", hyphen).replace(
        "'", rng.choice("\u2019\u02bc\u2018\u2032`")
    )


def wide_spaced(rng: Random, text: str) -> str:
    """Swap plain spaces for typographic ones."""
    return text.replace(" ", rng.choice(SPACES))


def broken(rng: Random, name: str) -> str:
    """Break the line within a name."""
    return name.replace(" ", rng.choice(("\n", "\r\n", "\n    ", " \n")), 1)


def full_width(rng: Random, name: str) -> str:
    """Write the plain letters of a name in full width."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name)


def word_name(rng: Random, name: str) -> str:
    """Draw a name whose parts are words."""
    return f"{rng.choice(WORDS['wordgiven'])} {rng.choice(WORDS['wordfamily'])}"


def place_name(rng: Random, name: str) -> str:
    """Draw a name whose parts are places."""
    return f"{rng.choice(WORDS['placegiven'])} {rng.choice(WORDS['placefamily'])}"


def initialled(rng: Random, name: str) -> str:
    """Shorten all but the last word of a name to initials."""
    *given, family = name.removesuffix(" Jr.").split()
    a, b = given[0][0] if given else "Q", rng.choice("ABDEHJKLMRST")
    return rng.choice(
        (
            f"{a}. {b}. {family}",
            f"{a}.{b}. {family}",
            f"{a}{b} {family}",
            f"{family} {a}.",
        )
    )


def last_first(rng: Random, name: str) -> str:
    """Write the family name first, with a comma."""
    plain = re.sub(r" \w\. ", " ", name.removesuffix(" Jr."))
    given, family = (plain.split(" ", 1) + [composed(rng)])[:2]
    forms = (
        f"{family}, {given}",
        f"{family.upper()}, {given}",
        f"{family}, {given[0]}.",
    )
    return rng.choice((*forms, f"{family},{given}"))


# The values each spelling is put on: all of them, or names only.
EVERY = {
    "lower case": lambda rng, text: text.lower(),
    "upper case": lambda rng, text: text.upper(),
    "zero width": zero_width,
    "look-alike": lookalike,
    "decomposed": accented,
    "typographic space": wide_spaced,
}
ON_NAMES = {
    "alternating case": alternating,
    "spaced letters": spaced,
    "hyphen or apostrophe": dashed,
    "line break": broken,
    "full width": full_width,
    "word name": word_name,
    "place name": place_name,
    "initials": initialled,
    "last, first": last_first,
}


def write_hostile(rng: Random) -> list[Row]:
    """Fill the hostile templates, each kind of spelling as often as the others."""
    rows: dict[str, Row] = {}
    templates, spellings = cycle(read_templates("hostile")), EVERY | ON_NAMES
    for kind in spellings:
        wanted = len(rows) + ROWS["hostile"] // len(spellings)
        while len(rows) < wanted:
            filled = pieces(next(templates)[1], Cast(rng, 0.2))
            spelled: Pieces = []
            changed = False
            for piece, entity in filled:
                whole = kind in ("lower case", "upper case")
                if entity == "PERSON" or whole or (entity and kind in EVERY):
                    text = spellings[kind](rng, piece)
                    changed |= entity == "PERSON" and text != piece
                    piece = text
                spelled.append((piece, entity))
            made = row(kind, spelled)
            if changed:
                rows.setdefault(made["text"], made)
    return list(rows.values())


# --- fixed formats ------------------------------------------------------------------


def write_formats(rng: Random) -> list[Row]:
    """Put each format into surroundings with its label, and plain ones without."""
    parts = read_parts("formats")
    labels = dict(line.split(": ", 1) for line in parts["labels"])
    rows: dict[str, Row] = {}
    for entity_type, count in (
        FORMATS | dict.fromkeys(NATIONAL, NATIONAL_ROWS)
    ).items():
        slots = [slot for slot, name in ENTITY.items() if name == entity_type]
        wanted = len(rows) + count
        while len(rows) < wanted:
            cast = Cast(rng, 0.2)
            around = parts["around"]
            if entity_type in PLAIN and rng.random() < 0.5:
                around = parts["bare"]
            elif entity_type in parts and rng.random() < 0.6:
                around = parts[entity_type]
            template = rng.choice(around)
            word = rng.choice(labels[entity_type].split(", "))
            template = template.replace("{label}", word)
            for mark in ("value", "value1"):
                slot = rng.choice(slots) + mark.removeprefix("value")
                template = template.replace(f"{{{mark}}}", f"{{{slot}}}")
            made = row(entity_type.lower(), pieces(template, cast))
            rows.setdefault(made["text"], made)
    return list(rows.values())


def write_line(made: Row) -> str:
    """Write a row as JSON, the first character of each secret as an escape.

    Scanners of code hosts search the bytes of a file for the shapes of keys.
    """
    marked, at = "", 0
    for span in made["spans"]:
        if span["entity_type"] in SECRETS:
            marked += made["text"][at : span["start"]] + "\ue000"
            at = span["start"]
    marked += made["text"][at:]
    line = json.dumps(made | {"text": marked}, ensure_ascii=False)
    return re.sub("\ue000(.)", lambda found: f"\\u{ord(found[1]):04x}", line) + "\n"


def build(seed: int = SEED) -> dict[str, bytes]:
    """
    Make every file of `data/pii/`.

    Parameters
    ----------
    seed : int
        Same seed, same bytes.

    Returns
    -------
    dict
        Content by file name.
    """
    rng = Random(seed)
    sets = {name: write_set(rng, name) for name in ROWS if name != "hostile"}
    sets |= {"hostile": write_hostile(rng), "formats": write_formats(rng)}
    prose = read_templates("technical")
    sets["technical"] = [row(kind, [(text, None)]) for kind, text in prose]
    files = {}
    for name, rows in sets.items():
        numbered = [{"id": f"{name}-{i:03d}"} | made for i, made in enumerate(rows, 1)]
        files[f"{name}.jsonl"] = "".join(map(write_line, numbered)).encode()
    return files


def main(folder: Path = FOLDER, seed: int = SEED) -> None:
    """Write the files of `data/pii/` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in build(seed).items():
        (folder / name).write_bytes(content)
