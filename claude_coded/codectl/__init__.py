"""`claude-codectl`: the operator's client of the control socket.

It starts fast, and works when the daemon does not: of the package it needs `control.api` and `errors` alone.
"""
