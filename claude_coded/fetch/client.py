"""Fetching over HTTP. Imported only where it is used: the library costs memory.

Neither proxies nor credentials nor cookies: what is fetched is what anybody could fetch.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore2

from claude_coded import __version__
from claude_coded.fetch.addresses import Address, Network, Unreachable

REDIRECTS: Final = 3
CONNECT_TIMEOUT: Final = 3.0
"""Seconds for each of a name's addresses."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_FAILURES: Final = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    OSError,
)


class Client:
    """Fetches bodies of bounded size."""

    def __init__(self, network: Network, max_bytes: int) -> None:
        self._backend = _CheckedNetwork(network)
        self._tls = (network.tls or httpcore2.default_ssl_context)()
        self._max_bytes = max_bytes

    async def get(self, url: str) -> bytes:
        """Return what is at a URL, over at most REDIRECTS redirects. Raises Unreachable."""
        for _ in range(REDIRECTS + 1):
            try:
                body, location = await self._get(parse(url))
            except _FAILURES as error:
                raise Unreachable(str(error) or type(error).__name__) from None
            if location is None:
                return body
            url = urljoin(url, location)
        raise Unreachable(f"it redirects more than {REDIRECTS} times")

    async def _get(self, url: SplitResult) -> tuple[bytes, str | None]:
        """Return the body, or where the server says that it is."""
        target = httpcore2.URL(
            scheme=url.scheme,
            host=url.hostname or "",
            port=url.port or _DEFAULT_PORTS[url.scheme],
            target=(url.path or "/") + (f"?{url.query}" if url.query else ""),
        )
        headers: dict[bytes | str, bytes | str] = {
            "Host": url.netloc,
            "User-Agent": f"claude-coded/{__version__}",
            "Accept": "image/png, image/jpeg, image/gif, image/webp",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        async with (
            httpcore2.AsyncConnectionPool(self._tls, network_backend=self._backend) as pool,
            pool.stream("GET", target, headers=headers) as response,
        ):
            location = _header(response, b"location")
            if response.status in _MOVED and location is not None:
                return b"", location
            if response.status != 200:
                raise Unreachable(f"the server answered {response.status}")
            return await self._read(response), None

    async def _read(self, response: httpcore2.Response) -> bytes:
        body = bytearray()
        async for piece in response.aiter_stream():
            body += piece
            if len(body) > self._max_bytes:
                raise Unreachable(f"it has more than {self._max_bytes} bytes")
        return bytes(body)


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to nothing but addresses that it has checked itself; names stay what TLS goes by."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._sockets = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of a host that answers. Raises Unreachable, also for its port."""
        addresses = await self._network.resolve(host, port)
        # One bad address among good ones is no accident: the name is not to be trusted.
        if not addresses or not all(self._network.allowed(address, port) for address in addresses):
            raise Unreachable(f"no public web server is known as {host} port {port}")
        for address in addresses[:-1]:
            try:
                return await self._connect(address, port)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._connect(addresses[-1], port)

    async def _connect(self, address: Address, port: int) -> httpcore2.AsyncNetworkStream:
        return await self._sockets.connect_tcp(str(address), port, timeout=CONNECT_TIMEOUT)


def parse(url: str) -> SplitResult:
    """Return the parts of a URL. Raises Unreachable for what is none, or not to be fetched."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise Unreachable("a URL has printable ASCII characters only, others are written as %XX")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0 and parts.scheme in _DEFAULT_PORTS
    except ValueError:
        raise Unreachable("it is no valid URL") from None
    if not usable:
        raise Unreachable("it is no http or https URL")
    if "@" in parts.netloc:
        raise Unreachable("a URL with a name or password in it is not fetched")
    return parts


def _header(response: httpcore2.Response, name: bytes) -> str | None:
    values = (value for key, value in response.headers if key.lower() == name)
    return next((value.decode("latin-1") for value in values), None)
