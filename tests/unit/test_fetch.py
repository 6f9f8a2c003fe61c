"""Images by URL: what is fetched, and above all what is not."""

import asyncio
import base64
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, TypeVar

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.fetch import Fetcher
from claude_coded.fetch.addresses import Address, Network, Unreachable, is_public, look_up, may_reach
from claude_coded.fetch.client import parse
from claude_coded.fetch.fetcher import CACHE_BYTES, CACHE_COUNT, CACHE_SECONDS, Cache, read_image
from claude_coded.models import AGENT
from claude_coded.turn import (
    ConversationKey,
    Image,
    Message,
    Part,
    RemoteImage,
    Role,
    Text,
    ToolOutcome,
    TurnRequest,
)

T = TypeVar("T")

PNG = b"\x89PNG\r\n\x1a\n and so on"
LOOPBACK = IPv4Address("127.0.0.1")

# Addresses ---------------------------------------------------------------------------------------------

PUBLIC = [
    "1.1.1.1",
    "93.184.216.34",
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:800::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_all_others_are_not(address: str) -> None:
    assert not is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_counts_the_same_inside_an_ipv6_one(address: IPv4Address) -> None:
    for prefix in ("::ffff:", "64:ff9b::"):
        assert is_public(IPv6Address(f"{prefix}{address}")) == is_public(address)
    sixtofour = IPv6Address((0x2002 << 112) | (int(address) << 80) | 1)
    assert not is_public(sixtofour)
    assert not is_public(IPv6Address(int(address)))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6, network="2000::/3")))
def test_what_python_calls_private_is_never_public(address: Address) -> None:
    private = (address.is_private, address.is_multicast, address.is_reserved, address.is_link_local)
    assert not (is_public(address) and any(private))


@given(st.ip_addresses(v=6))
def test_beyond_ipv6s_global_addresses_there_are_only_ipv4_ones(address: IPv6Address) -> None:
    outside = (IPv6Network("2000::/3"), IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
    assert not is_public(address) or any(address in network for network in outside)


def test_only_the_ports_of_the_web_are_reached() -> None:
    public = ip_address("1.1.1.1")
    assert [port for port in range(65536) if may_reach(public, port)] == [80, 443]
    assert not may_reach(LOOPBACK, 80)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/a.png",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/a.png",
        "example.com/a.png",
        "http:///a.png",
        "http://user:pass@example.com/",
        "http://user@example.com/",
        "http://@example.com/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://[::1/",
        "http://exa mple.com/",
        "http://example.com/\r\nHost: other",
        "http://example.com\\@127.0.0.1/",
        "http://ex\u00e4mple.com/",
        "http://example.com/\u00e4.png",
        "",
    ],
)
def test_what_is_no_plain_web_url_is_refused(url: str) -> None:
    with pytest.raises(Unreachable):
        parse(url)


@given(st.text())
def test_no_url_breaks_the_parser(url: str) -> None:
    try:
        parts = parse(url)
    except Unreachable:
        return
    assert parts.scheme in {"http", "https"}
    assert parts.hostname


# Images and the cache ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0 jpeg", "image/jpeg"),
        (b"GIF87a...", "image/gif"),
        (b"GIF89a...", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_an_image_is_known_by_its_first_bytes(data: bytes, media_type: str) -> None:
    assert read_image(data) == Image(media_type, base64.b64encode(data).decode())


@given(
    st.one_of(
        st.binary(max_size=2),
        st.binary().map(b"\0".__add__),
        st.sampled_from([b"<svg/>", b"%PDF-1.7", b"RIFF\0\0\0\0WAVE", b"BM", b""]),
    )
)
def test_other_bytes_are_no_image(data: bytes) -> None:
    with pytest.raises(Unreachable):
        read_image(data)


def test_the_cache_holds_for_some_minutes_the_images_used_last() -> None:
    now = [0.0]
    cache = Cache(lambda: now[0])
    for number in range(CACHE_COUNT):
        cache.put(str(number), Image("image/png", str(number)))
    assert cache.get("0") == Image("image/png", "0")
    cache.put("new", Image("image/png", "new"))
    assert (cache.get("0"), cache.get("1")) == (Image("image/png", "0"), None)
    now[0] = CACHE_SECONDS
    assert cache.get("0") is None


def test_the_cache_holds_so_many_bytes() -> None:
    cache = Cache(lambda: 0.0)
    for name in ("a", "b", "c"):
        cache.put(name, Image("image/png", name * (CACHE_BYTES // 2)))
    cache.put("c", Image("image/png", "c" * (CACHE_BYTES // 2)))
    assert [name for name in "abc" if cache.get(name)] == ["b", "c"]
    cache.put("d", Image("image/png", "d" * (CACHE_BYTES + 1)))
    assert [name for name in "abcd" if cache.get(name)] == []


# Fetching ----------------------------------------------------------------------------------------------


@dataclass
class Site:
    """A web server on loopback; `pages` are what it answers to a path, as whole responses."""

    pages: dict[str, bytes]
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, str]] = field(default_factory=list)  # host, path
    open: int = 0
    most: int = 0
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            host = next(line[6:] for line in head.split("\r\n") if line.startswith("Host: "))
            self.asked.append((host, path))
            self.reached.set()
            writer.write(self.pages.get(path, response(b"", "404 Not Found")))
            await writer.drain()
            if path.startswith("/slow"):
                await self.slow.wait()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


def response(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def moved(to: str, status: str = "302 Found") -> bytes:
    return response(b"", status, f"Location: {to}")


@asynccontextmanager
async def site(pages: dict[str, bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    served = Site(pages)
    server = await asyncio.start_server(served.answer, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        served.slow.set()
        server.close()
        await server.wait_closed()


async def at_home(host: str, _: int) -> list[Address]:
    """Resolve any name to this machine, and a number to itself."""
    try:
        return [ip_address(host)]
    except ValueError:
        return [LOOPBACK]


def local(*, fine: Callable[[Address, int], bool] = lambda *_: True, **more: Any) -> Network:
    return Network(**{"resolve": at_home, "allowed": fine, **more})


def request(*parts: Part) -> TurnRequest:
    messages = tuple(Message(Role.USER, (part,)) for part in parts)
    return TurnRequest(ConversationKey("t", "c"), AGENT, messages)


def fetcher(network: Network | None = None, **more: Any) -> Fetcher:
    return Fetcher(**{"enabled": True, "network": network or local(), **more})


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def refusal(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await fetcher.resolve(request(RemoteImage(url)))
    error = caught.value
    assert (error.status, error.param) == (400, "messages")
    assert error.message.startswith(f"the image at {url} could not be fetched: ")
    return error.message.partition("fetched: ")[2]


def test_urls_become_images_wherever_they_stand_and_each_is_fetched_once() -> None:
    async def scenario() -> None:
        gif = response(b"GIF89a", "200 OK", "Content-Type: text/html")
        async with site({"/a": response(PNG), "/b?c=d": gif}) as served:
            base = f"http://images.example:{served.port}"
            asked = request(
                Text("look"),
                RemoteImage(f"{base}/a"),
                ToolOutcome("call_1", (Text("x"), RemoteImage(f"{base}/b?c=d#e"))),
                RemoteImage(f"{base}/a"),
            )
            fetch = fetcher()
            for _ in range(2):  # the second time from memory
                filled = await fetch.resolve(asked)
                png, animated = read_image(PNG), read_image(b"GIF89a")
                outcome = ToolOutcome("call_1", (Text("x"), animated))
                assert filled == request(Text("look"), png, outcome, png)
            assert sorted(served.asked) == [
                (f"images.example:{served.port}", "/a"),
                (f"images.example:{served.port}", "/b?c=d"),
            ]

    run(scenario())


def test_a_request_without_urls_is_let_be() -> None:
    asked = request(Text("x"), Image("image/png", "AAAA"))
    assert run(fetcher().resolve(asked)) is asked
    assert run(Fetcher(enabled=False).resolve(asked)) is asked


@pytest.mark.parametrize("nested", [False, True])
def test_nothing_is_fetched_where_the_operator_has_not_allowed_it(nested: bool) -> None:
    image = RemoteImage("http://images.example/a")
    with pytest.raises(UnsupportedParameter, match="CLAUDE_CODED_FETCH_IMAGES") as caught:
        run(Fetcher(enabled=False).resolve(request(ToolOutcome("1", (image,)) if nested else image)))
    assert caught.value.param == "messages"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "127.1", "0x7f000001", "2130706433"])
def test_this_machine_is_not_reached(host: str) -> None:
    async def scenario() -> None:
        async with site({"/a": response(PNG)}) as served:
            for port in ("", f":{served.port}"):
                said = await refusal(Fetcher(enabled=True), f"http://{host}{port}/a")
                assert "no public web server" in said
            assert not served.asked

    run(scenario())


def test_a_name_with_any_private_address_is_not_reached() -> None:
    async def both(_: str, port: int) -> list[Address]:
        return [ip_address("1.1.1.1"), ip_address("10.0.0.1")]

    said = run(refusal(fetcher(Network(resolve=both)), "http://images.example/a"))
    assert "no public web server" in said
    assert "10.0.0.1" not in said


def test_unknown_names_and_private_ones_look_the_same() -> None:
    async def nothing(_: str, port: int) -> list[Address]:
        return []

    async def private(_: str, port: int) -> list[Address]:
        return [ip_address("10.0.0.1")]

    url = "http://printer.corp/a"
    said = {run(refusal(fetcher(Network(resolve=how)), url)) for how in (nothing, private)}
    assert len(said) == 1


def test_the_machines_resolver_is_asked() -> None:
    assert LOOPBACK in run(look_up("localhost", 80))
    assert run(look_up("127.1", 80)) == [LOOPBACK]
    assert run(look_up("a" * 70 + ".example", 80)) == []


def public_site(port: int) -> Callable[[Address, int], bool]:
    """Return a policy that takes one server on loopback for a public one."""
    return lambda address, asked: (address == LOOPBACK and asked == port) or may_reach(address, asked)


def test_every_redirect_is_checked_again() -> None:
    async def scenario() -> None:
        async with site({"/secret": response(PNG)}) as inside:
            targets = (
                f"http://127.0.0.1:{inside.port}/secret",
                "http://169.254.169.254/",
                "file:///etc/passwd",
            )
            pages = {f"/{n}": moved(target) for n, target in enumerate(targets)}
            async with site(pages) as served:
                fetch = fetcher(local(fine=public_site(served.port)))
                for path in pages:
                    said = await refusal(fetch, f"http://images.example:{served.port}{path}")
                    assert "no public web server" in said or "no http" in said
            assert not inside.asked

    run(scenario())


def test_three_redirects_are_followed_and_no_more() -> None:
    async def scenario() -> None:
        pages = {f"/{n}": moved(f"{n - 1}", f"{code} X") for n, code in enumerate([0, 301, 303, 307, 308])}
        async with site({**pages, "/0": response(PNG)}) as served:
            base = f"http://images.example:{served.port}"
            filled = await fetcher().resolve(request(RemoteImage(f"{base}/3")))
            assert filled == request(read_image(PNG))
            assert "redirects more than 3" in await refusal(fetcher(), f"{base}/4")

    run(scenario())


def test_a_name_that_changes_its_address_is_resolved_once() -> None:
    async def scenario() -> None:
        asked: Counter[str] = Counter()

        async def rebinding(host: str, _: int) -> list[Address]:
            asked[host] += 1
            return [LOOPBACK] if asked[host] == 1 else [ip_address("127.0.0.2")]

        async with site({"/a": response(PNG)}) as served:
            network = local(fine=lambda address, _: address == LOOPBACK, resolve=rebinding)
            filled = await fetcher(network).resolve(
                request(RemoteImage(f"http://re.example:{served.port}/a"))
            )
            assert filled == request(read_image(PNG))
            assert asked == {"re.example": 1}
            # For the next image it is resolved, and checked, again.
            assert "no public" in await refusal(fetcher(network), f"http://re.example:{served.port}/b")

    run(scenario())


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    async def scenario() -> None:
        async def two(_: str, port: int) -> list[Address]:
            return [ip_address("127.0.0.2"), LOOPBACK]

        async with site({"/a": response(PNG)}) as served:
            url = f"http://images.example:{served.port}/a"
            filled = await fetcher(local(resolve=two)).resolve(request(RemoteImage(url)))
            assert filled == request(read_image(PNG))

    run(scenario())


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (response(b"", "404 Not Found"), "answered 404"),
        (response(PNG, "500 Oh"), "answered 500"),
        (response(b"", "302 Found"), "answered 302"),
        (response(b"<html>", "200 OK", "Content-Type: image/png"), "no png"),
        (response(b"\x1f\x8b\x08", "200 OK", "Content-Encoding: gzip"), "no png"),
        (response(PNG + bytes(5_000_000)), "more than 5000000"),
        (response(b"", "200 OK", f"X-Long: {'x' * 500_000}"), ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n" + PNG, ""),
        (b"HTTP/1.1 200 OK\r\n\r\n" + PNG + bytes(5_000_000), "more than 5000000"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", ""),
        (response(PNG, length=1000), ""),
        (b"SSH-2.0-OpenSSH\r\n", ""),
        (b"", ""),
    ],
)
def test_what_is_no_image_of_bounded_size_is_refused(page: bytes, why: str) -> None:
    async def scenario() -> None:
        async with site({"/a": page}) as served:
            assert why in await refusal(fetcher(), f"http://images.example:{served.port}/a")

    run(scenario())


def test_nothing_listens() -> None:
    async def scenario() -> None:
        async with site({}) as served:
            pass
        await refusal(fetcher(), f"http://images.example:{served.port}/a")

    run(scenario())


@pytest.mark.parametrize("page", [b"", response(b"", length=100), response(PNG, length=100)])
def test_a_slow_server_is_given_up(page: bytes) -> None:
    async def scenario() -> None:
        async with site({"/slow": page}) as served:
            fetch = fetcher(time_limit=0.3)
            assert "0.3 seconds" in await refusal(fetch, f"http://images.example:{served.port}/slow")

    run(scenario())


def test_four_are_fetched_at_once_and_the_first_failure_ends_all() -> None:
    async def scenario() -> None:
        async with site({f"/slow{n}": response(b"", length=100) for n in range(9)}) as served:
            base = f"http://images.example:{served.port}"
            urls = [f"{base}/slow{n}" for n in range(9)]
            with pytest.raises(InvalidRequest, match="seconds"):
                await fetcher(time_limit=0.5).resolve(request(*map(RemoteImage, urls)))
            assert served.most == 4
            with pytest.raises(InvalidRequest, match="404"):
                await fetcher().resolve(request(RemoteImage(urls[0]), RemoteImage(f"{base}/none")))

    run(scenario())


def test_all_images_of_a_request_have_a_bound_too() -> None:
    async def scenario() -> None:
        big = response(PNG + bytes(4_900_000))
        async with site({f"/{n}": big for n in range(5)}) as served:
            urls = [f"http://images.example:{served.port}/{n}" for n in range(5)]
            await fetcher().resolve(request(*map(RemoteImage, urls[:4])))
            with pytest.raises(InvalidRequest, match="20000000 bytes"):
                await fetcher().resolve(request(*map(RemoteImage, urls)))

    run(scenario())


def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def scenario() -> None:
        async with site({"/a": response(PNG)}) as served:
            url = f"http://images.example:{served.port}/a"
            assert await fetcher().resolve(request(RemoteImage(url))) == request(read_image(PNG))

    run(scenario())


def test_certificates_are_checked_by_the_name() -> None:
    authority, stranger = trustme.CA(), trustme.CA()

    def trust() -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    async def scenario() -> None:
        for issuer, name, fine in (
            (authority, "images.example", True),
            (authority, "other.example", False),
            (stranger, "images.example", False),
        ):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            issuer.issue_cert(name).configure_cert(context)
            async with site({"/a": response(PNG)}, context) as served:
                url, network = f"https://images.example:{served.port}/a", local(tls=trust)
                if fine:
                    filled = await fetcher(network).resolve(request(RemoteImage(url)))
                    assert filled == request(read_image(PNG))
                    assert served.asked == [(f"images.example:{served.port}", "/a")]
                else:
                    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(fetcher(network), url)
                    assert not served.asked
                    assert "CERTIFICATE" in await refusal(fetcher(), url)  # the system's authorities

    run(scenario())


def test_a_client_that_leaves_ends_the_fetching() -> None:
    async def scenario() -> None:
        async with site({"/slow": response(b"", length=100)}) as served:
            url = f"http://images.example:{served.port}/slow"
            task = asyncio.ensure_future(fetcher().resolve(request(RemoteImage(url))))
            await served.reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(scenario())
