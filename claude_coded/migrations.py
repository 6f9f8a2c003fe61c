"""What the database looks like, and how it came to that, script by script."""

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE conversations (
        id INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        session TEXT NOT NULL,
        lineage TEXT NOT NULL,
        profile TEXT NOT NULL,
        workspace TEXT NOT NULL,
        system TEXT NOT NULL,
        turns INTEGER NOT NULL,
        created_at REAL NOT NULL,
        last_used_at REAL NOT NULL,
        usage TEXT NOT NULL,
        generation INTEGER NOT NULL,
        hint TEXT NOT NULL,
        ephemeral INTEGER NOT NULL,
        head INTEGER,
        UNIQUE (tenant, name)
    ) STRICT;
    CREATE INDEX conversations_by_use ON conversations (tenant, last_used_at);
    CREATE TABLE sessions (
        uuid TEXT PRIMARY KEY,
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE
    ) STRICT;
    CREATE INDEX sessions_of ON sessions (conversation);
    CREATE TABLE turns (
        id INTEGER PRIMARY KEY,
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        parent INTEGER,
        lineage TEXT NOT NULL,
        digest BLOB NOT NULL,
        tools INTEGER NOT NULL,
        first_uuid TEXT NOT NULL,
        last_uuid TEXT NOT NULL,
        answer_uuid TEXT NOT NULL,
        messages TEXT NOT NULL,
        usage TEXT NOT NULL,
        finished_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX turns_of ON turns (conversation);
    CREATE INDEX turns_by_digest ON turns (digest);
    CREATE TABLE unfinished (
        conversation INTEGER PRIMARY KEY REFERENCES conversations ON DELETE CASCADE,
        spans TEXT NOT NULL,
        lead TEXT NOT NULL,
        asked TEXT NOT NULL,
        seen TEXT NOT NULL
    ) STRICT;
    CREATE TABLE facts (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
    """,
    # A turn knows its session, and whether that can be gone on with after it. The columns stand before the
    # messages, which are long.
    """
    CREATE TABLE new_turns (
        id INTEGER PRIMARY KEY,
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        parent INTEGER,
        session TEXT NOT NULL,
        lineage TEXT NOT NULL,
        digest BLOB NOT NULL,
        tools INTEGER NOT NULL,
        first_uuid TEXT NOT NULL,
        last_uuid TEXT NOT NULL,
        answer_uuid TEXT NOT NULL,
        whole INTEGER NOT NULL,
        messages TEXT NOT NULL,
        usage TEXT NOT NULL,
        finished_at REAL NOT NULL
    ) STRICT;
    INSERT INTO new_turns SELECT t.id, t.conversation, t.parent, iif(t.lineage = c.lineage, c.session, ''),
        t.lineage, t.digest, t.tools, t.first_uuid, t.last_uuid, t.answer_uuid, 1, t.messages, t.usage,
        t.finished_at
        FROM turns t JOIN conversations c ON c.id = t.conversation;
    DROP TABLE turns;
    ALTER TABLE new_turns RENAME TO turns;
    CREATE INDEX turns_of ON turns (conversation);
    CREATE INDEX turns_by_digest ON turns (digest);
    """,
    # What an operator has allowed for always in a conversation.
    """
    CREATE TABLE rules (
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        rule TEXT NOT NULL,
        PRIMARY KEY (conversation, rule)
    ) STRICT, WITHOUT ROWID;
    """,
    # Responses of the Responses API, to be had again and to go on after.
    """
    CREATE TABLE responses (
        id TEXT PRIMARY KEY,
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
        turn INTEGER,
        system TEXT NOT NULL,
        created_at REAL NOT NULL,
        body BLOB NOT NULL,
        input BLOB NOT NULL
    ) STRICT;
    CREATE INDEX responses_of ON responses (conversation);
    """,
    # What turns have used by day, which outlives them. What was seeded is no turn: it has used nothing.
    """
    CREATE TABLE accounts (
        day TEXT NOT NULL,
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        turns INTEGER NOT NULL,
        input INTEGER NOT NULL,
        output INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        cost_usd REAL NOT NULL,
        PRIMARY KEY (day, tenant, model)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO accounts SELECT date(t.finished_at, 'unixepoch') AS day, c.tenant,
        json_extract(c.profile, '$.name') AS model, count(*),
        sum(json_extract(t.usage, '$.input')),
        sum(ifnull(json_extract(t.usage, '$.output'), 0)),
        sum(ifnull(json_extract(t.usage, '$.cache_read'), 0)),
        sum(ifnull(json_extract(t.usage, '$.cost_usd'), 0.0))
        FROM turns t JOIN conversations c ON c.id = t.conversation
        WHERE json_extract(t.usage, '$.input') > 0
        GROUP BY day, c.tenant, model;
    """,
)
"""Each is run once, in order; `PRAGMA user_version` says how many have been."""
