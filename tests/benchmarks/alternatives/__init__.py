"""The daemon beside other servers that put an OpenAI API before Claude Code.

`python -m tests.benchmarks alternatives` installs those that PyPI and npm have, in environments of their own
that are kept, and runs each as its documentation says: on loopback, with a HOME of its own, the same CLI, the
same scripted model and a key that is none. One server runs at a time, the servers take turns, and each is
asked by the same client. What a server does is seen by requests, never read from its documentation.

    servers       who they are, and how each is run
    running       a server's process: its place, its start, its end, what it leaves behind
    client        a request as any OpenAI client sends it, and when which piece of the answer came
    speed         how long it takes
    trial         a server under observation, and what was seen of it
    behaviours    what happens
    tables        the outcome in markdown and JSON
"""
