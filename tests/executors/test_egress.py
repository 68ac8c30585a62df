"""Where requests may go."""

import asyncio
import socket

import httpcore
import pytest

from executors.errors import BadCallError, BlockedError, ConfigError, TransientError
from executors.http.egress import Guard, GuardedBackend, is_public

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"


@pytest.mark.parametrize(
    "address",
    [PUBLIC, OTHER, "8.8.8.8", "1.1.1.1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2a00:1450:4001:81b::200e"],
)
def test_addresses_of_the_open_internet(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.5", "172.16.0.1", "172.31.255.255"),
        *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1", "100::1", "3fff::1"),
        *("64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:808:808::1"),
        *(
            "2001:0:7f00:1::1",
            "2001:0:808:808::1",
            "2001:10::1",
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::200:5efe:a00:1",
        ),
        *("168.63.129.16", "not an address", "", "127.1", "2130706433"),
    ],
)
def test_addresses_that_are_not_of_the_open_internet(address):
    assert not is_public(address)


GUARD = Guard(["api.test", "*.wide.test", "odd.test:8443"], ["127.0.0.1:8080", "localhost:9000", "[::1]:7000"])


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://api.test", ("http", "api.test", 80), "/"),
        ("https://API.test:443/a?b=c#d", ("https", "api.test", 443), "/a?b=c"),
        ("https://a.b.wide.test/x%2e", ("https", "a.b.wide.test", 443), "/x%2e"),
        ("https://odd.test:8443/", ("https", "odd.test", 8443), "/"),
        ("http://127.0.0.1:8080/x", ("http", "127.0.0.1", 8080), "/x"),
        ("http://localhost:9000/?q", ("http", "localhost", 9000), "/?q"),
        ("http://[::1]:7000/", ("http", "::1", 7000), "/"),
    ],
)
def test_what_is_allowed_passes(url, origin, path):
    target = GUARD.check(url)
    assert target.origin == origin and target.path == path
    assert GUARD.check(target.url) == target


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://api.test/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("http://other.test/", "'other.test' is not allowed; allowed: "),
        ("http://wide.test/", "not allowed"),
        ("http://awide.test/", "not allowed"),
        ("http://api.test.evil.test/", "not allowed"),
        ("http://sub.api.test/", "not allowed"),
        ("http://localhost/", "not allowed"),
        ("http://localhost:9001/", "not allowed"),
        ("http://api.test:22/", "port 22"),
        ("http://odd.test/", "port 80"),
        ("http://127.0.0.1/", "IP address"),
        ("http://127.0.0.1:8081/", "IP address"),
        ("http://127.1:8080/", "IP address"),
        ("http://0177.0.0.1:8080/", "IP address"),
        ("http://0x7f.1/", "IP address"),
        ("http://0x/", "IP address"),
        ("http://2130706433/", "IP address"),
        ("http://8.8.8.8/", "IP address"),
        ("http://8.8.8.8./", "IP address"),
        ("http://a.0x10/", "IP address"),
        ("http://[::1]/", "IP address"),
        ("http://[::ffff:127.0.0.1]/", "IP address"),
        ("http://[fe80::1%25eth0]/", "IP address"),
        ("http://[v1.x]/", "IP address|no URL"),
        ("http://user@api.test/", "user name"),
        ("http://:@api.test/", "user name"),
        ("http://api.test@127.0.0.1/", "user name"),
        ("http://api.test\\@127.0.0.1/", "backslash"),
        ("http://api.test/\r\nX: 1", "control"),
        ("http://api.test/a b", "space"),
        ("http://api.test\t/", "control"),
        (" http://api.test/", "space"),
        ("http://аpi.test/", "non-ASCII"),
        ("http://①②⑦.⓪.⓪.①/", "non-ASCII"),
        ("http://api。test/", "non-ASCII"),
        ("http://api%2etest/", "plain host name"),
        ("http://api.test./", "plain host name"),
        ("http://api..test/", "plain host name"),
        ("http://-api.test/", "plain host name"),
        ("http://api.test,evil.test/", "plain host name"),
        ("http://api.test;evil.test/", "plain host name"),
    ],
)
def test_what_is_not_allowed_is_blocked(url, told):
    with pytest.raises((BlockedError, BadCallError), match=told) as caught:
        GUARD.check(url)
    assert isinstance(caught.value, BlockedError) or "v1" in url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "no absolute URL"),
        ("api.test/x", "no absolute URL"),
        ("//api.test/x", "no absolute URL"),
        ("http:///x", "names no host"),
        ("http://:80/", "names no host"),
        ("http://[::1", "is no URL"),
        ("http://api.test:abc/", "is no URL"),
        ("http://api.test:99999/", "is no URL"),
        ("http://api.test/" + "a" * 9000, "more than 8192"),
    ],
)
def test_what_is_no_url_is_a_bad_call(url, told):
    with pytest.raises(BadCallError, match=told):
        GUARD.check(url)


@pytest.mark.parametrize("entry", ["", "http://a.test", "a.test/x", "u@a.test", "a.test:port", "a test", "*.*", "*"])
def test_an_allowed_host_that_cannot_be_read_is_a_config_error(entry):
    with pytest.raises(ConfigError, match="cannot stand in allow"):
        Guard([entry])


@pytest.mark.parametrize("entry", ["127.0.0.1", "localhost", "http://127.0.0.1:80", ":80", "10.0.0.0/8"])
def test_a_private_place_is_an_exact_host_and_port(entry):
    with pytest.raises(ConfigError, match="cannot stand in allow_private"):
        Guard([], [entry])


# names and addresses


class Network(httpcore.AsyncMockBackend):
    """Notes what is connected to."""

    def __init__(self, dead=()):
        super().__init__([])
        self.connected, self.dead = [], dead

    async def connect_tcp(self, host, port, *rest, **more):
        self.connected.append((host, port))
        if host in self.dead:
            raise httpcore.ConnectError(f"{host} is dead")
        return await super().connect_tcp(host, port, *rest, **more)


def backend(answers, dead=()):
    """A guarded backend on a network that notes everything, with one answer of the resolver after the other."""
    answers = [*answers]

    async def resolve(host, port):
        return answers.pop(0)

    network = Network(dead)
    return GuardedBackend(Guard(["api.test"], ["localhost:9000"], resolve), network), network


def connect(made, host="api.test", port=80):
    guarded, network = made
    asyncio.run(guarded.connect_tcp(host, port))
    return network.connected


def test_the_address_that_passed_is_the_one_connected_to():
    assert connect(backend([[PUBLIC], ["127.0.0.1"]])) == [(PUBLIC, 80)]


@pytest.mark.parametrize("answer", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], [OTHER, "::1"], ["fe80::1%2"]])
def test_every_address_of_a_name_has_to_pass(answer):
    guarded, network = backend([answer])
    with pytest.raises(BlockedError, match="not of the open internet"):
        connect((guarded, network))
    assert network.connected == []


def test_a_private_place_may_lead_anywhere_but_at_its_port_alone():
    assert connect(backend([["127.0.0.1"]]), "localhost", 9000) == [("127.0.0.1", 9000)]
    with pytest.raises(BlockedError):
        connect(backend([["127.0.0.1"]]), "localhost", 9001)


def test_the_next_address_is_tried_where_one_is_dead():
    assert connect(backend([[OTHER, PUBLIC]], dead=[OTHER])) == [(OTHER, 80), (PUBLIC, 80)]
    with pytest.raises(httpcore.ConnectError):
        connect(backend([[PUBLIC]], dead=[PUBLIC]))


def test_a_name_without_addresses_is_nobodys_fault():
    with pytest.raises(TransientError, match="has no address"):
        connect(backend([[]]))


def test_a_name_that_is_not_found_is_nobodys_fault():
    async def resolve(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(TransientError, match="was not found"):
        asyncio.run(Guard(["api.test"], resolve=resolve).addresses("api.test", 80))


def test_the_systems_resolver_gives_plain_addresses():
    assert set(asyncio.run(Guard([], ["localhost:1"]).addresses("localhost", 1))) <= {"127.0.0.1", "::1"}


def test_sockets_of_the_machine_are_blocked():
    with pytest.raises(BlockedError):
        asyncio.run(backend([])[0].connect_unix_socket("/var/run/docker.sock"))
