"""The text that the redactor learns from: labelled by construction, seeded, endless.

A text is a template with slots, or a record in one of many formats, or words at random
with a name among them. Filling a slot records its span, so the labels are exact. About
half of the text is there to hold nothing private: templates of its own, the same
templates and records with a role in place of the name, and the docstrings and source
lines of libraries that this project uses, read where they are installed.

The conventions. Mr, Mrs, Dr and the like belong to PERSON, and so does the comma in
"Last, First"; a job title and a possessive 's do not. An eponym (Bayes' theorem) is no
PERSON, a product no ORGANIZATION, and a language or nationality no LOCATION. An address
with a street in it is one STREET_ADDRESS from the house number to the country. Mail
addresses and phone numbers are IGNORE: fixed formats are found by other means, so the
model is neither taught to find nor to spare them.
"""

# ruff: noqa: SIM905 - word lists read better as running text.

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

TYPES = (
    "PERSON",
    "LOCATION",
    "ORGANIZATION",
    "STREET_ADDRESS",
    "USERNAME",
    "PASSWORD",
    "DATE_OF_BIRTH",
)
IGNORE = "IGNORE"
LOCALES = """az_AZ cs_CZ da_DK de_AT de_CH de_DE en_GB en_IE en_IN en_KE en_NG en_NZ
    en_PK en_US es es_AR es_CL es_CO es_ES es_MX et_EE fi_FI fr_CA fr_CH fr_DZ fr_FR
    ga_IE ha_NG hr_HR hu_HU id_ID ig_NG is_IS it_IT lt_LT lv_LV nl_BE nl_NL no_NO
    pl_PL pt_BR pt_PT ro_RO sk_SK sl_SI sv_SE sw tr_TR tw_GH uz_UZ vi_VN yo_NG zu_ZA
    bg_BG ru_RU uk_UA el_GR""".split()
NATIVE = "ru_RU uk_UA bg_BG el_GR zh_CN ja_JP ko_KR ar_SA he_IL hi_IN".split()
# Libraries whose docstrings and code serve as text without private data, and those of
# which only the README does. The second group is for the dev set alone.
LIBRARIES = {
    "train": "numpy pandas torch transformers datasets peft scipy".split(),
    "dev": "matplotlib sklearn networkx jupyter_server aiohttp".split(),
}
READMES = {
    "train": "accelerate jinja2 click rich pydantic cryptography requests jsonschema "
    "evaluate bitsandbytes tqdm psutil transformers datasets peft pandas numpy".split(),
    "dev": "matplotlib scikit-learn networkx tornado tokenizers".split(),
}
LETTERS = dict(
    zip(
        "абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґαβγδεζηθικλμνξοπρσςτυφχψω",
        "a b v g d e e zh z i y k l m n o p r s t u f kh ts ch sh shch _ y _ e yu ya i "
        "yi ye g a v g d e z i th i k l m n x o p r s s t y f ch ps o".split(),
        strict=True,
    )
)
LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7", "b": "8"}
BLUR = {"m": "rn", "l": "1", "o": "0", "i": "l", "e": "c", "h": "b", "rn": "m"}
CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
SLOT = re.compile(r"\{(\w+)\}")
# Docstrings that may name a person, a place or a firm are left out.
DOUBTFUL = re.compile(
    r"\b[A-Z]\. ?[A-Z]|et al|\(\d{4}\)|arXiv|Universit|@|opyright|uthor|icens|"
    r"redit|hanks|eferences|\.\. \[|and [A-Z][a-z]+ \[|Inc\b|Ltd|"
    r"\b(?:by|from|of|and) [A-Z][a-z]+ [A-Z][a-z]+|doi|"
    r"\b(?:Alice|Bob|John|Jane|Charlie|Smith|Doe|Paris|London|York|France|Germany|"
    r"China|Japan|Spain|Italy|USA|Canada|India|Clara|Wolfgang|Sarah|Obama)\b"
)
Piece = tuple[str, str | None]


class Text(NamedTuple):
    """One text and its labelled spans: start, end, type."""

    text: str
    spans: list[tuple[int, int, str]]


def _read_parts(name: str) -> dict[str, list[str]]:
    """Return the lines under each heading of a file beside this one."""
    parts: dict[str, list[str]] = {}
    for line in Path(__file__).with_name(name).read_text("utf-8").splitlines():
        if match := re.fullmatch(r"# ((?:[+-] )?\w+)", line):
            lines = parts[match[1]] = []
        elif line and not line.startswith(";"):
            lines.append(line)
    return parts


WORDS = {
    name: ",".join(lines).split(",")
    for name, lines in _read_parts("redactor_words.txt").items()
}
TEMPLATES = {
    name: [
        re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(*m[1] * 2), x)
        for x in lines
    ]
    for name, lines in _read_parts("redactor_words_templates.txt").items()
}


def _is_dev(name: str) -> bool:
    """Say whether a name belongs to the dev set: one in ten, whatever its case."""
    return zlib.crc32(name.lower().encode()) % 10 == 0


def _to_latin(name: str) -> str:
    """Transliterate a Cyrillic or Greek name; others stay as they are."""
    plain = unicodedata.normalize("NFC", name).lower()
    plain = "".join(
        LETTERS.get(c) or LETTERS.get(unicodedata.normalize("NFD", c)[0], c)
        for c in plain
    )
    return plain.replace("_", "").title() if plain != name.lower() else name


@functools.cache
def _list_names(kind: str) -> tuple[list[list[str]], list[str]]:
    """Return the first or last names of each origin, and those in other scripts."""
    origins, native = [], []
    for locale in dict.fromkeys(LOCALES + NATIVE):
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        names = []
        for end in ("s", "s_male", "s_female"):
            found = getattr(provider, f"{kind}_name{end}", ())
            names += [] if isinstance(found, property) else list(found)
        names = sorted({x.strip() for x in names if len(x.strip()) > 1})
        if locale in NATIVE:
            native += names
        if locale in LOCALES and names:
            origins.append([_to_latin(name) for name in names])
    own = WORDS["first" if kind == "first" else "last"]
    return origins + [own] * (len(origins) // 3), native


@functools.cache
def read_library(name: str) -> tuple[list[str], list[str]]:
    """
    Read the prose and the code of an installed library.

    Parameters
    ----------
    name : str
        Of a package; at most 220 of its files are read.

    Returns
    -------
    tuple of list of str
        Paragraphs of docstrings, and stretches of source, neither with a name in it.
    """
    folder = Path(importlib.util.find_spec(name).submodule_search_locations[0])
    files = sorted(folder.rglob("*.py"))
    files = [f for f in files if "test" not in f.as_posix()]
    prose, code = [], []
    for file in files[:: max(1, len(files) // 220)]:
        source = file.read_text("utf-8", errors="ignore")[:60_000]
        try:
            nodes = ast.walk(ast.parse(source))
        except (SyntaxError, ValueError):
            continue
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                paragraphs = (ast.get_docstring(node) or "").split("\n\n")
                prose += [p.strip() for p in paragraphs if 30 < len(p) < 700]
        lines = [x for x in source.splitlines() if x.strip()]
        code += ["\n".join(lines[i : i + 4]) for i in range(0, len(lines), 12)]
    unique = [list(dict.fromkeys(texts)) for texts in (prose, code)]
    prose, code = ([x for x in texts if not DOUBTFUL.search(x)] for texts in unique)
    return prose, code


def read_readme(name: str) -> list[str]:
    """Read the paragraphs of an installed package's README that name nobody."""
    try:
        text = importlib.metadata.metadata(name).get_payload() or ""
    except importlib.metadata.PackageNotFoundError:
        return []
    paragraphs = (p.strip() for p in re.split(r"\n\s*\n", text))
    return [p for p in paragraphs if 30 < len(p) < 700 and not DOUBTFUL.search(p)]


class Writer:
    """
    Writes texts of one split without end.

    Parameters
    ----------
    split : {"train", "dev"}
        Which names, templates and libraries to draw from; the two share none.
    seed : int
        Of all draws.
    """

    def __init__(self, split: str, seed: int):
        self.rng = Random(f"{split} {seed}")
        self.split = split
        dev = split == "dev"
        self.origins = {}
        for kind in ("first", "last"):
            lists, native = _list_names(kind)
            self.origins[kind] = [
                kept for names in lists if (kept := self._keep(names))
            ]
            self.origins[f"native_{kind}"] = [self._keep(native)]
        named = (
            "city",
            "region",
            "place",
            "country",
            "street",
            "rue",
            "companyword",
            "bigorg",
            "nick",
            "product",
            "eponym",
            "heading",
            "thing",
        )
        self.words = {
            name: self._keep(words) if name in named else words
            for name, words in WORDS.items()
        }
        self.templates = {
            name: [x for i, x in enumerate(lines) if (i % 6 == 5) is dev]
            for name, lines in TEMPLATES.items()
        }
        self.private = [x for x in self.templates if x.startswith("+")]
        self.prose, self.code = [], []
        for library in LIBRARIES[split]:
            prose, code = read_library(library)
            self.prose += self.rng.sample(prose, min(len(prose), 2500))
            self.code += self.rng.sample(code, min(len(code), 1200))
        for package in READMES[split]:
            self.prose += read_readme(package) * 3

    def _keep(self, names: list[str]) -> list[str]:
        """Keep the names of this split."""
        return [x for x in names if _is_dev(x) is (self.split == "dev")]

    def pick(self, name: str) -> str:
        """Give one entry of a word list."""
        return self.rng.choice(self.words[name])

    def chance(self, share: float) -> bool:
        """Say yes with probability `share`."""
        return self.rng.random() < share

    # --- names -------------------------------------------------------------------

    def coin(self) -> str:
        """Give a name of random syllables that nobody has."""
        onsets = "b br c ch d dr f g gr h j k kl kh l m n nd ng p q r s sh st str t th "
        onsets += "tr ts v w x y z zh mb vl sv".upper().lower()
        vowels = "a e i o u ai au ea ee ie oa oo ou y ae ei ue ia".split()
        codas = [
            "",
            "",
            "",
            *"n r l s k m t x th nd rt ng ck sz wski ssen lund".split(),
        ]
        choose = self.rng.choice
        parts = [
            choose(onsets.split()) + choose(vowels)
            for _ in range(self.rng.choices((1, 2, 3, 4), (2, 5, 3, 1))[0])
        ]
        return ("".join(parts) + choose(codas)).title()

    def given(self) -> str:
        """Give a first name."""
        if self.chance(0.06):
            return self.coin()
        return self.rng.choice(self.rng.choice(self.origins["first"])).split("/")[0]

    def family(self) -> str:
        """Give a last name, perhaps with a particle, doubled, or never seen."""
        draw = self.rng.random()
        if draw < 0.14:
            name = self.coin()
        elif draw < 0.20:
            name = self.pick("word").title()
        else:
            name = self.rng.choice(self.rng.choice(self.origins["last"]))
        draw = self.rng.random()
        if draw < 0.05:
            particle = self.pick("particle")
            return particle + ("" if particle.endswith("-") else " ") + name
        if draw < 0.10:
            return name + self.rng.choice("- - ‐ –".split(" ")) + self.coin_or_last()
        if draw < 0.12:
            return self.rng.choice(("O'", "O’", "D'", "Mc", "Mac", "Fitz", "N'")) + name
        if draw < 0.16:
            return f"{name} {self.coin_or_last()}"
        return name

    def coin_or_last(self) -> str:
        """Give a last name without any more parts."""
        if self.chance(0.2):
            return self.coin()
        return self.rng.choice(self.rng.choice(self.origins["last"]))

    def full(self) -> str:
        """Give a name in full, in one of the orders and shapes that occur."""
        draw, first, last = self.rng.random(), self.given(), self.family()
        initial = self.rng.choice("ABCDEFGHIJKLMNOPRSTVWYZ")
        if draw < 0.60:
            return f"{first} {last}"
        if draw < 0.68:
            return f"{first} {initial}. {last}"
        if draw < 0.73:
            return f"{first} {self.given()} {last}"
        if draw < 0.79:
            joint = self.rng.choice((". ", ". ", ".", " "))
            second = self.rng.choice(("", f"{initial}{joint}"))
            return f"{first[0].upper()}{joint}{second}{last}"
        if draw < 0.82:
            return f"{first}-{self.given()} {last}"
        if draw < 0.85:
            return f"{first} {last}{self.rng.choice((' Jr.', ' Jr', ', Jr.', ' III'))}"
        if draw < 0.88:
            mark = self.rng.choice(('"{}"', "“{}”", "'{}'", "({})"))
            return f"{first} {mark.format(self.pick('nick'))} {last}"
        if draw < 0.91:
            return f"{last} {first}"
        if draw < 0.94:
            return f"{last.upper()} {first}" if self.chance(0.5) else f"{last}, {first}"
        if draw < 0.97:
            native = [self.origins[f"native_{x}"][0] for x in ("first", "last")]
            return " ".join(map(self.rng.choice, native))
        return f"{first} {last} {self.family()}"

    def formal(self) -> str:
        """Give a name with a form of address."""
        address = self.rng.choice(
            "Mr Mrs Ms Miss Dr Prof Mr. Mrs. Ms. Dr. Prof. Sir Mx Herr Frau Señor Sra. "
            "Monsieur Mme Signor Shri Smt".split()
        )
        name = self.family() if self.chance(0.7) else self.full()
        return f"{address} {name}"

    def person(self) -> str:
        """Give a name as running text has it."""
        draw = self.rng.random()
        if draw < 0.45:
            return self.full()
        if draw < 0.65:
            return self.given()
        if draw < 0.77:
            return self.family()
        if draw < 0.92:
            return self.formal()
        if draw < 0.96:
            return self.pick("nick")
        return f"{self.given()} {self.family()[0].upper()}{self.rng.choice(('.', ''))}"

    def place(self) -> str:
        """Give a place that is no street address."""
        kind = self.rng.choices(("city", "country", "region", "place"), (6, 3, 2, 1.5))[
            0
        ]
        name = self.pick(kind)
        if kind == "city" and self.chance(0.2):
            name = self.coin() + self.rng.choice(
                (
                    "",
                    "ville",
                    " Falls",
                    "burg",
                    "ton",
                    "stadt",
                    "grad",
                    "pur",
                    " Springs",
                    "bury",
                    "by",
                    " Heights",
                    "abad",
                    "mouth",
                    "field",
                    " Bay",
                )
            )
        if kind == "city" and self.chance(0.15):
            name += ", " + self.pick(self.rng.choice(("country", "region")))
        return name

    def org(self) -> str:
        """Give an organisation."""
        draw = self.rng.random()
        word = self.coin() if self.chance(0.35) else self.pick("companyword")
        if draw < 0.12:
            return self.pick("bigorg")
        if draw < 0.25:
            city = self.pick("city")
            return self.rng.choice(
                (
                    f"University of {city}",
                    f"{city} General Hospital",
                    f"{city} City Council",
                    f"St. {self.given()}'s Hospital",
                    f"{city} Police Department",
                    f"the {city} District Court",
                    f"{city} Institute of Technology",
                    f"Bank of {city}",
                    f"{self.family()} High School",
                    f"{city} United",
                    f"the {city} Herald",
                    f"{city} Chamber of Commerce",
                    f"{word} University",
                    f"the {word} Foundation",
                    f"Ministry of {self.pick('trade')}",
                    f"{city} FC",
                )
            )
        if draw < 0.40:
            names = [self.coin_or_last() for _ in range(self.rng.choice((1, 2, 3)))]
            joint = self.rng.choice((" & ", " and ", ", "))
            name = (
                joint.join(names)
                if len(names) < 3
                else (f"{names[0]}, {names[1]} & {names[2]}")
            )
            return f"{name} {self.pick('companyend')}"
        name = f"{word} {self.pick('trade')}" if self.chance(0.75) else word
        return f"{name} {self.pick('companyend')}" if self.chance(0.5) else name

    def address(self) -> str:
        """Give a postal address of one of many countries."""
        rng, n = self.rng, self.rng.randint(1, 399)
        name = self.coin() if self.chance(0.25) else self.pick("street")
        joint = rng.choice((", ", ", ", ", ", "\n", " "))
        code = rng.choice(
            (
                f"{rng.randint(10000, 99999)}",
                f"{rng.randint(1000, 9999)}",
                f"{rng.choice('ABCELNSW')}{rng.choice('BEWR')}{rng.randint(1, 19)} "
                f"{rng.randint(1, 9)}{rng.choice('ABDEFG')}{rng.choice('HJLNP')}",
                f"{rng.randint(100, 999)} {rng.randint(10, 99)}",
                f"{rng.randint(1000, 9999)} {rng.choice('ABCDEF')}{rng.choice('GHJK')}",
            )
        )
        if self.chance(0.5):
            street = f"{n * rng.choice((1, 1, 7))} {name} {self.pick('road')}"
            if self.chance(0.25):
                unit = rng.choice(("Apt ", "Apt. ", "Suite ", "Flat ", "Unit ", "#"))
                street += f"{rng.choice((', ', ' '))}{unit}{rng.randint(1, 60)}"
        elif self.chance(0.3):
            end = rng.choice(
                ("straße", "strasse", "gatan", "weg", "gade", "laan", "str.")
            )
            street = f"{name}{end} {n}{rng.choice(('', 'a', ' B'))}"
        else:
            mark = rng.choice((" ", ", ", " nº ", " no. ", ", n. "))
            street = self.pick("rue")
            street = f"{n} {street}" if self.chance(0.25) else f"{street}{mark}{n}"
        city = self.coin() if self.chance(0.2) else self.pick("city")
        if self.chance(0.3):
            return street
        tail = rng.choice(
            (
                f"{city} {code}",
                f"{code} {city}",
                f"{city}{joint}{code}",
                city,
                f"{city}, {rng.choice(STATES)} {code}",
            )
        )
        if self.chance(0.2):
            tail += joint + self.pick("country")
        return f"{street}{joint}{tail}"

    def user(self) -> str:
        """Give a log-in name or a handle that belongs to a person."""
        ascii_only = lambda name: re.sub(  # noqa: E731
            r"[^a-z]", "", unicodedata.normalize("NFD", name.lower())
        )
        first = ascii_only(self.given()) or "ana"
        last = ascii_only(self.coin_or_last()) or "silva"
        n = self.rng.choice(("", "", "", str(self.rng.randint(1, 99)), "1987", "007"))
        word = self.pick("word")
        name = self.rng.choice(
            (
                f"{first[0]}{last}",
                f"{first}.{last}",
                f"{first}_{last}",
                f"{first}{last}",
                f"{last}{first[0]}",
                f"{first}",
                f"{first}{last[0]}",
                f"{last}",
                f"{first[0]}.{last}",
                f"{first}-{last}",
                f"{last[:5]}{first[:2]}",
                f"{word}{first}",
                f"{word}_{word}",
                f"{first}x{word}",
                f"x{last[:4]}{n}42",
            )
        )
        name += n
        return name.title() if self.chance(0.05) else name

    def password(self) -> str:
        """Give a password as people choose them."""
        rng, word = self.rng, self.pick("word")
        signs = "".join(
            rng.choices(
                "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!@#$%&*?_-+",
                k=rng.randint(7, 16),
            )
        )
        return rng.choice(
            (
                signs,
                signs,
                f"{word.title()}{rng.randint(1, 2030)}{rng.choice('!?#$')}",
                f"{word}{rng.randint(1, 9999)}",
                f"{word}-{self.pick('word')}-{self.pick('word')}",
                f"{self.given()}{rng.randint(1950, 2025)}!",
                word.replace("o", "0") + "123",
            )
        )

    def date(self, first_year: int = 1990, last_year: int = 2027) -> str:
        """Give a date in one of many forms."""
        rng = self.rng
        y, m, d = (
            rng.randint(first_year, last_year),
            rng.randint(1, 12),
            rng.randint(1, 28),
        )
        month = MONTHS[m - 1]
        return rng.choice(
            (
                f"{d} {month} {y}",
                f"{month} {d}, {y}",
                f"{y}-{m:02}-{d:02}",
                f"{d:02}/{m:02}/{y}",
                f"{m}/{d}/{y}",
                f"{d:02}.{m:02}.{y}",
                f"{d} {month[:3]} {y}",
                f"{month[:3]} {d}, {y}",
                f"{d}-{month[:3]}-{y % 100:02}",
                f"{d}th of {month} {y}",
                f"{m:02}-{d:02}-{y}",
            )
        )

    def stamp(self) -> str:
        """Give a log's time stamp."""
        rng = self.rng
        y, m, d = rng.randint(2018, 2027), rng.randint(1, 12), rng.randint(1, 28)
        clock = (
            f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}"
        )
        return rng.choice(
            (
                f"{y}-{m:02}-{d:02}T{clock}Z",
                f"{y}-{m:02}-{d:02} {clock},{rng.randint(0, 999):03}",
                f"{MONTHS[m - 1][:3]} {d:2} {clock}",
                f"{d:02}/{MONTHS[m - 1][:3]}/{y}:{clock} +0000",
                f"[{clock}]",
                str(rng.randint(1_500_000_000, 1_800_000_000)),
            )
        )

    def fill(self, slot: str) -> Piece:
        """Give what a slot holds, and its label."""
        rng = self.rng
        if slot in PRIVATE_SLOTS:
            label, make = PRIVATE_SLOTS[slot]
            return make(self), label
        if slot in self.words:
            return self.pick(slot), None
        number = rng.randint(1, 10 ** rng.randint(1, 5))
        word = self.pick("word")
        plain: dict[str, Callable[[], str]] = {
            "n": lambda: str(number),
            "year": lambda: str(rng.randint(1890, 2027)),
            "date": self.date,
            "ts": self.stamp,
            "time": lambda: f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}",
            "ip": lambda: (
                f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{number % 256}"
            ),
            "port": lambda: str(rng.randint(20, 65535)),
            "ver": lambda: f"{rng.randint(0, 20)}.{rng.randint(0, 30)}.{number % 10}",
            "hex": lambda: f"{rng.getrandbits(40):010x}",
            "month": lambda: rng.choice(MONTHS),
            "weekday": lambda: rng.choice(WEEKDAYS),
            "money": lambda: rng.choice(("${}", "€{}", "{} USD", "£{}.00")).format(
                number
            ),
            "letter": lambda: rng.choice("abcdefghkmnpqrst"),
            "cmd": lambda: rng.choice(COMMANDS),
            "code": lambda: rng.choice(rng.choice(self.code).splitlines()).strip(),
            "heading1": lambda: self.pick("heading").split()[0],
            "headingupper": lambda: self.pick("heading").upper(),
            "hostupper": lambda: self.pick("host").upper(),
            "wordupper": word.upper,
        }
        return plain[slot](), None

    # --- texts -------------------------------------------------------------------

    def expand(self, template: str, private: bool) -> list[Piece]:
        """Fill a template; with `private` false, roles stand where names would."""
        while match := CHOICE.search(template):
            chosen = self.rng.choice(match[1].split("|"))
            template = template[: match.start()] + chosen + template[match.end() :]
        pieces: list[Piece] = []
        for i, part in enumerate(SLOT.split(template)):
            if i % 2 == 0:
                pieces.append((part, None))
            elif private or part not in PRIVATE_SLOTS:
                pieces.append(self.fill(part))
            else:
                pieces.append((self._stand_in(PRIVATE_SLOTS[part][0]), None))
        return pieces

    def _stand_in(self, label: str) -> str:
        """Give what stands in a private slot of a text without private data."""
        draw = self.rng.random()
        if label == "PERSON":
            kind = "role" if draw < 0.7 else "product" if draw < 0.85 else "title"
            text = self.pick(kind)
            return text[0].upper() + text[1:] if self.chance(0.3) else text
        if label == "LOCATION" or label == "STREET_ADDRESS":
            return self.pick("site")
        if label == "ORGANIZATION":
            return self.pick("firm" if draw < 0.8 else "role")
        if label == "USERNAME":
            return self.pick("account")
        if label == "DATE_OF_BIRTH":
            return self.rng.choice(("unknown", "n/a", "[redacted]", "see file"))
        return self.rng.choice(
            ("********", "[redacted]", "xxxx", "<hidden>", "expired")
        )

    def record(self, private: bool) -> list[Piece]:
        """Write records of random fields in a format that machines read."""
        rng = self.rng
        fields: list[tuple[str, str | None]] = []
        for _ in range(rng.randint(1, 3) if private else 0):
            slot = rng.choices(list(FIELDS), FIELD_WEIGHTS)[0]
            fields.append((rng.choice(FIELDS[slot].split()), slot))
        fields += [(self.pick("key"), None) for _ in range(rng.randint(1, 4))]
        rng.shuffle(fields)
        style = rng.choice(("snake", "camel", "title", "spaced", "upper"))
        names = [_style(name, style) for name, _ in fields]
        rows = [
            [
                self.fill(slot)
                if slot
                else (
                    (self.pick("value"), None)
                    if self.chance(0.6)
                    else self.fill(
                        rng.choice(("n", "ver", "ip", "host", "date", "hex"))
                    )
                )
                for _, slot in fields
            ]
            for _ in range(rng.choice((1, 1, 2, 3)))
        ]
        rows = [[(v.replace("\n", ", "), label) for v, label in row] for row in rows]
        kind = rng.choice(
            (
                "json",
                "json",
                "json lines",
                "yaml",
                "xml",
                "ini",
                "kv",
                "kv",
                "csv",
                "csv",
                "tsv",
                "pipe",
                "form",
                "form",
                "sql",
                "query",
                "python",
                "headless",
            )
        )
        out: list[Piece] = []
        add = lambda text: out.append((text, None))  # noqa: E731
        if kind in ("csv", "tsv", "pipe", "headless"):
            mark = {"tsv": "\t", "pipe": " | ", "csv": rng.choice(",;")}.get(kind, "  ")
            if kind != "headless" or self.chance(0.2):
                add(mark.join(names) + "\n")
            quote = '"' if kind == "csv" and self.chance(0.3) else ""
            for row in rows:
                for i, value in enumerate(row):
                    out += [((mark if i else "") + quote, None), value, (quote, None)]
                add("\n")
            return out
        mark = {
            "yaml": ": ",
            "ini": rng.choice((" = ", "=")),
            "kv": rng.choice("=:"),
            "form": rng.choice((": ", ":  ", " - ", ":\n", "\t")),
        }.get(kind, "")
        quote = rng.choice(('"', "'", "", "")) if kind in ("kv", "yaml", "ini") else '"'
        for row in rows:
            if kind in ("json", "json lines", "python"):
                gap = rng.choice(("\n  ", " ", "")) if kind == "json" else " "
                for i, (name, (value, label)) in enumerate(
                    zip(names, row, strict=True)
                ):
                    add(("," if i else "{") + gap + json.dumps(name) + ": ")
                    escaped = self.chance(0.15)
                    text = json.dumps(value, ensure_ascii=escaped)[1:-1]
                    out += [('"', None), (text, label), ('"', None)]
                add("}\n")
            elif kind == "sql":
                add(f"INSERT INTO {self.pick('word')} ({', '.join(names)}) VALUES (")
                for i, value in enumerate(row):
                    out += [(", '" if i else "'", None), value, ("'", None)]
                add(");\n")
            elif kind == "query":
                add(f"/{self.pick('word')}")
                for i, (name, (value, label)) in enumerate(
                    zip(names, row, strict=True)
                ):
                    joint = rng.choice(("+", "%20"))
                    out += [
                        (f"{'&' if i else '?'}{name}=", None),
                        (value.replace(" ", joint), label),
                    ]
                add("\n")
            elif kind == "xml":
                for name, value in zip(names, row, strict=True):
                    tag = name.replace(" ", "_")
                    out += [(f"<{tag}>", None), value, (f"</{tag}>\n", None)]
            else:
                end = " " if kind == "kv" else "\n"
                for name, value in zip(names, row, strict=True):
                    out += [(f"{name}{mark}{quote}", None), value, (quote + end, None)]
        return out

    def salad(self, private: bool) -> list[Piece]:
        """Write library prose or random words, with private data dropped in."""
        rng = self.rng
        if self.chance(0.6):
            words = rng.choice(self.prose).split()[: rng.randint(6, 40)]
        else:
            words = [self.pick("word") for _ in range(rng.randint(4, 18))]
        if not private:
            return [(" ".join(words), None)]
        at = rng.randint(0, len(words))
        slot = rng.choices(
            ("person", "full", "loc", "org", "address", "user"), (4, 5, 2, 2, 1, 0.5)
        )[0]
        lead = rng.choice(LEADS[PRIVATE_SLOTS[slot][0]])
        return [
            (" ".join(words[:at]) + (" " if at else "") + lead, None),
            self.fill(slot),
            (
                rng.choice((" ", ", ", "'s ", ". ", ": ", " (")) + " ".join(words[at:]),
                None,
            ),
        ]

    def draw_library(self) -> list[Piece]:
        """Give the prose or the code of a library."""
        source = self.prose if self.chance(0.75) else self.code
        return [(self.rng.choice(source), None)]

    def write(self) -> Text:
        """
        Write one text.

        Returns
        -------
        Text
            Of a line to about 120 tokens.
        """
        pieces: list[Piece] = []
        for i in range(self.rng.choices((1, 2, 3), (8, 2, 1))[0]):
            joint = self.rng.choice((" ", "\n", "\n\n")) if i else ""
            pieces += [(joint, None), *self.disturb(self._draft())]
        return _join(pieces, self.rng)

    def _draft(self) -> list[Piece]:
        """Write one text of one kind, spelt well."""
        rng = self.rng
        private = self.chance(0.45)
        pieces: list[Piece] = []
        draw = rng.random()
        if private and draw < 0.74:
            lines = self.templates[rng.choice(self.private)]
            joint = rng.choice((" ", " ", "\n", "\n\n"))
            for i in range(rng.choices((1, 2, 3, 4), (6, 5, 3, 2))[0]):
                pieces += [(joint if i else "", None)]
                if self.chance(0.12):  # a neighbour that holds nothing
                    pieces += self.expand(rng.choice(self.templates["- plain"]), False)
                else:
                    pieces += self.expand(rng.choice(lines), not self.chance(0.08))
        elif private:
            pieces = self.record(True) if draw < 0.89 else self.salad(True)
        elif draw < 0.42:
            pieces = self.draw_library()
        elif draw < 0.70:
            lines = self.templates[rng.choice(("- tech", "- tech", "- plain"))]
            joint = rng.choice((" ", "\n"))
            for i in range(rng.choices((1, 2, 3, 4), (4, 4, 3, 2))[0]):
                pieces += [(joint if i else "", None)]
                pieces += self.expand(rng.choice(lines), False)
        elif draw < 0.88:
            lines = self.templates[rng.choice(self.private)]
            for i in range(rng.choice((1, 2, 3))):
                pieces += [(" " if i else "", None)]
                pieces += self.expand(rng.choice(lines), False)
        else:
            pieces = self.record(False) if draw < 0.97 else self.salad(False)
        return pieces

    def disturb(self, pieces: list[Piece]) -> list[Piece]:
        """Spell some texts, and some names, as careless or hostile writers do."""
        draw = self.rng.random()
        if draw < 0.13:
            return [(text.lower(), label) for text, label in pieces]
        if draw < 0.17:
            return [(text.upper(), label) for text, label in pieces]
        if draw < 0.20:
            return [(unicodedata.normalize("NFD", x), label) for x, label in pieces]
        if draw < 0.24:  # an OCR'd page: names and all
            return [(self._distort(x, _blur, 0.25), label) for x, label in pieces]
        if draw < 0.27:
            return [(self._distort(x, _leet, 0.25), label) for x, label in pieces]
        if draw < 0.60:
            return pieces
        out: list[Piece] = []
        for text, label in pieces:
            if label == "PERSON" and self.chance(0.5):
                text = self._misspell(text)
            elif label in ("LOCATION", "ORGANIZATION") and self.chance(0.2):
                text = text.lower() if self.chance(0.6) else text.upper()
            elif label is None and self.chance(0.05):
                text = self._distort(
                    text, self.rng.choice((_leet, _space, _blur)), 0.15
                )
            out.append((text, label))
        return out

    def _distort(self, text: str, change: Callable, share: float) -> str:
        """Change a share of the words."""
        words = re.split(r"(\s+)", text)
        return "".join(
            change(w, self.rng) if w.strip() and self.chance(share) else w
            for w in words
        )

    def _misspell(self, name: str) -> str:
        """Spell one name in an odd way."""
        rng = self.rng
        way = rng.choice(
            (
                "lower",
                "lower",
                "upper",
                "upper",
                "space",
                "leet",
                "leet",
                "blur",
                "blur",
                "double",
                "drop",
                "mixed",
                "join",
                "dots",
                "accent",
                "hyphen",
            )
        )
        match way:
            case "lower":
                return name.lower()
            case "upper":
                return name.upper()
            case "space":
                return _space(name, rng)
            case "leet":
                return _leet(name, rng)
            case "blur":
                return _blur(name, rng)
            case "mixed":
                return "".join(
                    c.upper() if rng.random() < 0.5 else c.lower() for c in name
                )
            case "join":
                return re.sub(r"[ .]+", rng.choice(("_", "", "-", ".", "+")), name)
            case "dots":
                return name.replace(
                    " ", rng.choice(("  ", "\n", " . ", "\t", "\u00a0"))
                )
            case "accent":
                marks = "\u0301\u0300\u0308\u0303\u0327"
                at = rng.randint(1, len(name))
                return name[:at] + rng.choice(marks) + name[at:]
            case "hyphen":
                return name.replace("-", rng.choice("‐–—_ ")).replace(
                    "'", rng.choice("’`ʼ ")
                )
        at = rng.randrange(len(name))
        return name[:at] + (name[at] * 2 if way == "double" else "") + name[at + 1 :]


def _leet(name: str, rng: Random) -> str:
    """Put digits for some letters."""
    return "".join(
        rng.choice(LEET[c.lower()]) if c.lower() in LEET and rng.random() < 0.6 else c
        for c in name
    )


def _blur(name: str, rng: Random) -> str:
    """Misread some letters, as OCR does; now and then a gap appears."""
    out = "".join(BLUR.get(c, c) if rng.random() < 0.3 else c for c in name)
    if rng.random() < 0.25 and len(out) > 3:
        at = rng.randint(1, len(out) - 1)
        out = out[:at] + " " + out[at:]
    return out


def _space(name: str, rng: Random) -> str:
    """Put a blank, a dot or a hyphen between all letters."""
    return rng.choice((" ", " ", " ", ".", "-", "_")).join(name[:24])


def _style(name: str, style: str) -> str:
    """Write a field's name in one of the styles of field names."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name.replace("_", " ")).split()
    if style == "camel":
        return words[0].lower() + "".join(w.title() for w in words[1:])
    if style == "snake":
        return "_".join(words).lower()
    if style == "upper":
        return "_".join(words).upper()
    return " ".join(words).title() if style == "title" else " ".join(words).lower()


def _join(pieces: list[Piece], rng: Random) -> Text:
    """Join pieces to a text with spans; one text in ten is cut somewhere."""
    text, spans = "", []
    for piece, label in pieces:
        if label and piece.strip():
            spans.append((len(text), len(text) + len(piece), label))
        text += piece
    start, end = 0, min(len(text), 900)
    if rng.random() < 0.1 and len(text) > 40:
        start = text.find(" ", rng.randint(0, len(text) // 2)) + 1
    spans = [
        (max(s, start) - start, min(e, end) - start, label)
        for s, e, label in spans
        if min(e, end) - max(s, start) > 1
    ]
    return Text(text[start:end], spans)


MONTHS = (
    "January February March April May June July August September October November "
    "December"
).split()
STATES = "CA TX NY FL WA OH NSW VIC ON BC".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
COMMANDS = """cat grep curl wget powershell.exe cmd.exe python bash systemctl apt tar vi
    rundll32.exe certutil.exe net.exe whoami nmap psexec.exe mimikatz.exe rclone docker
    kubectl git make node java""".split()
PRIVATE_SLOTS: dict[str, tuple[str, Callable[[Writer], str]]] = {
    "person": ("PERSON", Writer.person),
    "full": ("PERSON", Writer.full),
    "first": ("PERSON", Writer.given),
    "last": ("PERSON", Writer.family),
    "formal": ("PERSON", Writer.formal),
    "nick": ("PERSON", lambda w: w.pick("nick")),
    "lastfirst": ("PERSON", lambda w: f"{w.family()}, {w.given()}"),
    "fullupper": ("PERSON", lambda w: w.full().upper()),
    "lastupper": ("PERSON", lambda w: w.family().upper()),
    "plusname": ("PERSON", lambda w: f"{w.given()}+{w.family()}".replace(" ", "+")),
    "snakename": ("PERSON", lambda w: f"{w.given()}_{w.coin_or_last()}"),
    "loc": ("LOCATION", Writer.place),
    "city": ("LOCATION", lambda w: w.pick("city")),
    "country": ("LOCATION", lambda w: w.pick("country")),
    "place": ("LOCATION", lambda w: w.pick("place")),
    "locupper": ("LOCATION", lambda w: w.place().upper()),
    "org": ("ORGANIZATION", Writer.org),
    "orgupper": ("ORGANIZATION", lambda w: w.org().upper()),
    "address": ("STREET_ADDRESS", Writer.address),
    "user": ("USERNAME", Writer.user),
    "pw": ("PASSWORD", Writer.password),
    "dob": ("DATE_OF_BIRTH", lambda w: w.date(1925, 2010)),
    "mail": (IGNORE, lambda w: f"{w.user()}@{w.pick('word')}.example"),
    "phone": (
        IGNORE,
        lambda w: f"+{w.rng.randint(1, 99)} {w.rng.randint(10**6, 10**9)}",
    ),
}
FIELDS = {
    "full": "name fullName full_name customer_name displayName contact employee "
    "patient author owner assignee reporter requester manager holder recipient sender "
    "caller passenger student cn driver witness buyer approver created_by agent guest "
    "tenant",
    "lastfirst": "name employee_name patient_name displayName member full_name",
    "first": "firstName first_name given_name fname givenName forename",
    "last": "lastName last_name surname lname family_name sn maidenName",
    "loc": "city location country town state birthplace region destination origin site "
    "geo office place_of_birth",
    "org": "company organization employer vendor client school bank org account_name "
    "supplier insurer hospital",
    "address": "address street street_address addr billingAddress shipTo home_address "
    "residence",
    "user": "user username login userId user_name account uid sam owner actor "
    "principal handle",
    "pw": "password passwd pwd secret passphrase pass",
    "dob": "dob birthDate date_of_birth birthday born",
    "mail": "email mail e_mail contact",
}
FIELD_WEIGHTS = (8, 3, 3, 3, 4, 3, 3, 4, 1.5, 1.5, 1)
LEADS = {
    "PERSON": (
        "",
        "",
        "",
        "see ",
        "by ",
        "ask ",
        "with ",
        "for ",
        "as noted by ",
        "and ",
        "(",
        "from ",
        "told ",
        "- ",
        "to ",
        "@",
        '"',
    ),
    "LOCATION": ("in ", "near ", "from ", "to ", "at ", "", "of "),
    "ORGANIZATION": ("at ", "by ", "from ", "for ", "with ", "", "via "),
    "STREET_ADDRESS": ("at ", "to ", "", "near ", "lives at "),
    "USERNAME": ("user ", "@", "by ", "login ", "for user "),
}


def write_texts(split: str, n: int, seed: int) -> Iterator[Text]:
    """
    Write `n` texts.

    Parameters
    ----------
    split : {"train", "dev"}
        Whose names, templates and libraries to use.
    n, seed : int
        How many, and the seed of all draws.

    Yields
    ------
    Text
        Text and spans.
    """
    writer = Writer(split, seed)
    for _ in range(n):
        yield writer.write()
