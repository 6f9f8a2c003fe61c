"""Real client programs, each used as its users do: `python -m pytest -m clients`.

The programs are installed once, from the package registries, into `~/.cache/claude-coded-clients`. They run
with a HOME of their own, dummy keys, and no way to the network. Node programs need `npm` on the PATH.
"""
