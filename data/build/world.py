"""
Wren's world: the real facts and the word lists that its training text is made of.

Facts (countries, elements, ...) are real and common knowledge; names, codes and
addresses are drawn at random, so that copying them can only be learned as a skill.
"""

import random

# country: capital, currency, continent, language
COUNTRIES = {
    "France": ("Paris", "euro", "Europe", "French"),
    "Spain": ("Madrid", "euro", "Europe", "Spanish"),
    "Italy": ("Rome", "euro", "Europe", "Italian"),
    "Germany": ("Berlin", "euro", "Europe", "German"),
    "Portugal": ("Lisbon", "euro", "Europe", "Portuguese"),
    "Greece": ("Athens", "euro", "Europe", "Greek"),
    "Finland": ("Helsinki", "euro", "Europe", "Finnish"),
    "Austria": ("Vienna", "euro", "Europe", "German"),
    "Ireland": ("Dublin", "euro", "Europe", "English"),
    "Poland": ("Warsaw", "zloty", "Europe", "Polish"),
    "Hungary": ("Budapest", "forint", "Europe", "Hungarian"),
    "Romania": ("Bucharest", "leu", "Europe", "Romanian"),
    "Sweden": ("Stockholm", "krona", "Europe", "Swedish"),
    "Norway": ("Oslo", "krone", "Europe", "Norwegian"),
    "Denmark": ("Copenhagen", "krone", "Europe", "Danish"),
    "Iceland": ("Reykjavik", "krona", "Europe", "Icelandic"),
    "Ukraine": ("Kyiv", "hryvnia", "Europe", "Ukrainian"),
    "Albania": ("Tirana", "lek", "Europe", "Albanian"),
    "Japan": ("Tokyo", "yen", "Asia", "Japanese"),
    "China": ("Beijing", "yuan", "Asia", "Chinese"),
    "India": ("New Delhi", "rupee", "Asia", "Hindi"),
    "Thailand": ("Bangkok", "baht", "Asia", "Thai"),
    "Vietnam": ("Hanoi", "dong", "Asia", "Vietnamese"),
    "Mongolia": ("Ulaanbaatar", "tugrik", "Asia", "Mongolian"),
    "Nepal": ("Kathmandu", "rupee", "Asia", "Nepali"),
    "Indonesia": ("Jakarta", "rupiah", "Asia", "Indonesian"),
    "Malaysia": ("Kuala Lumpur", "ringgit", "Asia", "Malay"),
    "Iran": ("Tehran", "rial", "Asia", "Persian"),
    "Iraq": ("Baghdad", "dinar", "Asia", "Arabic"),
    "Jordan": ("Amman", "dinar", "Asia", "Arabic"),
    "Israel": ("Jerusalem", "shekel", "Asia", "Hebrew"),
    "Georgia": ("Tbilisi", "lari", "Asia", "Georgian"),
    "Egypt": ("Cairo", "pound", "Africa", "Arabic"),
    "Morocco": ("Rabat", "dirham", "Africa", "Arabic"),
    "Tunisia": ("Tunis", "dinar", "Africa", "Arabic"),
    "Kenya": ("Nairobi", "shilling", "Africa", "Swahili"),
    "Ethiopia": ("Addis Ababa", "birr", "Africa", "Amharic"),
    "Ghana": ("Accra", "cedi", "Africa", "English"),
    "Nigeria": ("Abuja", "naira", "Africa", "English"),
    "Senegal": ("Dakar", "franc", "Africa", "French"),
    "Zambia": ("Lusaka", "kwacha", "Africa", "English"),
    "Angola": ("Luanda", "kwanza", "Africa", "Portuguese"),
    "Canada": ("Ottawa", "dollar", "North America", "English"),
    "Mexico": ("Mexico City", "peso", "North America", "Spanish"),
    "Cuba": ("Havana", "peso", "North America", "Spanish"),
    "Jamaica": ("Kingston", "dollar", "North America", "English"),
    "Brazil": ("Brasilia", "real", "South America", "Portuguese"),
    "Chile": ("Santiago", "peso", "South America", "Spanish"),
    "Peru": ("Lima", "sol", "South America", "Spanish"),
    "Colombia": ("Bogota", "peso", "South America", "Spanish"),
    "Uruguay": ("Montevideo", "peso", "South America", "Spanish"),
    "Australia": ("Canberra", "dollar", "Oceania", "English"),
    "Fiji": ("Suva", "dollar", "Oceania", "English"),
}

# element: symbol, atomic number
ELEMENTS = {
    "hydrogen": ("H", "1"),
    "helium": ("He", "2"),
    "lithium": ("Li", "3"),
    "carbon": ("C", "6"),
    "nitrogen": ("N", "7"),
    "oxygen": ("O", "8"),
    "fluorine": ("F", "9"),
    "neon": ("Ne", "10"),
    "sodium": ("Na", "11"),
    "magnesium": ("Mg", "12"),
    "aluminium": ("Al", "13"),
    "silicon": ("Si", "14"),
    "sulfur": ("S", "16"),
    "chlorine": ("Cl", "17"),
    "potassium": ("K", "19"),
    "calcium": ("Ca", "20"),
    "iron": ("Fe", "26"),
    "nickel": ("Ni", "28"),
    "copper": ("Cu", "29"),
    "zinc": ("Zn", "30"),
    "silver": ("Ag", "47"),
    "tin": ("Sn", "50"),
    "gold": ("Au", "79"),
    "mercury": ("Hg", "80"),
    "lead": ("Pb", "82"),
    "uranium": ("U", "92"),
}

OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "fast": "slow",
    "early": "late",
    "open": "closed",
    "full": "empty",
    "old": "new",
    "light": "dark",
    "hard": "soft",
    "rich": "poor",
    "strong": "weak",
    "loud": "quiet",
    "wet": "dry",
    "high": "low",
    "near": "far",
    "true": "false",
    "first": "last",
    "clean": "dirty",
    "safe": "dangerous",
    "public": "private",
    "long": "short",
    "thick": "thin",
    "up": "down",
    "left": "right",
    "inside": "outside",
}

YOUNG = {
    "dog": "puppy",
    "cat": "kitten",
    "cow": "calf",
    "horse": "foal",
    "sheep": "lamb",
    "goat": "kid",
    "hen": "chick",
    "duck": "duckling",
    "lion": "cub",
    "frog": "tadpole",
    "swan": "cygnet",
    "deer": "fawn",
}

MONTHS = """
    January February March April May June July August September October November
    December
""".split()
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
PLANETS = """
    Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune
""".split()

PEOPLE = """
    clerk nurse pilot driver baker farmer teacher painter lawyer doctor engineer
    manager student guard cook tailor singer writer plumber builder analyst auditor
    operator customer visitor employee contractor director secretary officer tenant
    agent administrator colleague
""".split()
THINGS = """
    box lamp table chair window door garden river bridge road train ship car bicycle
    book letter parcel ticket key map camera clock coat shirt bread apple cake cup
    bottle phone screen cable printer laptop server router folder file report
    invoice contract order account mailbox message password token badge backup
    script database network firewall gateway certificate package process service
    port session request query record table alert rule policy queue log cluster disk
    attachment link website macro registry domain address user workstation device
""".split()
ADJECTIVES = """
    red green blue yellow black white brown grey small large old new heavy light
    broken empty full quiet busy narrow wide cheap bright dark cold warm clean dirty
    simple strange common rare local remote public private secure unknown suspicious
    internal external shared weekly annual urgent late early failed blocked
    encrypted expired valid hidden active idle missing spare second final
""".split()
PAST_VERBS = """
    found opened closed moved sold bought carried cleaned painted repaired checked
    wrote read sent received copied deleted blocked allowed started stopped reported
    approved rejected reviewed counted replaced installed removed locked unlocked
    restarted scanned updated renamed downloaded uploaded encrypted restored
    disabled enabled tested signed delivered returned noticed flagged isolated
    created changed
""".split()
PLACES = [
    "in the kitchen",
    "near the station",
    "at the office",
    "behind the school",
    "in the main hall",
    "on the second floor",
    "at the harbour",
    "in the old town",
    "by the gate",
    "in the data centre",
    "on the shared drive",
    "in the mail queue",
    "at the front desk",
    "in the warehouse",
    "next to the river",
    "on the test server",
    "in the cloud console",
    "at the branch office",
]
TIMES = [
    "this morning",
    "yesterday",
    "last week",
    "on Monday",
    "on Friday",
    "before lunch",
    "after the meeting",
    "at night",
    "during the storm",
    "in the spring",
    "two days ago",
    "at noon",
    "over the weekend",
    "around midnight",
    "within an hour",
    "shortly after login",
    "since the last update",
]
FILLERS = [
    "Nothing else happened.",
    "The weather was mild.",
    "Everyone went home early.",
    "Please keep this note.",
    "More details will follow.",
    "The rest of the day was calm.",
    "No one was hurt.",
    "It took about an hour.",
    "The lights stayed on.",
    "We will check again next week.",
    "The team was informed.",
    "The queue was short.",
    "A copy was kept.",
    "The user did not answer.",
    "Nobody asked about it again.",
    "The report is due on Friday.",
    "A second look is planned.",
    "The file stays with the desk.",
    "It came up in the meeting.",
    "There is no hurry.",
    "The manager has a copy.",
    "The note was written by hand.",
]

# Attributes that a context may state of a named thing; each with the kind of value.
ATTRIBUTES = {
    "colour": "word",
    "code": "code",
    "badge number": "code",
    "room": "code",
    "serial number": "code",
    "order number": "number",
    "price": "amount",
    "weight": "measure",
    "age": "number",
    "score": "number",
    "port": "number",
    "budget": "amount",
    "leader": "name",
    "neighbour": "name",
    "manager": "name",
    "supplier": "name",
    "home town": "name",
    "backup site": "name",
    "nickname": "word",
    "user name": "snake",
    "project name": "snake",
    "table name": "snake",
    "address": "ip",
    "gateway address": "ip",
    "mail address": "mail",
    "contact": "mail",
    "machine": "machine",
    "device name": "machine",
    "start date": "date",
    "review date": "date",
    "closing time": "time",
    "departure time": "time",
    "version": "version",
    "status": "state",
    "category": "word",
    "file": "file",
    "team": "word",
    "reference": "code",
    "ticket": "code",
    "phone": "phone",
}

# What a text can be about: the group, then words and phrases that tell. A sentence is
# made about a topic so that naming it is learned as reading is, from many cues.
_TOPICS = """
weather | nature | rain, snow, storm, wind, fog, frost, thunder, hail, sunshine
animals | nature | horse, sheep, goat, eagle, rabbit, fox, whale, herd, nest, stable
plants | nature | tree, flower, seed, leaf, root, orchard, grass, hedge, pine, rose
food | home | soup, cheese, rice, pepper, butter, dinner, salad, honey, recipe, oven
clothes | home | jacket, trousers, scarf, boots, glove, button, wool, sleeve, dress, hat
furniture | home | sofa, shelf, drawer, carpet, mirror, cupboard, mattress, desk, stool
building | home | roof, wall, brick, ceiling, stairs, cellar, chimney, scaffold, mortar
traffic | town | road, lane, junction, bus stop, tram, bridge, traffic light, parking
railway | town | platform, locomotive, timetable, rail, conductor, carriage, tunnel
post | town | parcel, stamp, envelope, courier, postcard, delivery, letter box, depot
court | town | judge, trial, witness, verdict, law, lawsuit, prison, jury, appeal
school | town | pupil, lesson, homework, classroom, exam, chalk, teacher, timber desk
health | people | doctor, fever, bandage, clinic, vaccine, cough, pulse, nurse, medicine
sport | people | goal, match, referee, stadium, race, medal, coach, penalty, trophy
music | people | violin, choir, melody, drum, concert, chord, orchestra, flute, singer
travel | people | suitcase, passport, hotel, airport, ticket desk, beach, border, tour
family | people | mother, cousin, wedding, baby, uncle, grandson, sister, marriage
banking | trade | loan, interest rate, deposit, savings, bank, credit, mortgage, debt
invoices | trade | invoice, payment, amount due, reminder, receipt, discount, bill
contracts | trade | contract, clause, signature, notice period, lease, supplier terms
stock | trade | warehouse, pallet, shelf stock, inventory, forklift, crate, barcode
farming | trade | tractor, harvest, plough, field, barn, wheat, milk, manure, crop
mining | trade | coal, shaft, drill, quarry, ore, miner, gravel, pit, dynamite
energy | trade | power plant, turbine, voltage, wind farm, solar panel, transformer
mail | computing | mailbox, inbox, mail rule, forwarding, sender, recipient, reply
attachments | computing | attachment, macro, attached file, spreadsheet
passwords | computing | password, guess, logon page, lockout, spray, wrong password, pin
memory | computing | memory, lsass, dump, process handle, heap, memory read, buffer
scripts | computing | script, powershell, command line, shell, base64, console
startup | computing | startup folder, run key, autostart, registry, logon item
protection | computing | antivirus, scanner, sensor, tamper, quarantine, malware
encryption | computing | encrypt, ransom, cipher, ransom note, decrypt, locked files
remote work | computing | remote desktop, rdp, vpn, remote session, screen share, 3389
name service | computing | dns, lookup, resolver, txt record, name server
cloud accounts | computing | cloud login, tenant, sign-in, portal, cloud account
file sharing | computing | upload, cloud drive, bucket, rclone, shared link
databases | computing | query, sql, index, row, schema change, replica, transaction
backups | computing | backup, snapshot, restore, tape, backup job, recovery copy
printing | computing | printer, toner, paper jam, print queue, tray, cartridge, scan
telephones | computing | phone call, headset, voicemail, extension, dial tone, sim card
updates | computing | patch, update, reboot, new version, hotfix, release note, upgrade
websites | computing | browser, web page, cookie, certificate, proxy, web form
hardware | computing | cable, power supply, fan, keyboard, monitor, disk
money | trade | coin, cash, wallet, price, till, change, banknote, exchange rate
"""


def _read_topics() -> dict[str, tuple[str, list[str]]]:
    """Give the group and the telling words of each topic."""
    rows = [line.split(" | ") for line in _TOPICS.strip().splitlines()]
    return {topic: (group, cues.split(", ")) for topic, group, cues in rows}


TOPICS = _read_topics()
CUE_WORDS = [w for _, cues in TOPICS.values() for w in cues if w.isalpha()]
ABOUT = [
    "The {p} asked about the {w}.",
    "There was trouble with the {w} {l}.",
    "{t}, something about {w} came up.",
    "A note on {w} and {v} came in.",
    "The {w} was mentioned {t}.",
    "{w}: the {p} wrote it down.",
    "Somebody tried the {w} {l}.",
    "We looked at the {w} and the {v}.",
    "The {p} saw the {w} {t}.",
    "It began with {w} {l}.",
    "{t} the {p} reported {w}, then {v}.",
    "An unknown {p} used {w}.",
    "New {w} found {l}.",
    "The {p} says that the {w} was not wanted.",
]
STOPPED = [
    "it was stopped",
    "it was blocked",
    "the attempt failed",
    "the policy refused it",
    "access was denied",
    "it was rejected",
    "it did not work",
    "the attempt was blocked",
]
PASSED = [
    "it worked",
    "it went through",
    "the attempt succeeded",
    "nobody stopped it",
    "access was granted",
    "it was allowed",
    "it ran to the end",
    "the policy let it pass",
]

POSITIVE = """
    wonderful excellent lovely delightful superb great pleasant perfect charming
    brilliant tasty helpful friendly comfortable amazing reliable
""".split()
NEGATIVE = """
    terrible awful horrible dreadful poor nasty boring useless broken rude dirty
    disappointing slow noisy ugly unreliable
""".split()
REVIEWED = """
    hotel film soup phone lesson concert room waiter laptop bus coat game museum
    breakfast garden service printer app helpdesk book song trip cake website
""".split()

_ONSETS = """
    b br c ch d dr f fl g gr h j k kl l m n p pl pr r s sh st t tr v w z
""".split()
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
_CODAS = ["", "", "", "", "", "", "l", "m", "n", "r", "s", "t", "x", "nd", "rk"]


def syllables(rng: random.Random, low: int = 2, high: int = 3) -> str:
    """Give a random pronounceable word of `low` to `high` syllables, lower case."""
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        for _ in range(rng.randint(low, high))
    )


def name(rng: random.Random) -> str:
    """Give a random capitalised name, sometimes of two words."""
    first = syllables(rng, 2, 2).capitalize()
    return (
        f"{first} {syllables(rng, 1, 2).capitalize()}" if rng.random() < 0.2 else first
    )


def code(rng: random.Random) -> str:
    """Give a random code in one of several shapes, such as ``K7-204``."""
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"

    def pick(alphabet: str, n: int) -> str:
        return "".join(rng.choice(alphabet) for _ in range(n))

    digits = "0123456789"
    return rng.choice(
        [
            lambda: f"{pick(letters, 1)}{pick(digits, 1)}-{pick(digits, 3)}",
            lambda: pick(letters, 2) + pick(digits, 4),
            lambda: f"{pick(letters, 3)}-{pick(digits, 2)}",
            lambda: f"{pick(letters, 1)}{pick(digits, 4)}.{pick(digits, 2)}",
            lambda: f"{pick(letters, 1)}{pick(digits, 4)}",
            lambda: pick("abcdef" + digits, 6),
            lambda: f"{pick(digits, 3)}/{pick(letters, 1)}",
        ]
    )()


def value(rng: random.Random, kind: str) -> str:
    """Give a random value of `kind`, one of the kinds in `ATTRIBUTES`."""
    if kind == "word":
        return rng.choice(ADJECTIVES + THINGS) if rng.random() < 0.4 else syllables(rng)
    if kind == "name":
        return name(rng)
    if kind == "code":
        return code(rng)
    if kind == "number":
        return str(rng.randint(0, 10 ** rng.randint(1, 5)))
    if kind == "amount":
        return f"{rng.randint(1, 9999)} {rng.choice(['euro', 'dollars', 'yen'])}"
    if kind == "measure":
        return f"{rng.randint(1, 900)} {rng.choice(['kg', 'g', 'tons'])}"
    if kind == "snake":
        parts = [
            syllables(rng, 1, 2) if rng.random() < 0.5 else rng.choice(THINGS)
            for _ in range(rng.randint(2, 3))
        ]
        return "_".join(parts)
    if kind == "ip":
        return ".".join(str(rng.randint(1, 254)) for _ in range(4))
    if kind == "mail":
        domain = rng.choice(["com", "org", "net", "example"])
        return f"{syllables(rng)}.{syllables(rng, 1, 2)}@{syllables(rng)}.{domain}"
    if kind == "machine":
        parts = [syllables(rng, 1, 1), syllables(rng, 1, 2)]
        return "-".join([*parts[rng.randint(0, 1) :], f"{rng.randint(0, 99):02}"])
    if kind == "date":
        return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1990, 2030)}"
    if kind == "time":
        return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
    if kind == "version":
        return ".".join(str(rng.randint(0, 20)) for _ in range(3))
    if kind == "state":
        return rng.choice(ADJECTIVES)
    if kind == "file":
        ending = rng.choice(["pdf", "exe", "docx", "zip", "ps1", "txt", "xlsm"])
        return f"{syllables(rng)}.{ending}"
    if kind == "phone":
        return (
            f"+{rng.randint(1, 99)} {rng.randint(100, 999)} {rng.randint(1000, 9999)}"
        )
    raise ValueError(f"unknown kind of value {kind!r}: use one in ATTRIBUTES")


def attribute(rng: random.Random) -> str:
    """Name something that can be stated of a thing: one in five in an invented word."""
    if rng.random() < 0.2:
        return value(rng, rng.choice(["word", "snake"]))
    return rng.choice(list(ATTRIBUTES))


def attribute_value(rng: random.Random, attribute: str) -> str:
    """Give a random value of `attribute`; of an invented one, any kind of value."""
    kind = ATTRIBUTES.get(attribute) or rng.choice(list(ATTRIBUTES.values()))
    return value(rng, kind)


def about(rng: random.Random, topic: str) -> str:
    """Give one sentence about `topic`."""
    cue, other = rng.sample(TOPICS[topic][1], 2)
    text = rng.choice(ABOUT).format(
        w=cue,
        v=other,
        p=rng.choice(PEOPLE),
        l=rng.choice(PLACES),
        t=rng.choice(TIMES),
    )
    return text[0].upper() + text[1:]


def a_or_an(word: str) -> str:
    """Give `word` after its indefinite article, which its first letter decides."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def sentence(rng: random.Random) -> str:
    """Give one plain English sentence that states nothing a question could ask."""
    if rng.random() < 0.35:
        return rng.choice(FILLERS)
    person, other = rng.choice(PEOPLE), rng.choice(PEOPLE)
    thing, verb = rng.choice(THINGS), rng.choice(PAST_VERBS)
    adjective, place, time = (
        rng.choice(ADJECTIVES),
        rng.choice(PLACES),
        rng.choice(TIMES),
    )
    one = a_or_an(adjective)
    return rng.choice(
        [
            f"The {person} {verb} the {adjective} {thing} {place}.",
            f"{time[0].upper()}{time[1:]} the {person} {verb} {one} {thing}.",
            f"{one.capitalize()} {thing} was {verb} by the {person} {time}.",
            f"The {person} and the {other} {verb} the {thing} {time}.",
            f"The {thing} {place} is {adjective}.",
            f"No {thing} was {verb} {time}, the {person} says.",
            f"We {verb} it because the {thing} was {adjective}.",
            f"When the {person} {verb} the {thing}, the {other} was {place}.",
        ]
    )


def words(rng: random.Random, n_words: int) -> list[str]:
    """Give `n_words` distinct lower-case words, common and invented ones mixed."""
    chosen: list[str] = []
    while len(chosen) < n_words:
        word = (
            rng.choice(THINGS + ADJECTIVES + PEOPLE + CUE_WORDS)
            if rng.random() < 0.5
            else syllables(rng, 1, 2)
        )
        if word not in chosen:
            chosen.append(word)
    return chosen
