"""Replacing the URLs of images in a request by the images themselves."""

import asyncio
import base64
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.fetch.addresses import Network, Unreachable
from claude_coded.turn import Image, Message, Part, RemoteImage, ToolOutcome, TurnRequest

if TYPE_CHECKING:
    from claude_coded.fetch.client import Client

TIME_LIMIT: Final = 10.0
"""Seconds for all the images of a request."""
MAX_BYTES: Final = 5_000_000
MAX_TOTAL: Final = 20_000_000
"""Bytes of an image, and of all the images that one request names by URL."""
AT_ONCE: Final = 4

CACHE_SECONDS: Final = 600.0
CACHE_COUNT: Final = 64
CACHE_BYTES: Final = 16_000_000
"""Clients send the history with every request: its images are fetched once in so many seconds."""


class Fetcher:
    """Fetches the images that requests name by URL, where the operator allows it.

    An image that has changed since makes another history, which is then seeded anew.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        network: Network | None = None,
        time_limit: float = TIME_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.enabled = enabled
        self._network = network or Network()
        self._time_limit = time_limit
        self._cache = Cache(clock)
        self._client: Client | None = None

    async def resolve(self, request: TurnRequest) -> TurnRequest:
        """Return the request with data in place of URLs. Raises InvalidRequest, UnsupportedParameter."""
        urls = urls_of(request)
        if not urls:
            return request
        if not self.enabled:
            raise UnsupportedParameter(
                "images are taken as data URLs only; "
                "the operator can allow http(s) ones with CLAUDE_CODED_FETCH_IMAGES",
                param="messages",
            )
        images = await self._all(urls)
        messages = [
            Message(message.role, tuple(_filled(part, images) for part in message.parts))
            for message in request.messages
        ]
        return replace(request, messages=tuple(messages))

    async def _all(self, urls: set[str]) -> Mapping[str, Image]:
        """Return the images by URL; the first failure ends the others."""
        images: dict[str, Image] = {}
        places = asyncio.Semaphore(AT_ONCE)

        async def add(url: str) -> None:
            async with places:
                images[url] = await self._one(url)
            if sum(len(image.data) for image in images.values()) > MAX_TOTAL * 4 / 3:
                raise _failed(url, f"the images of the request have more than {MAX_TOTAL} bytes")

        try:
            async with asyncio.timeout(self._time_limit), asyncio.TaskGroup() as group:
                for url in urls:
                    group.create_task(add(url))
        except TimeoutError:
            late = min(urls - images.keys(), default="")
            raise _failed(late, f"it took more than {self._time_limit:g} seconds") from None
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return images

    async def _one(self, url: str) -> Image:
        if (known := self._cache.get(url)) is not None:
            return known
        try:
            image = read_image(await self._http().get(url))
        except Unreachable as error:
            raise _failed(url, str(error)) from None
        self._cache.put(url, image)
        return image

    def _http(self) -> "Client":
        if self._client is None:
            # Not at the top: most daemons never need it, and their memory is counted.
            from claude_coded.fetch.client import Client  # noqa: PLC0415

            self._client = Client(self._network, MAX_BYTES)
        return self._client


class Cache:
    """The images used last, each for CACHE_SECONDS after it was fetched."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: OrderedDict[str, tuple[float, Image]] = OrderedDict()
        self._bytes = 0

    def get(self, url: str) -> Image | None:
        """Return the image of a URL, if it is held and fresh."""
        until, image = self._held.get(url, (0.0, None))
        if image is None or until <= self._clock():
            self._drop(url)
            return None
        self._held.move_to_end(url)
        return image

    def put(self, url: str, image: Image) -> None:
        """Hold an image; what is too old, or was used longest ago where there is no room, goes."""
        self._drop(url)
        now = self._clock()
        for old in [old for old, (until, _) in self._held.items() if until <= now]:
            self._drop(old)
        self._held[url] = (now + CACHE_SECONDS, image)
        self._bytes += len(image.data)
        while len(self._held) > CACHE_COUNT or self._bytes > CACHE_BYTES:
            self._drop(next(iter(self._held)))

    def _drop(self, url: str) -> None:
        if (held := self._held.pop(url, None)) is not None:
            self._bytes -= len(held[1].data)


def read_image(data: bytes) -> Image:
    """Return an image by what it begins with: servers' types are not to be relied on. Raises Unreachable."""
    for start, media_type in (
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
    ):
        if data.startswith(start):
            return Image(media_type, _base64(data))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return Image("image/webp", _base64(data))
    raise Unreachable("what is there is no png, jpeg, gif or webp image")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def urls_of(request: TurnRequest) -> set[str]:
    """Return the URLs of the images that are to be fetched for a request."""
    return set(_urls(part for message in request.messages for part in message.parts))


def _urls(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, RemoteImage):
            yield part.url
        elif isinstance(part, ToolOutcome):
            yield from _urls(part.parts)


def _filled(part: Part, images: Mapping[str, Image]) -> Part:
    """Return a part with images in place of URLs."""
    match part:
        case RemoteImage(url):
            return images[url]
        case ToolOutcome(call, parts):
            return ToolOutcome(
                call, tuple(images[it.url] if isinstance(it, RemoteImage) else it for it in parts)
            )
        case _:
            return part


def _failed(url: str, why: str) -> InvalidRequest:
    shown = url if len(url) <= 200 else f"{url[:200]}…"
    return InvalidRequest(f"the image at {shown} could not be fetched: {why}", param="messages")
