"""Images that clients name by URL, fetched before a turn, and never from a private address."""

from claude_coded.fetch.fetcher import Fetcher, urls_of

__all__ = ["Fetcher", "urls_of"]
