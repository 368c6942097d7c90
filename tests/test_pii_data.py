"""Run alone: ``python -m pytest tests/test_pii_data.py``."""

import ipaddress
import json
import re
from collections import Counter

import pytest

from data.build import pii

SETS = {
    path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for path in sorted(pii.FOLDER.glob("*.jsonl"))
}
ROWS = [row for rows in SETS.values() for row in rows]


def values(entity_type, rows=ROWS):
    return [
        row["text"][span["start"] : span["end"]]
        for row in rows
        for span in row["spans"]
        if span["entity_type"] == entity_type
    ]


def unlabelled(row):
    text = row["text"]
    for span in reversed(row["spans"]):
        text = f"{text[: span['start']]} \0 {text[span['end'] :]}"
    return text


# --- the files --------------------------------------------------------------------


def test_the_build_gives_the_bytes_that_are_shipped():
    made = pii.build()
    shipped = {path.name: path.read_bytes() for path in pii.FOLDER.iterdir()}
    assert sorted(made) == sorted(shipped)
    for name, content in made.items():
        assert shipped[name] == content, name
    assert sum(map(len, made.values())) < 450_000


def test_another_seed_gives_other_rows():
    other = pii.build(seed=1)
    assert other["logs.jsonl"] != (pii.FOLDER / "logs.jsonl").read_bytes()


def test_each_set_has_its_rows_and_no_row_comes_twice():
    assert {name: len(rows) for name, rows in SETS.items()} == {
        "prose": 200,
        "logs": 220,
        "contracts": 180,
        "hostile": 240,
        "formats": 249,
        "secrets": 220,
        "technical": 162,
    }
    assert len({row["text"] for row in ROWS}) == len(ROWS)
    assert len({row["id"] for row in ROWS}) == len(ROWS)


def test_each_set_has_the_entity_types_it_is_for():
    found = {
        name: {span["entity_type"] for row in rows for span in row["spans"]}
        for name, rows in SETS.items()
    }
    people = {"PERSON", "LOCATION", "EMAIL_ADDRESS", "PHONE_NUMBER", "STREET_ADDRESS"}
    assert found["prose"] >= people | {"ORGANIZATION", "DATE_OF_BIRTH", "USERNAME"}
    assert found["logs"] >= people | {"IP_ADDRESS", "MAC_ADDRESS", "USERNAME"}
    assert found["contracts"] >= people | {"ORGANIZATION", "PASSPORT", "US_SSN"}
    assert found["hostile"] >= people | {"IBAN_CODE", "EMPLOYEE_ID"}
    assert found["secrets"] >= {"PASSWORD", "API_KEY", "PRIVATE_KEY", "USERNAME"}
    assert found["technical"] == set()
    presidio = "UK_NHS UK_NINO ES_NIF ES_NIE IT_FISCAL_CODE PL_PESEL IN_AADHAAR IN_PAN"
    presidio += " AU_TFN AU_ABN AU_MEDICARE SG_NRIC_FIN FI_PERSONAL_IDENTITY_CODE"
    presidio += " KR_RRN DE_TAX_ID CA_SIN SE_PERSONNUMMER TR_NATIONAL_ID ZA_ID_NUMBER"
    presidio += " TH_TNIN US_SSN IBAN_CODE CREDIT_CARD EMAIL_ADDRESS PHONE_NUMBER URL"
    presidio += " IP_ADDRESS MAC_ADDRESS"
    house = "DATE_OF_BIRTH STREET_ADDRESS POSTCODE BANK_ACCOUNT PASSPORT EMPLOYEE_ID"
    house += " CUSTOMER_ID USERNAME"
    assert found["formats"] >= {*presidio.split(), *house.split()}


def test_hostile_spellings_come_equally_often():
    kinds = Counter(row["kind"] for row in SETS["hostile"])
    assert len(kinds) == 15
    assert set(kinds.values()) == {16}


# --- the spans --------------------------------------------------------------------


def test_spans_lie_inside_in_order_apart_and_have_no_blank_ends():
    for row in ROWS:
        end = 0
        for span in row["spans"]:
            assert end <= span["start"] < span["end"] <= len(row["text"]), row["id"]
            end = span["end"]
            value = row["text"][span["start"] : end]
            assert value == value.strip(), row["id"]


def test_a_name_is_labelled_wherever_it_stands():
    for row in ROWS:
        rest = unlabelled(row)
        for name in values("PERSON", [row]):
            assert not re.search(rf"\b{re.escape(name)}\b", rest), (row["id"], name)


def test_no_name_or_place_of_the_lists_stands_outside_the_spans():
    listed = {name for _, given, family in pii.NAMES for name in given + family}
    listed |= {*pii.WORDS["city"], *pii.WORDS["country"], *pii.WORDS["orgstem"]}
    for row in ROWS:
        rest = unlabelled(row)
        for word in re.findall(r"[^\W\d_][\w'-]{2,}", rest):
            assert word not in listed, (row["id"], word)


def test_no_address_stands_outside_the_spans():
    address = re.compile(r"[\w.]+@[\w-]+\.[a-z]|\b\d+\.\d+\.\d+\.\d+\b|\w+\.example\b")
    for row in ROWS:
        assert not address.search(unlabelled(row)), row["id"]


def test_no_slot_is_left_unfilled():
    for row in ROWS:
        if row["id"].startswith("technical"):
            continue
        assert not re.search(
            r"\{(person|given|family|user|n|value|label)\d?\}", row["text"]
        )


def test_technical_prose_has_the_length_of_a_paragraph_and_many_kinds():
    assert all(60 <= len(row["text"]) <= 400 for row in SETS["technical"])
    assert len({row["kind"] for row in SETS["technical"]}) >= 12


# --- nothing real -----------------------------------------------------------------


def test_domains_are_reserved_ones():
    reserved = re.compile(r"(\.example|\bexample\.(com|org|net))$")
    plain = [row for row in ROWS if not row["id"].startswith("hostile")]
    for mail in values("EMAIL_ADDRESS", plain):
        assert reserved.search(mail.split("@")[1]), mail
    for url in values("URL"):
        host = re.match(r"(?:\w+://)?(\[[^]]+\]|[\w.-]+)", url)[1].lower()
        assert reserved.search(host) or host.startswith(("192.0.2.", "[2001:db8:")), url


def test_ip_addresses_are_kept_for_documents_or_private():
    plain = [row for row in ROWS if not row["id"].startswith("hostile")]
    found = {ipaddress.ip_address(value) for value in values("IP_ADDRESS", plain)}
    for address in found:
        assert address.is_private or address.is_link_local, address
    assert {address.version for address in found} == {4, 6}


def test_no_key_can_be_read_in_the_bytes_that_scanners_see():
    secret = re.compile(
        rb"AKIA|ASIA|ghp_|github_pat_|glpat-|xox[bp]-|xapp-|[srp]k_(test|live)_|whsec_"
        rb"|AIza|\bsk-|\bSG\.|npm_E|hf_E|dop_v1|pypi-A|glsa_|hvs\.|shpat_|sq0atp"
        rb"|\beyJ\w+\.eyJ|-----BEGIN"
    )
    for path in pii.FOLDER.iterdir():
        assert not secret.search(path.read_bytes()), path.name
    keys = values("API_KEY")
    for start in ("AKIA", "ghp_", "glpat-", "xoxb-", "AIza", "sk-ant-", "npm_", "eyJ"):
        assert any(key.startswith(start) for key in keys), start


# --- check digits -----------------------------------------------------------------


def dot(number, weights):
    return sum(int(a) * b for a, b in zip(number, weights, strict=True))


def is_luhn(number):
    doubled = {0: 0, 1: 2, 2: 4, 3: 6, 4: 8, 5: 1, 6: 3, 7: 5, 8: 7, 9: 9}
    odd, even = number[::-1][::2], number[::-1][1::2]
    return (sum(map(int, odd)) + sum(doubled[int(d)] for d in even)) % 10 == 0


def is_iban(number):
    letters = {chr(55 + i): str(i) for i in range(10, 36)}
    turned = "".join(letters.get(c, c) for c in number[4:] + number[:4])
    return int(turned) % 97 == 1


def is_nhs(number):
    return dot(number, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def is_spanish(number):
    body = number[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(body) % 23] == number[-1]


# The published table of values in odd places, for 0 to 9 and for A to Z.
ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
ODD_LETTERS = (*ODD, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def is_fiscal_code(code):
    total = 0
    for place, c in enumerate(code[:15], start=1):
        rank = int(c) if c.isdigit() else ord(c) - 65
        odd = ODD[rank] if c.isdigit() else ODD_LETTERS[rank]
        total += odd if place % 2 else rank
    return chr(65 + total % 26) == code[15]


# Verhoeff's published tables, row by row.
VERHOEFF_D = "0123456789 1234067895 2340178956 3401289567 4012395678 5987604321"
VERHOEFF_D = f"{VERHOEFF_D} 6598710432 7659821043 8765932104 9876543210".split()
VERHOEFF_P = "0123456789 1576283094 5803796142 8916043527 9453126870 4286573901"
VERHOEFF_P = f"{VERHOEFF_P} 2793806415 7046913258".split()


def is_aadhaar(number):
    check = 0
    for i, digit in enumerate(number[::-1]):
        check = int(VERHOEFF_D[check][int(VERHOEFF_P[i % 8][int(digit)])])
    return check == 0


def is_singaporean(number):
    total = dot(number[1:8], (2, 7, 6, 5, 4, 3, 2)) + 4 * (number[0] in "TG")
    table = "JZIHGFEDCBA" if number[0] in "ST" else "XWUTRQPNMLK"
    return table[total % 11] == number[8]


def is_finnish(number):
    digits = int(number[:6] + number[7:10])
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[digits % 31] == number[10]


def is_korean(number):
    weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
    return (11 - dot(number[:12], weights) % 11) % 10 == int(number[12])


def is_german(number):
    check = 10
    for digit in number[:10]:
        check = (check + int(digit)) % 10
        check = (check if check else 10) * 2 % 11
    return (check + int(number[10])) % 10 == 1


def is_turkish(number):
    odd, even = map(int, number[:9:2]), map(int, number[1:8:2])
    tenth = (sum(odd) * 7 - sum(even)) % 10
    return tenth == int(number[9]) and sum(map(int, number[:10])) % 10 == int(
        number[10]
    )


def is_thai(number):
    return (dot(number[:12], range(13, 1, -1)) + int(number[12])) % 11 in (0, 1)


# Each rule, with a number that its authority or its literature prints as valid.
RULES = {
    "CREDIT_CARD": (is_luhn, "4111111111111111"),
    "IBAN_CODE": (is_iban, "GB82WEST12345698765432"),
    "UK_NHS": (is_nhs, "9434765919"),
    "ES_NIF": (is_spanish, "12345678Z"),
    "ES_NIE": (is_spanish, "X1234567L"),
    "IT_FISCAL_CODE": (is_fiscal_code, "RSSMRA85T10A562S"),
    "PL_PESEL": (
        lambda n: dot(n, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0,
        "44051401359",
    ),
    "IN_AADHAAR": (is_aadhaar, "2363"),
    "AU_TFN": (
        lambda n: dot(n, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0,
        "123456782",
    ),
    "AU_ABN": (
        lambda n: (dot(n, (10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)) - 10) % 89 == 0,
        "51824753556",
    ),
    "AU_MEDICARE": (
        lambda n: dot(n[:8], (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == int(n[8]),
        "2123456701",
    ),
    "SG_NRIC_FIN": (is_singaporean, "S1234567D"),
    "FI_PERSONAL_IDENTITY_CODE": (is_finnish, "131052-308T"),
    # 18+18+0+5+12+21+8+18+6+12+20+30 = 168, which is 3 mod 11; 11 - 3 = 8.
    "KR_RRN": (is_korean, "9601231234568"),
    "DE_TAX_ID": (is_german, "86095742719"),
    "CA_SIN": (is_luhn, "046454286"),
    "SE_PERSONNUMMER": (lambda n: is_luhn(n[-10:]), "8112189876"),
    "TR_NATIONAL_ID": (is_turkish, "10000000146"),
    "ZA_ID_NUMBER": (is_luhn, "8001015009087"),
    "TH_TNIN": (is_thai, "1234567890121"),
}


def only(entity_type, value):
    keep = "-" if entity_type == "FI_PERSONAL_IDENTITY_CODE" else ""
    return re.sub(rf"[^\w{keep}]", "", value)


@pytest.mark.parametrize("entity_type", RULES)
def test_check_digits_are_valid_by_the_published_rule(entity_type):
    rule, known = RULES[entity_type]
    assert rule(known)
    plain = [row for row in ROWS if not row["id"].startswith("hostile")]
    found = values(entity_type, plain)
    assert len(found) >= 3
    for value in found:
        assert rule(only(entity_type, value)), value


def test_card_numbers_have_13_to_19_digits_and_three_ways_of_writing():
    cards = values("CREDIT_CARD")
    assert {13, 14, 15, 16, 19} <= {len(re.sub(r"\D", "", card)) for card in cards}
    assert {"-", " ", ""} == {re.sub(r"\d", "", card)[:1] for card in cards}


def test_social_security_areas_were_never_issued_before_2011():
    assert all(773 <= int(number[:3]) <= 899 for number in values("US_SSN"))


# --- hostile spelling -------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        ("zero width", "[\u200b\u200c\u200d\u2060\ufeff\u00ad]"),
        ("look-alike", "[\u0370-\u04ff]"),
        ("typographic space", "[\u00a0\u2007\u2009\u202f\u3000]"),
        ("spaced letters", r"^\S \S"),
        ("line break", "\n"),
        ("full width", "[\uff01-\uff5e]"),
        ("decomposed", "[\u0300-\u036f]"),
        ("initials", r"\b[^\W\d_]\b|\b[^\W\d_a-z]{2}\b"),
        ("last, first", ","),
    ],
)
def test_each_hostile_row_has_a_name_in_its_spelling(kind, mark):
    rows = [row for row in SETS["hostile"] if row["kind"] == kind]
    for row in rows:
        assert any(re.search(mark, name) for name in values("PERSON", [row])), row["id"]
