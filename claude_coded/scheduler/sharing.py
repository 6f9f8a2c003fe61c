"""How tenants share places and the queue: who has least comes first, and who has most gives way.

Nothing of it shows where there is one tenant: then it is the order of arrival, and of use.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from claude_coded.turn import ConversationKey


class Asking(Protocol):
    """What somebody asks for."""

    conversation: ConversationKey


A = TypeVar("A", bound=Asking)


def fairly(asking: Iterable[A], held: Mapping[str, int]) -> list[A]:
    """Return what is asked for, given in order of arrival, in the order in which its turn comes.

    Each comes after as many as its tenant holds already, and has asked for before; those that are equal come
    as they have arrived.
    """
    before = Counter(held)
    turns: list[tuple[int, A]] = []
    for one in asking:
        tenant = one.conversation.tenant
        turns.append((before[tenant], one))
        before[tenant] += 1
    return [one for _, one in sorted(turns, key=lambda turn: turn[0])]


def is_spared(owner: str, asker: str, held: Mapping[str, int]) -> bool:
    """Return whether a tenant's place is no other's while there is another: it has no more of them."""
    return owner != asker and held.get(owner, 0) <= held.get(asker, 0)
