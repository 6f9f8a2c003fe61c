"""Claude Code's transcripts on disk: where a session's is, and whether it can be gone on with.

The CLI says nothing of a line that it could not write, because the disk was full for one, and resumes what
is there: the model would miss what it has said, or been told. A backup that was put back may be too old, too.
"""

from pathlib import Path

from claude_coded.claude.transcript import follows


def find(projects: Path, session: str) -> Path | None:
    """Return a session's transcript; `projects` is where the CLI keeps them."""
    return next(projects.glob(f"*/{session}.jsonl"), None)


def size_of(transcript: Path) -> int:
    """Return its bytes; 0 where it has just gone."""
    try:
        return transcript.stat().st_size
    except OSError:
        return 0


def is_whole(transcript: Path, answer: str) -> bool:
    """Return whether it has a message, called by its uuid, with all that this follows.

    What cannot be read is taken for whole: the CLI will say so.
    """
    try:
        return follows(transcript.read_bytes(), answer)
    except OSError:
        return True
