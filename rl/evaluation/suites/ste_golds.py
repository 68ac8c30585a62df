"""What is known of STE's expected calls: who judges them, which were edited after scoring, which probably were.

Of the 750 released expected calls 11 are not those that the published answers were scored with: under the released ones
the same answers score differently, and with what is put here in their place every published figure comes out exactly.
Sixteen more have answers that are the released expected call to the letter and were found wrong.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JUDGED = frozenset(
    {
        "CatchLoc%%[Group Management] API access for modifying group information",
        "disambiguation",
        "English Talking%%Get an answer",
        "Fake Brightcove%%Temp Upload URLs",
        "GamerPower%%Filter & Group Giveaways",
        "GamerPower%%Live giveaways by type",
        "getWolframAlphaResults",
        "get_arxiv_article_information",
        "get_weather_today",
        "Grup Terbuka%%Kirim Pesan",
        "Handball Data%%Daily Match List-Live",
        "Marvel Vs Capcom 2%%Show Character",
        "PTL%%update",
        "search",
        "search_general",
        "search_places",
        "siteDomain%%industry list",
        "Stadia Maps Time Zone API%%TZ Lookup by Location",
        "Weather_dataSet%%Weather_dataSet",
    }
)
"""APIs whose arguments are free text, judged by a model; those of all others are compared as strings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """How an expected call was before it was edited."""

    given: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that were other ones."""
    absent: tuple[str, ...] = ()
    """Arguments that were not expected."""
    impossible: bool = False
    """No answer was found correct: what was expected is not known."""

    def before(self, gold: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The expected arguments that an answer was scored with; None where none matches."""
        if self.impossible:
            return None
        return {key: value for key, value in gold.items() if key not in self.absent} | dict(self.given)


_SPANISH = "NumbersToLetters%%Convertir cantidad a letra Moneda MXN Español"
_ENGLISH = "NumbersToLetters%%Convertir cantidad a letra Moneda MXN Ingles"
_LANGUAGES = "siteDomain%%language list"
_FOOTBALL = "Football Dolphin%%Head to head statistics"
_EMAIL = "Global Email V4%%Global Email V4"
_PESOS = Edit(given={"moneda": "PESOS"})
_DOMAIN = Edit(given={"domain": "example.com"})
_EXPRESS = Edit(given={"opt": "VerifyMailbox:Express"}, absent=("format",))
_UNKNOWN = Edit(impossible=True)

EDITED: Mapping[tuple[str, str], Edit] = {
    (_SPANISH, "9bfca468"): _PESOS,
    (_SPANISH, "59180f3c"): _PESOS,
    (_SPANISH, "a6b6baee"): _PESOS,
    (_ENGLISH, "1f2e3fde"): Edit(given={"moneda": "British Pounds"}),
    (_LANGUAGES, "f00e6cc0"): _DOMAIN,
    (_LANGUAGES, "38f711e8"): _DOMAIN,
    (_LANGUAGES, "5dada2cf"): _UNKNOWN,
    (_FOOTBALL, "ccb8c126"): _UNKNOWN,
    (_EMAIL, "b07cd3c4"): _EXPRESS,
    (_EMAIL, "d6fa7a10"): _UNKNOWN,
    (_EMAIL, "866ae4fc"): _UNKNOWN,
}
"""By API and digest of the query: a file may hold some of the items only, in any order."""

_SUSPECTED = {
    "CatchLoc%%[Group Management] API access for modifying group information": ("0b40d097 bf8f6df1 43e01f69 d5839910"),
    "PTL%%update": "29f84b56 cb3c0ecf 9a3e8474 254be1eb 5ccaf2f0 5b467905",
    "Stadia Maps Time Zone API%%TZ Lookup by Location": "fae79f41 f9550299",
    "get_arxiv_article_information": "5ac82448 0690fe84",
    "GamerPower%%Live giveaways by type": "2f20a3eb",
    "siteDomain%%industry list": "fcbe6163",
}
SUSPECT = frozenset(EDITED) | {(api, one) for api, digests in _SUSPECTED.items() for one in digests.split()}
"""The 27 items whose expected call was edited, or looks as if it was: figures are told with them and without."""


def digest(query: str) -> str:
    """What a query is known by."""
    return hashlib.blake2b(query.encode(), digest_size=4).hexdigest()
