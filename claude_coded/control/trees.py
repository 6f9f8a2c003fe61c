"""Memory and CPU of workers, with all that they have started."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from claude_coded.control.api import Tree
from claude_coded.proc import processes

EMPTY = Tree()


def measure(roots: Iterable[int]) -> Mapping[int, Tree]:
    """Return what the trees of processes below some pids use: resident bytes, CPU seconds, how many.

    One pass over the machine's processes, for a thread: some 20 microseconds each.
    """
    own: dict[int, Tree] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for process in processes():
        children[process.parent].append(process.pid)
        own[process.pid] = Tree(process.memory, process.cpu, 1)
    return {root: _sum(root, own, children) for root in roots}


def _sum(root: int, own: Mapping[int, Tree], children: Mapping[int, list[int]]) -> Tree:
    members, found = [root], []
    while members:
        pid = members.pop()
        found.append(own.get(pid, EMPTY))
        members += children.get(pid, ())
    cpu = round(sum(tree.cpu_s for tree in found), 3)
    return Tree(sum(tree.memory for tree in found), cpu, sum(tree.processes for tree in found))
