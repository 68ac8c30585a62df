"""Questions that are computed rather than looked up: dates, arithmetic in words, the chemical elements."""

import re
from collections.abc import Callable
from datetime import date, timedelta

from executors.errors import ToolError
from executors.tools.calculator import calculate
from executors.tools.dates import Calendar, read_date
from executors.tools.ste import ste_api
from executors.tools.units import units

_ELEMENTS = """hydrogen H helium He lithium Li beryllium Be boron B carbon C nitrogen N oxygen O fluorine F neon Ne
    sodium Na magnesium Mg aluminium Al silicon Si phosphorus P sulfur S chlorine Cl argon Ar potassium K calcium Ca
    scandium Sc titanium Ti vanadium V chromium Cr manganese Mn iron Fe cobalt Co nickel Ni copper Cu zinc Zn gallium Ga
    germanium Ge arsenic As selenium Se bromine Br krypton Kr rubidium Rb strontium Sr yttrium Y zirconium Zr niobium Nb
    molybdenum Mo technetium Tc ruthenium Ru rhodium Rh palladium Pd silver Ag cadmium Cd indium In tin Sn antimony Sb
    tellurium Te iodine I xenon Xe caesium Cs barium Ba lanthanum La cerium Ce praseodymium Pr neodymium Nd
    promethium Pm samarium Sm europium Eu gadolinium Gd terbium Tb dysprosium Dy holmium Ho erbium Er thulium Tm
    ytterbium Yb lutetium Lu hafnium Hf tantalum Ta tungsten W rhenium Re osmium Os iridium Ir platinum Pt gold Au
    mercury Hg thallium Tl lead Pb bismuth Bi polonium Po astatine At radon Rn"""
_NAMES_AND_SYMBOLS = _ELEMENTS.split()
_SYMBOL: dict[str, str] = dict(zip(_NAMES_AND_SYMBOLS[::2], _NAMES_AND_SYMBOLS[1::2], strict=True))
_NUMBER: dict[str, int] = {name: place for place, name in enumerate(_SYMBOL, start=1)}
_OTHER_NAMES = {"aluminum": "aluminium", "cesium": "caesium", "sulphur": "sulfur"}

_SYMBOL_OF = re.compile(r"(?:chemical |atomic )?symbol (?:for|of) (\w+)")
_NUMBER_OF = re.compile(r"atomic number (?:for|of) (\w+)")
_CONVERT = re.compile(r"(?:convert )?(-?[\d.,]+)\s*([\w°/ ]+?) (?:to|in|into) ([\w°/ ]+)")
_WORDS: tuple[tuple[str, str], ...] = (
    (r"^(?:what is|whats|what's|calculate|compute|evaluate|solve|the value of|value of|the) ", ""),
    (r"(?:the )?square root of \(?([\d.]+)\)?", r"sqrt(\1)"),
    (r"(?:the )?cube root of \(?([\d.]+)\)?", r"(\1)**(1/3)"),
    (r"([\d.]+) squared", r"(\1)**2"),
    (r"([\d.]+) cubed", r"(\1)**3"),
    (r"([\d.]+) ?(?:%|percent) of ([\d.]+)", r"(\1/100)*(\2)"),
    (r"(?:the )?factorial of (\d+)", r"factorial(\1)"),
    (r"(\d+)!", r"factorial(\1)"),
    (r" (?:raised )?to the power of ", "**"),
    (r"\^", "**"),
    (r" (?:times|multiplied by|x) ", "*"),
    (r" (?:divided by|over) ", "/"),
    (r" plus ", "+"),
    (r" minus ", "-"),
)


@ste_api("add_date")
def add_days(date: str, days: int) -> str:
    """The date so many days after another; before it, where they are negative.

    Args:
        date: such as 2024-01-31.
        days: how many.
    """
    try:
        return (read_date(date) + timedelta(days=days)).isoformat()
    except OverflowError as error:
        raise ToolError("the result is out of the calendar, which goes from year 1 to 9999") from error


@ste_api("get_today_date", state=Calendar())
def today(day: date) -> str:
    """The episode's date.

    Args:
        day: what day it is.
    """
    return day.isoformat()


@ste_api("getWolframAlphaResults")
def reckon(input: str) -> str:
    """Answer what can be computed: arithmetic in digits or words, conversions of units, elements and their numbers.

    Args:
        input: the question.
    """
    asked = " ".join(input.strip().rstrip("?. ").lower().split())[:300]
    for attempt in _ATTEMPTS:
        if (found := attempt(asked)) is not None:
            return found
    raise ToolError(f"cannot work out {input[:80]!r}: it takes arithmetic, a conversion of units, or an element")


def _element(asked: str) -> str | None:
    for pattern, table in ((_SYMBOL_OF, _SYMBOL), (_NUMBER_OF, _NUMBER)):
        if (match := pattern.search(asked)) and (name := _OTHER_NAMES.get(match[1], match[1])) in table:
            return str(table[name])
    return None


def _converted(asked: str) -> str | None:
    match = _CONVERT.fullmatch(re.sub(_WORDS[0][0], "", asked))
    if match is None:
        return None
    try:
        return f"{units(float(match[1].replace(',', '')), match[2].strip(), match[3].strip())} {match[3].strip()}"
    except (ToolError, ValueError):
        return None


def _calculated(asked: str) -> str | None:
    expression = asked
    for pattern, written in _WORDS:
        expression = re.sub(pattern, written, expression)
    try:
        return calculate(expression)
    except ToolError:
        return None


_ATTEMPTS: tuple[Callable[[str], str | None], ...] = (_element, _converted, _calculated)
