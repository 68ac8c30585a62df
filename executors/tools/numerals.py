"""Numbers in words, in English and in Spanish; amounts of money as Mexican cheques write them; facts about integers."""

import math
import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from executors.errors import ToolError
from executors.tools.ste import ste_api

MAX_DIGITS = 42
"""Of the whole part of a number."""

_ONE_TO_19 = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
_BY_TEN = "- - twenty thirty forty fifty sixty seventy eighty ninety"
_BY_THOUSAND = """- thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion
    decillion undecillion duodecillion tredecillion quattuordecillion"""
_UNO_TO_29 = """cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis
    diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis
    veintisiete veintiocho veintinueve"""
_POR_DIEZ = "- - - treinta cuarenta cincuenta sesenta setenta ochenta noventa"
_POR_CIEN = """- ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos
    novecientos"""
_POR_MILLON = "- millón billón trillón cuatrillón quintillón sextillón septillón"

_ONES, _TENS, _SCALES = _ONE_TO_19.split(), _BY_TEN.split(), _BY_THOUSAND.split()
_UNOS, _DECENAS, _CENTENAS, _MILLONES = (words.split() for words in (_UNO_TO_29, _POR_DIEZ, _POR_CIEN, _POR_MILLON))

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_FAMOUS = {1729: "the smallest number that is a sum of two positive cubes in two ways"}


def read_decimal(text: Any) -> Decimal:
    """A number as people write it: 1,234.5, -7, 12.

    Raises:
        ToolError: it is none, or too long.
    """
    wanted = str(text).strip()
    if not _NUMBER.fullmatch(wanted):
        raise ToolError(f"{wanted[:40]!r} is no number; write digits, such as 1234 or 1,234.50")
    try:
        value = Decimal(wanted.replace(",", ""))
    except InvalidOperation as error:
        raise ToolError(f"{wanted[:40]!r} is no number") from error
    if len(wanted) > 2 * MAX_DIGITS or value.copy_abs() >= Decimal(10) ** MAX_DIGITS:
        raise ToolError(f"numbers have up to {MAX_DIGITS} digits here")
    return value


def in_english(value: int) -> str:
    """A whole number in English words: twenty-three thousand four hundred five."""
    if value < 0:
        return f"minus {in_english(-value)}"
    if value < 20:
        return _ONES[value]
    if value < 100:
        return _TENS[value // 10] + (f"-{_ONES[value % 10]}" if value % 10 else "")
    if value < 1000:
        rest = value % 100
        return f"{_ONES[value // 100]} hundred" + (f" {in_english(rest)}" if rest else "")
    groups = []
    scale = 0
    while value:
        value, group = divmod(value, 1000)
        if group:
            groups.append(in_english(group) + (f" {_SCALES[scale]}" if scale else ""))
        scale += 1
    return " ".join(reversed(groups))


def in_spanish(value: int) -> str:
    """A whole number in Spanish words, as it stands before a masculine noun: veintiún mil un."""
    if value < 0:
        return f"menos {in_spanish(-value)}"
    if value == 0:
        return _UNOS[0]
    words: list[str] = []
    rank = 0
    while value:
        value, group = divmod(value, 10**6)
        if group:
            scale = _MILLONES[rank] if group == 1 else _MILLONES[rank].replace("ón", "ones")
            words.append(_below_a_million(group) + (f" {scale}" if rank else ""))
        rank += 1
    return " ".join(reversed(words))


def _below_a_million(value: int) -> str:
    thousands, rest = divmod(value, 1000)
    head = "" if not thousands else "mil" if thousands == 1 else f"{_below_a_thousand(thousands)} mil"
    return f"{head} {_below_a_thousand(rest)}".strip() if rest else head


def _below_a_thousand(value: int) -> str:
    hundreds, rest = divmod(value, 100)
    if value == 100:
        return "cien"
    head = _CENTENAS[hundreds] if hundreds else ""
    return f"{head} {_below_a_hundred(rest)}".strip() if rest else head


def _below_a_hundred(value: int) -> str:
    if value == 1:
        return "un"
    if value == 21:
        return "veintiún"
    if value < 30:
        return _UNOS[value]
    tens, one = divmod(value, 10)
    return _DECENAS[tens] + (f" y {'un' if one == 1 else _UNOS[one]}" if one else "")


@ste_api("Numbers Translator%%Numbers Translator")
def number_in_words(text: str = "23879908709817834") -> str:
    """A number in English words.

    Args:
        text: the number, in digits.
    """
    value = read_decimal(text)
    whole = in_english(int(value)) if int(value) or value >= 0 else "minus zero"
    fraction = f"{value:f}".partition(".")[2]
    digits = " ".join(_ONES[int(digit)] for digit in fraction)
    said = f"{whole} point {digits}" if digits else whole
    return said[0].upper() + said[1:]


_SPANISH_COINS = {
    "PESOS": ("peso", "pesos", "M.N."),
    "DOLARES": ("dólar", "dólares", "USD"),
    "EUROS": ("euro", "euros", "EUR"),
}
_ENGLISH_COINS = {
    "PESOS": ("peso", "pesos", "MXN"),
    "DOLARES": ("dollar", "dollars", "USD"),
    "EUROS": ("euro", "euros", "EUR"),
}


@ste_api("NumbersToLetters%%Convertir cantidad a letra Moneda MXN Español")
def amount_in_spanish(moneda: str, monto: str) -> str:
    """An amount of money in Spanish words, with its hundredths as a fraction.

    Args:
        moneda: PESOS, DOLARES or EUROS.
        monto: the amount, such as 1234.50.
    """
    if moneda not in _SPANISH_COINS:
        raise ToolError(f"moneda {moneda[:40]!r} is not known; it is one of {', '.join(_SPANISH_COINS)}, in capitals")
    one, many, code = _SPANISH_COINS[moneda]
    whole, cents = _amount(monto)
    of = " de" if whole and whole % 10**6 == 0 else ""
    return f"{in_spanish(whole)}{of} {one if whole == 1 else many} {cents:02d}/100 {code}".upper()


@ste_api("NumbersToLetters%%Convertir cantidad a letra Moneda MXN Ingles")
def amount_in_english(moneda: str, monto: str) -> str:
    """An amount of money in English words, with its hundredths as a fraction.

    Args:
        moneda: PESOS, DOLARES or EUROS; another currency is written as it is.
        monto: the amount, such as 1234.50.
    """
    name = moneda.strip()[:40]
    if not name:
        raise ToolError("moneda is empty; name a currency, such as PESOS")
    one, many, code = _ENGLISH_COINS.get(name, (name, name, ""))
    whole, cents = _amount(monto)
    return f"{in_english(whole)} {one if whole == 1 else many} {cents:02d}/100 {code}".upper().strip()


def _amount(text: str) -> tuple[int, int]:
    value = read_decimal(text)
    if value < 0:
        raise ToolError(f"an amount is not negative, as {text!r} is")
    cents = math.floor(Fraction(value) * 100 + Fraction(1, 2))
    return cents // 100, cents % 100


@ste_api("Numbers%%Get math fact")
def math_fact(number: str, fragment: str = "true", json: str = "true") -> Any:
    """A mathematical property of a whole number.

    Args:
        number: the number.
        fragment: whether to leave the number itself out of the sentence.
        json: whether to answer with an object.
    """
    value = read_decimal(number)
    if value != int(value):
        raise ToolError(f"{number!r} is no whole number")
    fact = fact_of(int(value))
    text = fact if _is_true(fragment) else f"{int(value)} is {fact}."
    return {"text": text, "number": int(value), "found": True, "type": "math"} if _is_true(json) else text


def fact_of(value: int) -> str:
    """What is remarkable about a whole number: the rarest property that it has."""
    if value in _FAMOUS:
        return _FAMOUS[value]
    size = abs(value)
    root = math.isqrt(size)
    if value > 1 and root * root == value:
        return f"the square of {root}"
    if value > 0 and math.isqrt(8 * value + 1) ** 2 == 8 * value + 1:
        return f"the {_ordinal((math.isqrt(8 * value + 1) - 1) // 2)} triangular number"
    if value > 1 and value & (value - 1) == 0:
        return f"2 to the power of {value.bit_length() - 1}"
    if size > 9 and str(size) == str(size)[::-1]:
        return "a palindrome in base 10"
    if 1 < value < 10**12:
        factors = _factors(value)
        if factors == [value]:
            return "a prime number"
        return f"a number with the prime factors {' and '.join(map(str, sorted(set(factors))))}"
    return f"a number whose digits add up to {sum(map(int, str(size)))}"


def _factors(value: int) -> list[int]:
    """The prime factors of a number below 10**12, in order."""
    found, divisor = [], 2
    while divisor * divisor <= value:
        while value % divisor == 0:
            found.append(divisor)
            value //= divisor
        divisor += 1 if divisor == 2 else 2
    return [*found, value] if value > 1 else found


def _ordinal(value: int) -> str:
    teens = value % 100 in (11, 12, 13)
    return f"{value}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(value % 10, 'th')}"


def _is_true(flag: Any) -> bool:
    return str(flag).strip().lower() == "true"
