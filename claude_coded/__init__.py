"""claude_coded: an OpenAI-compatible API in front of a pool of live Claude Code processes.

OpenAI's clients are stateless, Claude Code's sessions are stateful. The daemon reconciles the two: the model
sees what the client said, once, in order, nearly always in a process that is already hot.

Layers; a row sees only the rows below it (checked by import-linter):

    command_line | codectl                  `claude-coded` | `claude-codectl`, which needs `control.api` alone
    manual | supervisor                     what help and manual say beside options | `serve --reload`
    daemon | check                          the object graph, its start, stop and reload | what keeps it from
                                            working, in words
    plan                                    settings held against the machine, before anything is touched
    http | control | offline                the API on TCP | the operator's, on a Unix socket |
                                            a scripted Messages API, to try and test with
    operations                              what an operator does to conversations and workers
    service                                 what HTTP sees: conversations found, turns run
    running                                 a turn: asked, told, recorded, concluded
    planning                                how it gets at its history, and a worker that suits
    pool                                    the shell around the scheduler
    worker | store | fetch |                one CLI process | conversations in SQLite | images by URL |
    permissions | leaving                   what waits for an operator's leave | what an ended turn leaves
    database                                the statements and transactions of the store's thread
    kept | accounts                         responses, as the database has them | what turns have used, by day
    rows | marks | ask | course | process | the database's rows | turns that it does not have yet |
    pending | vigil | transcripts | guard   what a turn writes, and its events | what is told of it |
                                            a child and its pipes | what it has yet to answer | whether it
                                            lives | what the CLI keeps of sessions | clients that are slow,
                                            too long, or gone
    cgroups, orphans, proc                  where a worker's processes are, what they use, and their end
    activity | restarting | said | stopping | claude | openai | history | models | scheduler | migrations
                                            pure: no I/O, no clock, no randomness
    turn                                    the vocabulary between the two sides
    metrics | bounded | remembered          what Prometheus counts | JSON Schema's checks, with an end |
                                            what was used last, as far as there is room
    aside | listener | logs | systemd |     long work beside the loop | our own sockets, served | logging |
    events | tracing                        messages to systemd | what happens, as a stream | turns as spans
    server                                  Granian, embedded: bodies asked for, and tasks made, ahead
    configuration, settings, profiles       what is in force | what there is | models of the operator's
    workspaces, keys                        whose directory is where | clients' keys, wherever they are given
    reading | guide | defaults              how a setting's text is read | how commands explain themselves |
                                            what settings are where nobody says it
    errors | unix | prctl | browsers        what can go wrong | Unix sockets, for both of their ends |
                                            what a process asks of the kernel about itself |
                                            what only web pages send

Who decides what:

- The scheduler decides who gets which worker: `handle(event, now) -> actions`. The pool carries that out.
  Tickets stand in their conversation's line, then wait for a worker; places are counted in processes.
  Tenants share them: who has least comes first, who has most gives way.
- A worker alone changes its state, by one table (`claude.protocol.TRANSITIONS`), and keeps its story.
- `history` knows what was said by chained digests, one a message, and plans a turn: continue the session,
  fork it, or seed a fresh one; what to take back first; what to seed; what to ask.
- In mode `ask` an operator decides: the CLI's questions wait at the desk (`permissions`). What was allowed
  for always are rules in the store; the daemon answers by them, the CLI's own rules being too wide.
- The operator's wishes are events of the scheduler like others: a conversation is held by a ticket that wants
  no worker, a reload is new limits, and workers that were started with other settings end with their turn.
- The store's word is final: a turn is finished when it is recorded there, which is before its last byte
  goes out. The CLI's transcript is on disk by then.

A conversation stands at its head, the last finished turn of its branch. What comes after that in the session
is taken back: a turn that was interrupted, failed or lost its client, and turns that the client dropped from
its history. The live session is rewound to before the first such message (`rewind_conversation`, 5 to 30 ms,
the running turn stopped by the same request), so the worker stays hot. The cut reaches the disk with the next
message only, so it stays noted until a turn finishes, and a resumed process rewinds again. What Claude's own
tools did cannot be seeded: a session whose dropped turns used them is forked, and kept. Where a session is
lost or cannot be rewound, a fresh one is seeded with the messages.

A new conversation takes a spare: a process spawned ahead that has no prompt yet. The first `initialize`
sets it, with the message right behind. Where the last new conversations all wished for the same system
text, model, schema and tools, a spare is given them ahead in a quiet moment, and rehearses: messages go
into its history with no call of the model, and are taken back (`scheduler.wishes`, `Worker.prepare`). It
serves only such a conversation then. Of what it has rehearsed a few lines stay in the transcript, on no
path of its history; where nobody came the transcript goes with the process. A change of system text, model,
schema or tools starts the session anew from disk. No more processes load at once than there are CPUs: the
others of a burst keep their places, and start when one has answered for the first time.

The client's tools are an MCP server of the CLI's over the control protocol (`claude.toolbridge`). A reply
that calls them ends the response; the CLI's turn stays parked in its worker with the calls unanswered, and is
recorded as a turn that is not whole: only the outcomes go on after it. They are handed to the calls and the
same turn goes on. Where it is gone (evicted, killed, a restart) the history goes another way, a fork before
its question or seeding; what Claude's own tools did within just that turn is then lost. An answer that a stop
text or a token limit of the client's has cut is taken back as far as the client did not see it.

A turn that begins is marked in a file that is not synced (`marks`), which outlives the daemon, and asked at
once; the database has it before anything is told of the answer. A killed daemon's marks are noted at the next
start: what the session may hold of such a turn is taken back.

A response of the Responses API is kept with its conversation and the number of its turn. A request after it
says by one digest where it stands: what stands there goes on, with no history read. What is earlier branches,
and then it is a request that tells the history up to there, read from the store.

What Claude runs is of the daemon's user, so file modes do not keep it from the control socket. A door before
that socket refuses all that descends from the daemon, which adopts orphans so that nothing leaves its tree.

A person who attaches to a conversation gets Claude Code's own terminal on its session, and nobody else gets
in meanwhile. What was said there is read from the transcript and recorded as a turn that ends at the same
place of the history as the one before: clients go on behind it, whether they tell their history or not.
"""

__version__ = "0.1.0"
