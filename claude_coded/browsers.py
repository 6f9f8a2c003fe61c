"""What tells a program's request from one that a web page had a browser send.

With no leave asked for, a page may send GET, and POST of three kinds of content, JSON not among them
(https://fetch.spec.whatwg.org/#cors-safelisted-request-header). The browser says which page it was in Origin;
where it sends none (images, scripts, links, forms that only get), in Sec-Fetch-Site, whether it was one of
ours (https://www.w3.org/TR/fetch-metadata/).
"""

from typing import Final

FETCH_SITE: Final = "Sec-Fetch-Site"

_NOT_FOREIGN: Final = frozenset({None, "none", "same-origin"})


def is_json(content_type: str | None) -> bool:
    """Return whether a Content-Type is JSON's; not one that a page may send and that only mentions it."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def is_foreign(fetch_site: str | None) -> bool:
    """Return whether a page of somebody else's sent it, by Sec-Fetch-Site.

    `none` is what a person typed, `same-site` a page on another port: that is another's, too.
    """
    return fetch_site not in _NOT_FOREIGN
