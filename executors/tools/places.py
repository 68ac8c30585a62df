"""Places and their time zones, from the tz database: no network, and no more exact than one city for each zone."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from executors.errors import ToolError, TransientError
from executors.tools.dates import Calendar
from executors.tools.ste import ste_api

_SYSTEM = Path("/usr/share/zoneinfo/zone.tab")
_COORDINATE = re.compile(r"([+-])(\d{2,3})(\d{2})(\d{2})?")
_LATEST = 253_402_300_799
"""The last second of the year 9999."""
_CITIES = """
    San Francisco|US|37.7749|-122.4194|America/Los_Angeles
    Seattle|US|47.6062|-122.3321|America/Los_Angeles
    Boston|US|42.3601|-71.0589|America/New_York
    Washington|US|38.9072|-77.0369|America/New_York
    Miami|US|25.7617|-80.1918|America/New_York
    Houston|US|29.7604|-95.3698|America/Chicago
    Barcelona|ES|41.3874|2.1686|Europe/Madrid
    Munich|DE|48.1351|11.5820|Europe/Berlin
    Hamburg|DE|53.5511|9.9937|Europe/Berlin
    Milan|IT|45.4642|9.1900|Europe/Rome
    Manchester|GB|53.4808|-2.2426|Europe/London
    Lyon|FR|45.7640|4.8357|Europe/Paris
    Rio de Janeiro|BR|-22.9068|-43.1729|America/Sao_Paulo
    Mumbai|IN|19.0760|72.8777|Asia/Kolkata
    New Delhi|IN|28.6139|77.2090|Asia/Kolkata
    Beijing|CN|39.9042|116.4074|Asia/Shanghai
    Osaka|JP|34.6937|135.5023|Asia/Tokyo
    Montreal|CA|45.5019|-73.5674|America/Toronto
    Cape Town|ZA|-33.9249|18.4241|Africa/Johannesburg
    Saint Petersburg|RU|59.9311|30.3609|Europe/Moscow
"""
"""Cities after which no zone is named: name, country, latitude, longitude, zone."""


@dataclass(frozen=True, slots=True)
class Place:
    """A city and its time zone."""

    name: str
    country: str
    """ISO 3166, two letters."""
    lat: float
    lng: float
    zone: str


@cache
def known_places() -> tuple[Place, ...]:
    """The cities that zones are named after, and some more.

    Raises:
        TransientError: this machine has no tz database.
    """
    places = []
    for line in _CITIES.strip().splitlines():
        name, country, lat, lng, zone = line.strip().split("|")
        places.append(Place(name, country, float(lat), float(lng), zone))
    for line in _zone_table().splitlines():
        if line and not line.startswith("#"):
            country, coordinates, zone = line.split("\t")[:3]
            lat, lng = (_degrees(*match.groups()) for match in _COORDINATE.finditer(coordinates))
            places.append(Place(zone.rpartition("/")[2].replace("_", " "), country, lat, lng, zone))
    return tuple(places)


def _zone_table() -> str:
    try:
        return files("tzdata").joinpath("zoneinfo", "zone.tab").read_text()
    except (ModuleNotFoundError, OSError):
        pass
    try:
        return _SYSTEM.read_text()
    except OSError as error:
        raise TransientError("this machine has no tz database; install the package tzdata") from error


def _degrees(sign: str, degrees: str, minutes: str, seconds: str | None) -> float:
    value = int(degrees) + int(minutes) / 60 + int(seconds or 0) / 3600
    return round(-value if sign == "-" else value, 5)


@ste_api("Stadia Maps Time Zone API%%TZ Lookup by Location", state=Calendar())
def time_zone(day: date, lat: float, lng: float, timestamp: float | None = None) -> dict[str, Any]:
    """The time zone of a point, that of the nearest known city, and its offsets at a moment.

    Args:
        day: what day it is; its noon, where no moment is named.
        lat: latitude, -90 to 90.
        lng: longitude, -180 to 180.
        timestamp: the moment, in seconds since 1970.
    """
    if not (-90 <= lat <= 90 and -180 <= lng <= 180):
        raise ToolError(f"there is no point at {lat}, {lng}; lat is from -90 to 90, lng from -180 to 180")
    if timestamp is not None and not 0 <= timestamp <= _LATEST:
        raise ToolError(f"timestamp {timestamp:g} is out of the calendar; it is in seconds since 1970")
    moment = datetime.combine(day, time(12), UTC) if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
    zone = min(known_places(), key=lambda place: distance(lat, lng, place.lat, place.lng)).zone
    local = moment.astimezone(ZoneInfo(zone))
    shift = local.dst() or timedelta()
    offset = local.utcoffset() or timedelta()
    return {
        "tz_id": zone,
        "base_utc_offset": int((offset - shift).total_seconds()),
        "dst_offset": int(shift.total_seconds()),
        "local_time": local.isoformat(timespec="seconds"),
    }


@ste_api("Places%%Geographic coordinates by placename")
def coordinates(name: str, lang: str, country: str = "") -> dict[str, Any]:
    """The coordinates of the city whose name is most similar.

    Args:
        name: of the city.
        lang: en or ru; names are in English either way.
        country: ISO 3166, two letters; any where it is empty.
    """
    if lang not in ("en", "ru"):
        raise ToolError(f"lang {lang[:20]!r} is not known; it is en or ru")
    there = [place for place in known_places() if country.upper() in ("", place.country)]
    if not there:
        raise ToolError(f"no place is known in country {country[:20]!r}; write two letters, such as GB")
    by_name = {place.name.casefold(): place for place in reversed(there)}
    close = get_close_matches(name[:80].casefold(), by_name, n=1, cutoff=0.6)
    if not close:
        raise ToolError(f"no place is known by the name {name[:80]!r}")
    found = by_name[close[0]]
    shown = {"name": found.name, "country": found.country, "lat": found.lat, "lon": found.lng, "timezone": found.zone}
    return {**shown, "status": "OK", "partial_match": found.name.casefold() != name.casefold()}


def distance(lat: float, lng: float, other_lat: float, other_lng: float) -> float:
    """Kilometres between two points on the globe."""
    first, second = math.radians(lat), math.radians(other_lat)
    across = math.radians(other_lng - lng)
    half = math.sin((second - first) / 2) ** 2 + math.cos(first) * math.cos(second) * math.sin(across / 2) ** 2
    return 2 * 6371.0 * math.asin(min(1.0, math.sqrt(half)))
