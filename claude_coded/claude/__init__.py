"""The Claude Code CLI's side: its wire, its control protocol, its launch. Pure: no I/O here."""
