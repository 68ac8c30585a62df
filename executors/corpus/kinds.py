"""What APIs of each category are about: things with their fields, and services that compute something.

A line is a thing, ``noun: field, field=choice/choice, field:type``; or a service, with what it takes before ``->`` and
what it gives behind. A field without a type is a text.
"""

from dataclasses import dataclass
from functools import cache

from executors.errors import DataError


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a thing, or an input of a service."""

    name: str
    type: str = "string"
    """``string``, ``integer``, ``number``, ``boolean`` or ``date``."""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Something that an API may be about."""

    noun: str
    """In words, such as ``job offer``; of a service, what it does: ``convert currency``."""
    fields: tuple[Field, ...]
    gives: tuple[Field, ...] = ()
    """What a service answers; a thing has none."""

    @property
    def is_service(self) -> bool:
        return bool(self.gives)


_LINES = {
    "Animals": """pet: name, species=dog/cat/rabbit/parrot, breed, age:integer, city
shelter: name, city, phone, capacity:integer
animal fact: topic=habitat/diet/behaviour/history, sentence, source""",
    "Anime": """anime series: title, genre=action/comedy/drama/fantasy, year:integer, episodes:integer, rating:number
anime character: name, role=main/supporting/villain, gender=female/male, series
anime quote: character, series, quote""",
    "Anti-Malware": """threat report: target, severity=low/medium/high, category=phishing/malware/spam, reported:date
malware sample: hash, family=trojan/worm/ransomware/adware, size:integer, seen:date
scan url: url -> verdict=clean/suspicious/malicious, score:integer, engines:integer""",
    "Art & Design": """artwork: title, artist, style=impressionism/cubism/baroque/realism, year:integer, museum
color palette: name, mood=warm/cold/neutral, colors:integer, likes:integer
exhibition: title, museum, city, opening:date, price:number""",
    "Authentication & Authorization": """account: username, email, role=admin/editor/viewer, created:date
access policy: name, effect=allow/deny, resource, priority:integer
check permission: username, action=read/write/delete, resource -> allowed:boolean, reason""",
    "Blockchain": """block: number:integer, network=mainnet/testnet, transactions:integer, timestamp:date
wallet: address, network=mainnet/testnet, balance:number, created:date
smart contract: name, network=mainnet/testnet, creator, verified:boolean""",
    "Books": """book: title, author, genre=fiction/history/science/poetry, language, year:integer
book review: title, reviewer, rating:integer, sentence
author profile: name, country, birthday:date, books:integer""",
    "Business": """company: name, industry=retail/energy/software/logistics, country, employees:integer
invoice: customer, amount:number, currency, status=draft/sent/paid, due:date
customer contact: name, company, email, phone""",
    "Calendar": """holiday: name, country, date:date, type=public/religious/school
calendar event: title, city, date:date, duration:integer
count workdays: start:date, end:date, country -> workdays:integer, holidays:integer""",
    "Cloud Storage & File Sharing": """file: name, folder, type=document/image/archive/video, size:integer
shared link: file, permission=view/edit, expires:date, downloads:integer
folder: name, owner, files:integer, created:date""",
    "Continuous Integration": """build: project, branch, status=passed/failed/running, duration:integer
pipeline: name, project, trigger=push/schedule/manual, steps:integer
deployment: project, environment=staging/production, version, date:date""",
    "Cryptocurrency": """coin: name, symbol, rank:integer, price:number, network=bitcoin/ethereum/solana
exchange market: exchange, pair, volume:number, price:number
convert coins: from, to, amount:number -> result:number, rate:number""",
    "Currency Exchange": """exchange rate: base, target, rate:number, date:date
currency: code, name, country, decimals:integer
convert currency: from_currency, to_currency, amount:number -> result:number, rate:number""",
    "Data Validation": """validation rule: name, field, type=email/phone/address/number, strict:boolean
validate email: email -> valid:boolean, disposable:boolean, reason
validate phone number: phone, country -> valid:boolean, carrier, type=mobile/landline""",
    "Development": """code repository: name, owner, language=python/java/rust/go, stars:integer
code snippet: title, language=python/java/rust/go, author, lines:integer
package release: package, version, license=MIT/Apache/GPL, date:date
generate qr code: text, size:integer -> url, format=png/svg""",
    "Dictionaries": """word entry: word, language, definition, part_of_speech=noun/verb/adjective/adverb
translation: word, source_language, target_language, text
synonym: word, similarity:number, register=formal/neutral/informal""",
    "Documents & Productivity": """task: title, project, priority=low/medium/high, due:date
note: title, tag, text, created:date
document template: name, category=letter/contract/report/invoice, pages:integer""",
    "Email": """email message: subject, sender, folder=inbox/sent/archive, date:date
mailing list: name, owner, subscribers:integer, open_rate:number
verify email address: email -> deliverable:boolean, score:integer, domain""",
    "Entertainment": """show: title, venue, city, date:date, price:number
joke: category=puns/animals/office/science, text, rating:integer
trivia question: category=history/film/nature/sports, difficulty=easy/medium/hard, question""",
    "Environment": """air station: name, city, pollutant=ozone/dust/nitrogen, index:integer
carbon estimate: activity=flight/driving/heating, amount:number, country, emissions:number
recycling point: name, city, material=glass/paper/plastic/metal, opening""",
    "Events": """event: title, city, category=concert/theatre/sports/fair, date:date
ticket: event, seat, price:number, status=available/reserved/sold
venue: name, city, capacity:integer, phone""",
    "Finance": """stock: symbol, company, sector=energy/technology/health/finance, price:number
bank transaction: account, amount:number, currency, date:date, status=pending/completed
budget: name, month, limit:number, currency
compute loan: amount:number, rate:number, years:integer -> monthly_payment:number, total:number""",
    "Food & Drink": """recipe: title, cuisine=italian/indian/mexican/japanese, minutes:integer, level=easy/medium/hard
restaurant: name, city, cuisine=italian/indian/mexican/japanese, rating:number
cocktail: name, spirit=rum/gin/vodka/tequila, glass, ingredients:integer""",
    "Games & Comics": """game: title, genre=puzzle/strategy/racing/adventure, platform=pc/console/mobile, year:integer
player profile: username, level:integer, country, wins:integer
comic: title, publisher, year:integer, issues:integer
game card: name, rarity=common/rare/legendary, power:integer, color""",
    "Geocoding": """place: name, city, country, type=street/landmark/station
postal area: postal_code, city, country, population:integer
geocode address: address, country -> latitude:number, longitude:number, accuracy=exact/street/city
locate ip: ip -> country, city, timezone""",
    "Government": """public dataset: title, agency, topic=health/transport/education/budget, updated:date
bill: title, sponsor, status=introduced/passed/rejected, date:date
public office: name, city, phone, service=passport/tax/housing""",
    "Health": """doctor: name, specialty=cardiology/dermatology/pediatrics, city, rating:number
medicine: name, form=tablet/syrup/cream, manufacturer, price:number
food item: name, calories:integer, protein:number, category=fruit/vegetable/meat/dairy
appointment: patient, doctor, date:date, status=booked/cancelled/completed""",
    "Jobs": """job offer: title, company, city, salary:integer, contract=permanent/temporary/internship
candidate: name, city, skill=python/design/sales/nursing, experience:integer
job application: candidate, company, status=received/interview/rejected, date:date""",
    "Machine Learning": """trained model: name, task=classification/translation/detection, accuracy:number, framework
dataset: name, task=classification/translation/detection, rows:integer, license
label image: url, labels:integer -> label, confidence:number""",
    "Music": """song: title, artist, genre=rock/jazz/pop/classical, duration:integer
album: title, artist, year:integer, tracks:integer
playlist: name, owner, mood=happy/calm/energetic, tracks:integer
concert: artist, city, date:date, price:number""",
    "News": """article: title, author, topic=politics/business/sports/science, language, date:date
news source: name, country, language, category=general/business/sports
headline: title, source, country, date:date""",
    "Open Data": """dataset entry: title, publisher, format=csv/json/xml, rows:integer
statistic: indicator=population/income/education/energy, country, year:integer, value:number
university: name, country, city, students:integer""",
    "Open Source Projects": """project: name, language=python/java/rust/go, license=MIT/Apache/GPL, stars:integer
contributor: username, country, commits:integer, project
issue: title, project, status=open/closed, label=bug/feature/question""",
    "Patent": """patent: title, inventor, country, filed:date, status=pending/granted/expired
patent applicant: name, country, patents:integer, sector=energy/software/medicine""",
    "Personality": """advice: topic=work/love/money/health, text, author
famous quote: author, topic=work/love/life/courage, quote
personality test: name, questions:integer, type=career/character/relationship""",
    "Phone": """phone model: name, brand, memory:integer, price:number
phone number: number, country, carrier, type=mobile/landline
send message: recipient, text -> status=queued/sent, cost:number""",
    "Photography": """photo: title, photographer, orientation=portrait/landscape/square, likes:integer
photo collection: title, owner, photos:integer, theme=nature/city/people
resize image: url, width:integer, height:integer -> result_url, bytes:integer""",
    "Programming": """coding challenge: title, difficulty=easy/medium/hard, language=python/java/rust, points:integer
code submission: challenge, username, status=accepted/rejected, date:date
run code: language=python/java/rust, code -> output, milliseconds:integer""",
    "Science & Math": """planet: name, type=rocky/gas/ice, radius:integer, moons:integer
space launch: mission, agency, date:date, status=planned/success/failure
earthquake: place, magnitude:number, depth:integer, date:date
evaluate formula: expression, precision:integer -> result:number, exact:boolean""",
    "Security": """vulnerability: title, severity=low/medium/high, product, published:date
security alert: source, severity=low/medium/high, message, date:date
check password: password -> breached:boolean, count:integer""",
    "Shopping": """product: name, brand, category=clothing/toys/books/kitchen, price:number
order: customer, product, quantity:integer, status=pending/shipped/delivered
coupon: code, store, discount:integer, expires:date""",
    "Social": """post: author, topic=travel/food/music/work, text, likes:integer
member profile: username, country, followers:integer, joined:date
group: name, topic=travel/food/music/work, members:integer, city""",
    "Sports & Fitness": """match: home_team, away_team, league, date:date, stadium
athlete: name, sport=football/tennis/swimming/cycling, country, age:integer
workout: name, level=beginner/intermediate/advanced, minutes:integer, calories:integer""",
    "Test Data": """sample user: name, email, city, gender=female/male
sample product: name, category=clothing/toys/books/kitchen, price:number, color
generate text: paragraphs:integer, language -> text, words:integer""",
    "Text Analysis": """text document: title, language, topic=politics/business/sports/science, words:integer
analyse sentiment: text, language -> sentiment=positive/negative/neutral, score:number
detect language: text -> language, confidence:number""",
    "Tracking": """parcel: tracking_number, carrier, status=registered/travelling/delivered, city
shipment: origin, destination, weight:number, date:date
carrier: name, country, phone, speed=standard/express""",
    "Transportation": """flight: airline, origin, destination, date:date, status=scheduled/delayed/landed
bus stop: name, city, line, distance:integer
train connection: origin, destination, date:date, duration:integer, price:number
charging station: name, city, plug=type1/type2/chademo, power:integer""",
    "URL Shorteners": """short link: url, slug, clicks:integer, created:date
link click: country, device=desktop/mobile/tablet, referrer, date:date
shorten url: url, slug -> short_url, expires:date""",
    "Vehicle": """car: brand, model, year:integer, fuel=petrol/diesel/electric, price:integer
vehicle recall: brand, component=brakes/airbag/engine, year:integer, date:date
decode vin: vin -> brand, model, year:integer""",
    "Video": """movie: title, director, genre=comedy/drama/horror/fantasy, year:integer, rating:number
series: title, network, seasons:integer, status=running/ended
film quote: movie, character, quote
video clip: title, channel, duration:integer, views:integer""",
    "Weather": """weather forecast: city, date:date, condition=sunny/rainy/cloudy/snowy, temperature:number
weather station: name, city, elevation:integer, status=active/inactive
weather alert: region, severity=low/medium/high, type=storm/heat/flood, date:date""",
}


@cache
def kinds_of(category: str) -> tuple[Kind, ...]:
    """What APIs of a category may be about; of an unknown one, what open data may be."""
    return tuple(map(_kind, _LINES.get(category, _LINES["Open Data"]).splitlines()))


@cache
def all_kinds() -> tuple[Kind, ...]:
    """The kinds of all categories."""
    return tuple(kind for category in _LINES for kind in kinds_of(category))


def _kind(line: str) -> Kind:
    noun, colon, rest = line.partition(": ")
    if not colon:
        raise DataError(f"a kind is written 'noun: field, field', not {line!r}")
    takes, _, gives = rest.partition(" -> ")
    return Kind(noun=noun, fields=_fields(takes), gives=_fields(gives))


def _fields(text: str) -> tuple[Field, ...]:
    return tuple(_field(part) for part in text.split(", ") if part)


def _field(text: str) -> Field:
    if "=" in text:
        name, choices = text.split("=")
        return Field(name, choices=tuple(choices.split("/")))
    name, _, type = text.partition(":")
    return Field(name, type or "string")
