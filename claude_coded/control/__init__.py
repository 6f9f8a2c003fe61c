"""The control interface: what an operator sees and does, over a Unix socket.

`api` is what both ends share; `app` is the daemon's end, `client` and `commands` are claude-codectl's.
"""
