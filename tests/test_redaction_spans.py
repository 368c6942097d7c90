"""Run alone: ``python -m pytest tests/test_redaction_spans.py``."""

import contextlib
import random
import subprocess
import sys
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import regex

from ftlib.redaction import engine, find_spans, recognizers, redact
from ftlib.redaction.normalisation import normalise
from ftlib.redaction.spans import join_pieces, settle_overlaps
from ftlib.schema import Span

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _formats_only(monkeypatch):
    """Leave the model out: what it finds has tests of its own."""
    build = engine.build_engine
    monkeypatch.setattr(
        engine, "build_engine", lambda patterns=None, names=True: build(patterns, False)
    )


def show(text, **settings):
    return [
        (text[s.start : s.end], s.entity_type) for s in find_spans(text, **settings)
    ]


@pytest.mark.parametrize(
    ("text", "entity", "entity_type"),
    [
        ("ring (555) 123-4567 x89.", "(555) 123-4567 x89", "PHONE_NUMBER"),
        ("+44 20 7946 0958 or so", "+44 20 7946 0958", "PHONE_NUMBER"),
        ("tel:+49(0)30/901820", "+49(0)30/901820", "PHONE_NUMBER"),
        ("from 10.0.0.5:443", "10.0.0.5", "IP_ADDRESS"),
        ("[2001:db8::1]:443", "2001:db8::1", "IP_ADDRESS"),
        ("at fe80::1%eth0: down", "fe80::1%eth0", "IP_ADDRESS"),
        ("::ffff:192.0.2.1 ok", "::ffff:192.0.2.1", "IP_ADDRESS"),
        ("net 2001:db8:1::/48", "2001:db8:1::/48", "IP_ADDRESS"),
        ("001a.2b3c.4d5e up", "001a.2b3c.4d5e", "MAC_ADDRESS"),
        ("<o'neil+x@corp.example>", "o'neil+x@corp.example", "EMAIL_ADDRESS"),
        ("(see https://a.example/x?y=1).", "https://a.example/x?y=1", "URL"),
        ("paid 3782-822463-10005", "3782-822463-10005", "CREDIT_CARD"),
        ("to GB82 WEST 1234 5698 7654 32", "GB82 WEST 1234 5698 7654 32", "IBAN_CODE"),
        ("SSN 536-90-4399", "536-90-4399", "US_SSN"),
        ("NHS 943 476 5919", "943 476 5919", "UK_NHS"),
        ("PESEL 44051401359", "44051401359", "PL_PESEL"),
        ("DOB: 12-Mar-1985", "12-Mar-1985", "DATE_OF_BIRTH"),
        ("passport no. L898902C3", "L898902C3", "PASSPORT"),
        ("account number: 12345678", "12345678", "BANK_ACCOUNT"),
        ("zip 94103-1234", "94103-1234", "POSTCODE"),
        ("at 12 High Street, Flat 3", "12 High Street, Flat 3", "STREET_ADDRESS"),
        ("asked EMP001234 to", "EMP001234", "EMPLOYEE_ID"),
        ("asked P12-3456 to", "P12-3456", "EMPLOYEE_ID"),
        ("for CUST-12345 by", "CUST-12345", "CUSTOMER_ID"),
        (r"C:\Users\Ana Bo\x", "Ana Bo", "USERNAME"),
        (r"CORP\jdoe left", "jdoe", "USERNAME"),
        ("cd /home/ana.k/x", "ana.k", "USERNAME"),
        ("password: Tr0ub4dor&3", "Tr0ub4dor&3", "PASSWORD"),
        ("the password is swordfish.", "swordfish", "PASSWORD"),
        ("mysql -u root -pS3cret", "S3cret", "PASSWORD"),
        ("run --password=x1y2z3 now", "x1y2z3", "PASSWORD"),
        ("postgres://app:s3c/r3t@db/x", "s3c/r3t", "PASSWORD"),
        ('{"pass": "a b c"}', '"a b c"', "PASSWORD"),
        ("id AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE", "API_KEY"),
        ("x-api-key: 3f2504e04f8911d3", "3f2504e04f8911d3", "API_KEY"),
        ("eyJhbGciOiJub25l.eyJzdWIiO.EXAMPLE", None, "API_KEY"),
        ("0x742d35Cc6634C0532925a3b844Bc454e4438f44e", None, "CRYPTO"),
        ("call 415\u2014555\u20140132 now", "415\u2014555\u20140132", "PHONE_NUMBER"),
        ("4 1 5 - 5 5 5 - 0 1 3 2", None, "PHONE_NUMBER"),
        ("at +1 415\n555 0132 today", "+1 415\n555 0132", "PHONE_NUMBER"),
        ("from 10[.]0[.]0[.]5 on", "10[.]0[.]0[.]5", "IP_ADDRESS"),
        ("inet6 addr:2001:db8::1 x", "2001:db8::1", "IP_ADDRESS"),
        ("ana [at] corp [dot] example", None, "EMAIL_ADDRESS"),
        ("to BE68.5390.0754.7034", "BE68.5390.0754.7034", "IBAN_CODE"),
        ("EMP_001234 left", "EMP_001234", "EMPLOYEE_ID"),
        ("born in Linz, Austria, on 3 May 1971.", "3 May 1971", "DATE_OF_BIRTH"),
        ("Geburtsdatum: 12. M\u00e4rz 1985", "12. M\u00e4rz 1985", "DATE_OF_BIRTH"),
        ("her birthday is March 12.", "March 12", "DATE_OF_BIRTH"),
        ("Thai ID number: 1-1017-00230-70-8", "1-1017-00230-70-8", "NATIONAL_ID"),
        ("in Berliner Allee 114, 3. OG", "Berliner Allee 114, 3. OG", "STREET_ADDRESS"),
        ("Carrera 7 # 71-21", None, "STREET_ADDRESS"),
        ("P.O. Box 77, Oslo", "P.O. Box 77", "STREET_ADDRESS"),
        ("Av. Sol 8, Recife - PE, 01310-100", "01310-100", "POSTCODE"),
        ("Das Passwort lautet K4tze#Maus.", "K4tze#Maus", "PASSWORD"),
        ('Use "p@ss w0rd!" as the password.', "p@ss w0rd!", "PASSWORD"),
        ("sudo:  akhan : TTY=pts/0", "akhan", "USERNAME"),
        ("-rw-r--r-- 1 akhan staff 12 May", "akhan", "USERNAME"),
    ],
)
def test_an_entity_of_a_fixed_format_is_found_whole(text, entity, entity_type):
    assert (entity or text, entity_type) in show(text)


def test_a_private_key_goes_whole_and_without_its_end_as_far_as_it_reaches():
    lines = "MIIEowIBAAKCAQEA\nexampleEXAMPLE0123456789\n"
    whole = f"-----BEGIN RSA PRIVATE KEY-----\n{lines}-----END RSA PRIVATE KEY-----"
    assert show(f"key:\n{whole}\nand more") == [(whole, "PRIVATE_KEY")]
    [(found, entity_type)] = show(f"-----BEGIN PRIVATE KEY-----\n{lines}\nThat was it.")
    assert entity_type == "PRIVATE_KEY"
    assert found.endswith("exampleEXAMPLE0123456789")


@pytest.mark.parametrize(
    "text",
    [
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 fixes the race",
        "Listens on 0.0.0.0:8080; 127.0.0.1 and ::1 are local, the mask 255.255.255.0",
        "version 1.2.3.4, 2024-05-01 12:30:00, port 44321, took 1532 ms",
        "UUID 550e8400-e29b-41d4-a716-446655440000 names the volume",
        "ISBN 978-0-13-110362-7, CVE-2021-44228, T1059.001, order number 4500123456",
        "mask = 0xDEADBEEF; std::vector<int> v(10); a[3:7]; x = y ? 1 : 2",
        "The password must contain at least 12 characters.",
        "If the password is wrong, the account is locked.",
        "docker run -p 8080:80 nginx:1.25 && mkdir -p build/out",
        "The API key is read from the environment; each token expires.",
        "[PERSON_1] wrote to [EMAIL_ADDRESS_2] from user=[USERNAME_1]",
        "password: ${DB_PASSWORD}, password: null, password: <password>, pwd = true",
        "Calls per second: 12000 14000 16500 18000; rates 0.912 0.934 0.956 0.971",
        "The dob column was added in 2021; a date of birth is stored as ISO 8601.",
    ],
)
def test_technical_text_stays(text):
    assert show(text) == []


@pytest.mark.parametrize(
    ("hidden", "seen"),
    [
        ("a\u200bn\u00ada@corp.example", "ana@corp.example"),
        ("ana＠corp．example", "ana@corp.example"),
        ("аnа@соrр.example", "ana@corp.example"),  # Cyrillic among Latin letters
        ("10\u200b.0.0\u2060.5", "10.0.0.5"),
        ("+44\u00a020\u20117946\u20110958", "+44 20-7946-0958"),
        ("e\u0301x", "éx"),
        ("Привет", "Привет"),  # a Russian word stays Russian
        ("on 0 3 / 1 2 / 1 9 8 5 ok", "on 03/12/1985 ok"),
        ("١٢", "12"),  # Arabic digits
    ],
)
def test_a_plain_copy_is_searched(hidden, seen):
    assert normalise(hidden)[0] == seen


def test_spans_of_a_hidden_entity_are_positions_in_the_text_as_given():
    text = "🙂 mail a\u200bn\u0430@corp.example\u200b, ok"
    [span] = find_spans(text)
    assert text[span.start : span.end] == "a\u200bn\u0430@corp.example\u200b"


def test_the_longest_span_wins_and_what_reaches_beyond_it_stays_covered():
    text = "Bo Li at Rua Li 5, x"
    spans = [
        Span(3, 15, "STREET_ADDRESS"),  # Li at Rua Li
        Span(0, 5, "PERSON"),  # Bo Li
        Span(13, 15, "PERSON"),  # Li
    ]
    wanted = [(0, 2, "PERSON"), (3, 15, "STREET_ADDRESS")]
    for order in (spans, spans[::-1]):
        found = settle_overlaps(text, order)
        assert [(s.start, s.end, s.entity_type) for s in found] == wanted


def test_pieces_that_read_as_one_are_joined_and_others_are_not():
    text = "Ana Bo, Cy"
    pieces = [Span(0, 3, "PERSON"), Span(4, 6, "PERSON"), Span(8, 10, "PERSON")]
    found = join_pieces(text, pieces)
    assert [(s.start, s.end) for s in found] == [(0, 6), (8, 10)]


def test_no_span_touches_a_placeholder():
    text = "to [PERSON_1] now"
    found = settle_overlaps(text, [Span(0, 17, "PERSON")], [(3, 13)])
    assert [text[s.start : s.end] for s in found] == ["to", "now"]


def test_patterns_of_ones_own_are_found_and_their_context_counts(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "recognizers:\n"
        "  - name: badge\n    supported_entity: BADGE\n    context: [badge]\n"
        "    patterns:\n"
        "      - {name: weak, regex: 'B\\d{3}', score: 0.1}\n"
        "      - {name: labelled, regex: 'gate<IS>G\\d{3}', score: 0.8}\n"
    )
    found = show("badge B123, gate is G777, part B456 of it all here", patterns=path)
    assert ("B123", "BADGE") in found
    assert ("G777", "BADGE") in found
    far = "and " * 9
    assert show(f"{far} part B456", patterns=path) == []


def test_the_cells_under_a_known_heading_are_found():
    table = "id,user,pwd,note\n7,akhan,monkey,fine\n8,null,,x\n\nThat, was, it, all"
    found = show(table)
    assert ("akhan", "USERNAME") in found
    assert ("monkey", "PASSWORD") in found
    assert not {"fine", "all", "7"} & {entity for entity, _ in found}


def test_a_file_of_patterns_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*none.yaml: give the"):
        find_spans("x", patterns=tmp_path / "none.yaml")


def test_a_file_that_holds_no_patterns_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("just text")
    with pytest.raises(
        ValueError, match=r"mine.yaml has no patterns: give a YAML file"
    ):
        find_spans("x", patterns=path)


def test_only_the_types_asked_for_are_found_and_what_is_kept_is_not():
    text = "ana@corp.example from 10.0.0.5"
    assert show(text, entity_types={"IP_ADDRESS"}) == [("10.0.0.5", "IP_ADDRESS")]
    assert show(text, keep={"IP_ADDRESS"}) == [("ana@corp.example", "EMAIL_ADDRESS")]
    with pytest.raises(ValueError, match="no entity type IP: use .*IP_ADDRESS"):
        find_spans(text, entity_types={"IP"})


def test_a_long_text_loses_nothing_where_its_windows_meet():
    line = "Nothing stands in this line, nor in the next one.\n"
    text = "".join(
        line + (f"mail p{i}@corp.example\n" if i % 7 == 0 else "") for i in range(700)
    )
    assert len(text) > 36_000  # more than two windows
    assert [found for found, _ in show(text)] == [
        f"p{i}@corp.example" for i in range(0, 700, 7)
    ]


def test_importing_redaction_loads_neither_presidio_nor_a_model_library():
    code = "import sys, ftlib.redaction; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert "ftlib.redaction.spans" in loaded
    assert {"presidio_analyzer", "spacy", "torch"}.isdisjoint(loaded)


HIDDEN = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2067\u034f"
OTHERS = "🙂𝔘ツש̈ß\u0301 \u00a0"


def make_hostile(rng):
    """Give a text with one address in it, spelt in a hostile way."""
    address = "zoe.ash@corp.example"
    spelt = "".join(
        (chr(ord(c) + 0xFEE0) if rng.random() < 0.2 else c)  # full width
        + (rng.choice(HIDDEN) if rng.random() < 0.3 else "")
        for c in address
    )
    noise = ["".join(rng.choices(OTHERS + HIDDEN, k=rng.randrange(12))) for _ in "ab"]
    text = f"Élan {noise[0]} to {spelt} , {noise[1]} naïve end"
    return unicodedata.normalize(rng.choice(["NFC", "NFD"]), text)


@pytest.mark.parametrize("block", range(4))
def test_of_200_hostile_spellings_each_is_replaced_and_nothing_else_is(block):
    for seed in range(50 * block, 50 * block + 50):
        text = make_hostile(random.Random(seed))
        spans = find_spans(text)
        assert all(0 <= s.start < s.end <= len(text) for s in spans), seed
        once = redact({"text": text})["text"]
        assert once.count("[EMAIL_ADDRESS_1]") == 1, seed
        before, after = once.split("[EMAIL_ADDRESS_1]")
        assert text.startswith(before), seed
        assert text.endswith(after), seed
        assert before.rstrip(HIDDEN).endswith("to "), seed
        assert after.startswith(" ,"), seed
        assert redact({"text": once})["text"] == once, seed


HOSTILE = [
    "a", "1", "1 ", "1-", "1.", "a@", "a.", "0:", "::", "é", "-", "/", "\\", "\n", " ",
    "password ", "password: ", "key=", "token: ", "'", '"', "eyJaaaaaaaa.", "http://a",
    "-----BEGIN PRIVATE KEY-----A", "Aa1", "(1", "+1 ", "12 Aa ", "born a", "ssn is ",
    "account number ", "national id number is of ", "mysql -", " -p",
    "a://a:", "C:\\Users\\", "b. ", "* 1", "née le ", "dob twenty ", "1, ", "12, Aa",
    "Aa Bb ", "Flat 1, ", "address 1, ", "AB12 A1", "AA11", "a[at]a[dot]",
    "a at b dot ", "user a ", "user is ", "password(", "password to ", "pin? it's ",
    "useradd -a a ", "-rw-r--r-- 1 a ", "@a ", "10 .", "id 1 ", "echo a|", "1-2-3,",
]  # fmt: skip


def list_patterns():
    found = engine.build_engine(None, False).registry.recognizers
    return [(r, p) for r in found for p in getattr(r, "patterns", [])]


@pytest.mark.parametrize(
    "hostile",
    [
        text if i % 25 == 0 else pytest.param(text, marks=pytest.mark.slow)
        for i, text in enumerate(HOSTILE)
    ],
)
def test_no_pattern_backtracks_without_bound(hostile):
    # A quadratic pattern takes 10 s and more, the slowest of ours some 0.1 s: a second
    # of processor time tells them apart on a busy machine too.
    text, slow = (hostile * 100_000)[:100_000], []
    for recognizer in engine.build_engine(None, False).registry.recognizers:
        for pattern in getattr(recognizer, "patterns", []):
            compiled = regex.compile(pattern.regex, recognizer.global_regex_flags)
            start = time.process_time()
            sum(1 for _ in compiled.finditer(text, timeout=20))
            if time.process_time() - start > 1:
                slow.append((recognizer.name, pattern.name))
    start = time.process_time()
    sum(1 for _ in recognizers._PHONE.finditer(text))
    assert time.process_time() - start < 1
    assert slow == []


def test_the_words_of_a_text_are_not_kept():
    find_spans("mail first@corp.example")  # loads what it needs
    words = engine.build_engine().nlp_engine.nlp["en"].vocab.strings
    n_before = len(words)
    text = "Zyxwvut mailed second@corp.example on Monday, unheardof and unseen"
    assert show(text) == [("second@corp.example", "EMAIL_ADDRESS")]
    assert len(words) == n_before
    assert "Zyxwvut" not in words


def test_no_two_threads_are_in_spacys_zone_at_once(monkeypatch):
    analyzer, meeting = engine.build_engine(), threading.Barrier(2)
    analyze, met = analyzer.analyze, []

    def _wait_for_another(*args):
        with contextlib.suppress(threading.BrokenBarrierError):
            met.append(meeting.wait(0.5))
        return analyze(*args)

    monkeypatch.setattr(analyzer, "analyze", _wait_for_another)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(show, ["a@corp.example"] * 2))
    assert found == [[("a@corp.example", "EMAIL_ADDRESS")]] * 2
    assert met == []
