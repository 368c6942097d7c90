"""Normalisation: a plain copy of a text to search in, and the way back."""

import re
import unicodedata

# Cyrillic, Greek, Armenian and other letters, by the Latin letter they look like.
_LOOK_ALIKES = {
    "a": "аαɑ", "c": "сϲ", "d": "ԁ", "e": "еҽ", "g": "ɡց", "h": "һհ", "i": "іιı",
    "j": "јϳ", "k": "κ", "l": "ӏ", "n": "ոռ", "o": "оοօ", "p": "рρ", "q": "ԛզ",
    "s": "ѕ", "t": "τ", "u": "υսʋ", "v": "νѵ", "w": "ԝωա", "x": "хχ", "y": "уγү",
    "A": "АΑ", "B": "ВΒ", "C": "СϹ", "E": "ЕΕ", "G": "Ԍ", "H": "НΗ", "I": "ІΙӀ",
    "J": "Ј", "K": "КΚ", "M": "МΜ", "N": "Ν", "O": "ОΟՕ", "P": "РΡ", "Q": "Ԛ",
    "S": "ЅՏ", "T": "ТΤ", "U": "Ս", "V": "Ѵ", "W": "Ԝ", "X": "ХΧ", "Y": "ҮΥУ",
    "Z": "Ζ",
}  # fmt: skip
_TO_LATIN = {
    ord(other): latin for latin, others in _LOOK_ALIKES.items() for other in others
}
_PUNCTUATION = {
    **dict.fromkeys(map(ord, "‐‑‒–−⁃﹣－"), "-"),
    **dict.fromkeys(map(ord, "‘’‚‛′ʼ＇`´"), "'"),
    **dict.fromkeys(map(ord, "“”„‟″«»＂"), '"'),
    **dict.fromkeys(map(ord, "\u2028\u2029\u0085"), "\n"),
    **dict.fromkeys(map(ord, "。｡․"), "."),
    ord("\u1680"): " ",
}
del _PUNCTUATION[ord("`")]  # code uses it
_HIDDEN = frozenset("\u034f\u115f\u1160\u3164\uffa0\u2800\u180e")
_WORD = re.compile(r"[^\W\d_]+")
# Five and more single characters, a space between each two: 0 3 / 1 2 / 1 9 8 5
_SPACED = re.compile(r"(?<!\S)[\w+(](?: [\w+()./@:-]){4,80}(?!\S)")
_DIGIT = re.compile(r"\d")


def normalise(text: str) -> tuple[str, list[int], list[int]]:
    """
    Give a plain copy of a text, and where each of its characters came from.

    Compatible forms are composed (NFKC); characters that cannot be seen are dropped;
    letters that look like Latin ones become those in words that mix scripts or have no
    other letters; dashes, spaces, quotes and digits become the plain ones; what is
    spaced out, such as ``1 9 8 5``, is closed up.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    tuple
        The copy; then, per character of it, where its original starts and where it
        ends, hidden characters after it included.

    Examples
    --------
    >>> normalise("A\u200bn\u0430")
    ('Ana', [0, 2, 3], [2, 3, 4])
    """
    if text.isascii():
        return _close_up(text, list(range(len(text))), list(range(1, len(text) + 1)))
    clusters: list[list] = []  # start, end, characters that combine
    for i, character in enumerate(text):
        if character in _HIDDEN or _is_hidden(character):
            if clusters:
                clusters[-1][1] = i + 1
        elif clusters and (
            unicodedata.combining(character) or "\u1160" < character <= "\u11ff"
        ):
            clusters[-1][1:] = i + 1, clusters[-1][2] + character
        else:
            clusters.append([i, i + 1, character])
    copy, starts, ends = [], [], []
    for start, end, characters in clusters:
        plain = characters.translate(_PUNCTUATION)
        plain = unicodedata.normalize("NFKC", plain).translate(_PUNCTUATION)
        if plain.isdecimal():
            plain = "".join(str(unicodedata.decimal(digit)) for digit in plain)
        copy.append(plain)
        starts += [start] * len(plain)
        ends += [end] * len(plain)
    return _close_up(_WORD.sub(_fold, "".join(copy)), starts, ends)


def _close_up(
    text: str, starts: list[int], ends: list[int]
) -> tuple[str, list[int], list[int]]:
    """Take the spaces out of what is spaced out, if a digit is in it."""
    runs = [m.span() for m in _SPACED.finditer(text)]
    drop = {i for a, b in runs for i in range(a + 1, b, 2) if _DIGIT.search(text, a, b)}
    if not drop:
        return text, starts, ends
    kept = [i for i in range(len(text)) if i not in drop]
    return (
        "".join(text[i] for i in kept),
        [starts[i] for i in kept],
        [ends[i] for i in kept],
    )


def _is_hidden(character: str) -> bool:
    """Say whether a character has no width: format controls, variation selectors."""
    return (
        unicodedata.category(character) == "Cf"
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def _fold(match: re.Match) -> str:
    """Give a word in Latin letters, if it only looks as though it were."""
    word = match.group()
    if word.isascii():
        return word
    latin = word.translate(_TO_LATIN)
    # Letters such as ø are Latin as well: only other scripts count as mixed.
    mixed = any("A" <= letter <= "ɏ" for letter in word)
    return latin if mixed or latin.isascii() else word
