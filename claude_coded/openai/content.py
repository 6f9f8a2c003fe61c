"""Content parts: text, images and files."""

import re
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct, ValidationError, convert

from claude_coded.errors import InvalidRequest, UnsupportedParameter
from claude_coded.turn import Document, Image, RemoteImage, Text

MAX_IMAGE_BYTES: Final = 5 * 1024 * 1024
"""What Anthropic's API takes of one image."""
MAX_DOCUMENT_BYTES: Final = 32 * 1024 * 1024
"""What Anthropic's API takes of one request."""

PDF: Final = "application/pdf"
_IMAGE_TYPES: Final = {f"image/{name}": f"image/{name}" for name in ("png", "jpeg", "gif", "webp")}
_IMAGE_TYPES["image/jpg"] = "image/jpeg"  # no such type, but sent
_TEXT_PARTS: Final = {"text", "input_text", "output_text"}
_DATA_HEAD: Final = re.compile(r"data:([^;,]+)(?:;[^;,=]+=[^;,]*)*;base64", re.IGNORECASE)
"""Each character fits one place of it alone: else it takes for ever to find that a long one is none."""
_NO_URL: Final = re.compile(r"[\x00-\x20\x7f]")


class ImageUrl(Struct, frozen=True, gc=False):
    """OpenAI's `image_url` object."""

    url: str


class File(Struct, frozen=True, gc=False):
    """OpenAI's `file` object."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None


class ContentPart(Struct, frozen=True, gc=False):
    """A content part."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | None = None
    file: File | None = None


def content_part(part: ContentPart, role: str, place: str) -> Text | Image | RemoteImage | Document:
    """Return a part of a message of this role. Raises InvalidRequest and UnsupportedParameter."""
    if part.type in _TEXT_PARTS:
        return Text(given(part.text, f"{place}.text"))
    if part.type == "refusal" and role == "assistant":
        return Text(given(part.refusal, f"{place}.refusal"))
    if role in {"user", "tool"}:
        if part.type == "image_url":
            return image(part.image_url.url if part.image_url is not None else "", f"{place}.image_url.url")
        if part.type == "file":
            return document(part.file or File(), f"{place}.file")
    if part.type == "input_audio":
        raise UnsupportedParameter("audio is not supported: the model reads text", param=f"{place}.type")
    raise UnsupportedParameter(
        f"content of type {part.type!r} is not supported in a {role} message", param=f"{place}.type"
    )


def given(text: str | None, param: str) -> str:
    """Return a text that has to be there. Raises InvalidRequest."""
    if text is None:
        raise InvalidRequest("this part has no text", param=param)
    return text


def image(url: str, param: str) -> Image | RemoteImage:
    """Return an image of a data URL (RFC 2397), in a format that the model takes, or one to be fetched.

    Raises InvalidRequest.
    """
    if url[:5].lower() != "data:":
        return RemoteImage(_web_url(url, param))
    media_type, data = _data_url(url, param)
    if media_type not in _IMAGE_TYPES:
        raise InvalidRequest(
            f"images are PNG, JPEG, GIF or WebP, as in data:image/png;base64,…; this is {media_type:.60}",
            param=param,
        )
    return Image(_IMAGE_TYPES[media_type], _checked_base64(data, MAX_IMAGE_BYTES, param))


def _web_url(url: str, param: str) -> str:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        fits = False
    if not fits or _NO_URL.search(url):
        raise InvalidRequest("an image's URL is data:image/png;base64,… or https://…", param=param)
    return url


def document(file: File, place: str) -> Document:
    """Return a PDF file: of a data URL, or of base64 under a name that ends so.

    Raises InvalidRequest and UnsupportedParameter.
    """
    if file.file_id is not None:
        raise UnsupportedParameter(
            "there are no uploaded files here: send file_data", param=f"{place}.file_id"
        )
    param, name = f"{place}.file_data", file.filename or ""
    if not file.file_data:
        raise InvalidRequest("a file has file_data", param=param)
    media_type, data = PDF if name.lower().endswith(".pdf") else "", file.file_data
    if data[:5].lower() == "data:":
        media_type, data = _data_url(data, param)
    if media_type != PDF:
        raise UnsupportedParameter(
            "files are PDFs: data:application/pdf;base64,…, or base64 with a filename that ends in .pdf",
            param=param,
        )
    return Document(PDF, _checked_base64(data, MAX_DOCUMENT_BYTES, param), name)


def _data_url(url: str, param: str) -> tuple[str, str]:
    """Return the media type and the data."""
    head, comma, data = url.partition(",")
    found = _DATA_HEAD.fullmatch(head)
    if not comma or found is None:
        raise InvalidRequest("a data URL is data:<media type>;base64,<data>", param=param)
    return found[1].lower(), data


def _checked_base64(data: str, limit: int, param: str) -> str:
    """Return the data. Raises InvalidRequest for what is no base64, is empty or larger than the limit."""
    if len(data) // 4 * 3 - data[-2:].count("=") > limit:
        raise InvalidRequest(f"this is larger than {limit // 1024**2} MB", param=param)
    try:
        empty = not convert(data, bytes)  # four times as fast as base64.b64decode
    except (ValidationError, UnicodeEncodeError):
        empty = True
    if empty:
        raise InvalidRequest("the data is no base64", param=param)
    return data
