import pytest

from executors.corpus.entries import Entry
from executors.corpus.records import write_embedded
from executors.endpoint import Endpoint, EndpointClient
from executors.errors import TransientError
from rollouts.instructions import asked_instructions
from tests.executors.endpoints import endpoint, texts

RECORD = write_embedded(Entry(name="Tunes", description="Songs and albums", category="Music"), 1)


def client(fake):
    return EndpointClient(Endpoint(base_url=fake.url, model="m", retries=0))


async def test_a_models_requests_are_cleaned_and_those_that_break_rules_are_told_to_it():
    first = '1. "Could you find a song by Amara Bauer?"\n2. Ask Tunes for something new today.\n3. Sing.'
    with endpoint(first, "1. I need an album from 1999, a loud one.") as fake:
        made = await asked_instructions(client(fake), RECORD, 2)
    assert [one.text for one in made] == [
        "Could you find a song by Amara Bauer?",
        "I need an album from 1999, a loud one.",
    ]
    told = texts(fake.asked[1]["messages"])
    assert "it names Tunes" in told and "fewer than four words" in told


async def test_what_could_be_had_is_kept_and_nothing_at_all_is_an_error():
    with endpoint("1. Could you find a song by Amara Bauer?") as fake:
        assert len(await asked_instructions(client(fake), RECORD, 5, tries=2)) == 1
    with (
        endpoint("Tunes.") as fake,
        pytest.raises(TransientError, match="no request for Tunes that the rules allow"),
    ):
        await asked_instructions(client(fake), RECORD, 5, tries=2)
