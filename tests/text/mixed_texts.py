"""Seeded texts of every kind that tokenizers trip over: prose, code, scripts, emoji, marks, spaces, control tokens."""
import random
import unicodedata

SYLLABLES = "ba be con der es fi gra hu in jo ka lo mi na or pre qu re sta ti un ver wi x yo zen".split()
ENDINGS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'Ll", "\u2019s", "s", "ing", ",", ".", "?!", ":"]
OPERATORS = "= == != <= >= += -> :: && || << >> ** // /* */ ++ -- { } ( ) [ ] ; , . ? : % ^ ~ ! @ # $ \\ ` ' \"".split()
KEYWORDS = "if else for while return def class int auto const std self None true import struct template".split()
SPACES = [" ", " ", " ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\u2003", "\u2028", "\u0085", "\r", "\v",
          "\u200b", "\u180e", "\ufeff"]
SCRIPTS = {
    "han": [(0x4E00, 0x9FA5), (0x3400, 0x3500), (0x20000, 0x20200)],
    "kana": [(0x3041, 0x3096), (0x30A1, 0x30FA), (0xFF66, 0xFF9D)],
    "hangul": [(0xAC00, 0xD7A3)],
    "arabic": [(0x621, 0x64A), (0x64B, 0x652), (0x660, 0x669), (0x6F0, 0x6F9), (0xFE8D, 0xFEF4)],
    "hebrew": [(0x5D0, 0x5EA), (0x5B0, 0x5BC)],
    "devanagari": [(0x904, 0x939), (0x93E, 0x94D), (0x966, 0x96F)],
    "thai": [(0xE01, 0xE3A), (0xE40, 0xE4E)],
    "greek": [(0x391, 0x3A9), (0x3B1, 0x3C9), (0x1F00, 0x1F15)],
    "cyrillic": [(0x410, 0x44F), (0x460, 0x481)],
    "latin": [(0xC0, 0x17F), (0x1E00, 0x1EFF), (0xFF21, 0xFF5A)],
    "jamo": [(0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2)],
    "symbols": [(0x2190, 0x2200), (0x2500, 0x2580), (0x20A0, 0x20BF), (0xA1, 0xBF), (0x1D400, 0x1D4FF)],
    "numbers": [(0xBC, 0xBE), (0x2150, 0x2188), (0x2460, 0x249B), (0x2070, 0x2089), (0xFF10, 0xFF19)],
}
EMOJI = ["\U0001F600", "\U0001F468\u200D\U0001F469\u200D\U0001F467", "\U0001F44D\U0001F3FD", "\U0001F1E9\U0001F1EA",
         "\u2764\uFE0F", "1\uFE0F\u20E3", "\U0001F3F4\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F", "\u263A"]
MARKS = [0x300, 0x301, 0x308, 0x30A, 0x323, 0x327, 0x328, 0x331, 0x345, 0x5B0, 0x64B, 0x653, 0x93C, 0x20D7, 0x3099]


def character(rng, ranges):
    low, high = rng.choice(ranges)
    return chr(rng.randint(low, high))


def word(rng):
    text = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 4)))
    return rng.choice([text, text, text, text.capitalize(), text.upper()])


def prose(rng):
    return " ".join(word(rng) + (rng.choice(ENDINGS) if rng.random() < 0.3 else "") for _ in range(rng.randint(1, 20)))


def code(rng):
    lines = []
    for _ in range(rng.randint(1, 5)):
        parts = []
        for _ in range(rng.randint(1, 9)):
            name = rng.choice(["_", ""]).join(word(rng) for _ in range(rng.randint(1, 3)))
            parts.append(rng.choice([rng.choice(OPERATORS), rng.choice(KEYWORDS), name, str(rng.randint(0, 10**9)),
                                     hex(rng.getrandbits(32)), f'"{name}"']))
        lines.append(rng.choice([" ", "\t"]) * rng.choice([0, 0, 1, 2, 4, 8]) + rng.choice(["", " "]).join(parts))
    return rng.choice(["\n", "\r\n"]).join(lines)


def script(rng):
    ranges = SCRIPTS[rng.choice(list(SCRIPTS))]
    return rng.choice(["", "", " "]).join(
        "".join(character(rng, ranges) for _ in range(rng.randint(1, 12))) for _ in range(rng.randint(1, 6)))


def emoji(rng):
    return "".join(rng.choice(EMOJI) for _ in range(rng.randint(1, 6)))


def combining(rng):
    """Decomposed letters with marks in any order: what NFC has to compose and to sort."""
    letters = []
    for _ in range(rng.randint(1, 10)):
        base = rng.choice([rng.choice("aeionuscAEIOUzg "), character(rng, SCRIPTS[rng.choice(list(SCRIPTS))])])
        letters.append(base + "".join(chr(rng.choice(MARKS)) for _ in range(rng.randint(0, 4))))
    text = "".join(letters)
    return rng.choice([text, unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKD"]), text)])


def spaces(rng):
    runs = [rng.choice(SPACES) * rng.choice([1, 1, 2, 3, 7, 16, 40, 150]) for _ in range(rng.randint(1, 3))]
    return "".join(runs)


def numbers(rng):
    return rng.choice(["", " ", ".", ",", "-"]).join(str(rng.randint(0, 10**rng.randint(1, 12))) for _ in range(rng.randint(1, 5)))


def long_run(rng):
    """One pre-token of hundreds of bytes."""
    unit = rng.choice([word(rng), rng.choice("=-_*#.a"), character(rng, SCRIPTS["han"]), "\u2581"])
    return (unit * rng.randint(20, 400))[:600]


def any_characters(rng):
    """From all of Unicode, as far as every Unicode version in use knows them."""
    found = []
    while len(found) < rng.randint(1, 12):
        candidate = chr(rng.choice([rng.randint(0, 0x7F), rng.randint(0, 0xFFFF), rng.randint(0x10000, 0x1FAFF)]))
        if unicodedata.category(candidate) not in ("Cs", "Cn", "Co"):
            found.append(candidate)
    return "".join(found)


KINDS = [prose, prose, code, code, script, script, emoji, combining, spaces, numbers, long_run, any_characters]


def mixed_texts(count, control_tokens, seed=1):
    """`count` texts; some hold a control token, whole or cut short."""
    rng = random.Random(seed)
    texts = ["", " ", "\n", "\u2581"]
    while len(texts) < count:
        parts = [rng.choice(KINDS)(rng) for _ in range(rng.choice([1, 1, 2, 4]))]
        if control_tokens and rng.random() < 0.1:
            token = rng.choice(control_tokens)
            parts.insert(rng.randint(0, len(parts)), rng.choice([token, token, f" {token} ", token[:-1]]))
        texts.append(rng.choice(["", " ", "", rng.choice(SPACES)]).join(parts))
    return texts
