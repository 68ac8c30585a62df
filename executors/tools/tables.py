"""Catalogues that hardly change: car makes, languages, the characters of a game."""

from typing import Any

from executors.errors import ToolError
from executors.tools.ste import ste_api

_MAKES = """Acura|Alfa Romeo|Aston Martin|Audi|Bentley|BMW|Bugatti|Buick|Cadillac|Chevrolet|Chrysler|Citroën|Dacia|
Dodge|Ferrari|Fiat|Ford|Genesis|GMC|Honda|Hyundai|Infiniti|Jaguar|Jeep|Kia|Lamborghini|Lancia|Land Rover|Lexus|Lincoln|
Lotus|Maserati|Mazda|McLaren|Mercedes-Benz|Mini|Mitsubishi|Nissan|Opel|Peugeot|Polestar|Porsche|Renault|Rolls-Royce|
Saab|Seat|Škoda|Smart|Subaru|Suzuki|Tesla|Toyota|Volkswagen|Volvo"""
_LANGUAGES = """ar Arabic|cs Czech|da Danish|de German|el Greek|en English|es Spanish|fi Finnish|fr French|hi Hindi|
hu Hungarian|id Indonesian|it Italian|ja Japanese|ko Korean|nl Dutch|no Norwegian|pl Polish|pt Portuguese|ru Russian|
sv Swedish|th Thai|tr Turkish|uk Ukrainian|vi Vietnamese|zh Chinese"""
_MARVEL = """Blackheart|Cable|Captain America|Colossus|Cyclops|Doctor Doom|Gambit|Hulk|Iceman|Iron Man|Juggernaut|
Magneto|Marrow|Omega Red|Psylocke|Rogue|Sabretooth|Sentinel|Shuma-Gorath|Silver Samurai|Spider-Man|Spiral|Storm|Thanos|
Venom|War Machine|Wolverine"""
_CAPCOM = """Akuma|Amingo|Anakaris|B.B. Hood|Cammy|Captain Commando|Charlie|Chun-Li|Dan|Dhalsim|Felicia|Guile|Hayato|
Jill Valentine|Jin|Ken|M. Bison|Mega Man|Morrigan|Roll|Ruby Heart|Ryu|Sakura|Servbot|SonSon|Strider Hiryu|Tron Bonne|
Zangief"""
_SIDES = {"Marvel": _MARVEL, "Capcom": _CAPCOM}
_CHARACTERS = {name.strip(): side for side, names in _SIDES.items() for name in names.replace("\n", "").split("|")}


@ste_api("Car database%%Makes")
def car_makes() -> list[str]:
    """The makes of cars."""
    return [str(make) for make in _MAKES.replace("\n", "").split("|")]


@ste_api("siteDomain%%language list")
def languages() -> list[dict[str, str]]:
    """Languages with their codes."""
    known = (language.split(" ") for language in _LANGUAGES.replace("\n", "").split("|"))
    return [{"code": code, "name": name} for code, name in known]


@ste_api("Marvel Vs Capcom 2%%All Characters")
def characters() -> list[dict[str, str]]:
    """Every character and the side that it is from."""
    return [{"name": name, "universe": side} for name, side in sorted(_CHARACTERS.items())]


@ste_api("Marvel Vs Capcom 2%%Show Character")
def character(name: str) -> dict[str, Any]:
    """One character: the side that it is from, and its place in the list.

    Args:
        name: of the character; a part of it will do where only one has it.
    """
    wanted = name.strip().casefold()
    names = sorted(_CHARACTERS)
    found = [one for one in names if one.casefold() == wanted] or [
        one for one in names if wanted and (wanted in one.casefold() or one.casefold() in wanted)
    ]
    if len(found) != 1:
        said = f"could be {', '.join(found[:5])}" if found else "is none of the 55"
        raise ToolError(f"character {name[:60]!r} {said}; All Characters lists them")
    return {"name": found[0], "universe": _CHARACTERS[found[0]], "number": names.index(found[0]) + 1}
