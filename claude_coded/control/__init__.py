"""The control interface: what an operator sees and does, as HTTP on a Unix socket.

`api` is what both ends share; the rest is the daemon's end, and `codectl` the operator's.
"""
