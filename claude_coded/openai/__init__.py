"""OpenAI's side: requests in, answers out. Pure: no I/O here."""
