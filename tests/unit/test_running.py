"""A turn on its way: what of it is handed over when."""

import pytest

from claude_coded.errors import WorkerDied
from claude_coded.running import in_batches
from claude_coded.turn import AnswerEvent, TextDelta, TurnFailed, TurnFinished

SAID = TextDelta("said")
END = TurnFinished()
FAILED = TurnFailed(WorkerDied("gone"))


@pytest.mark.parametrize(
    ("events", "streamed", "batches"),
    [
        ([SAID, SAID, END], True, [[SAID, SAID], [END]]),
        ([SAID, END], False, [[SAID, END]]),
        ([END], True, [[END]]),
        ([SAID], True, [[SAID]]),
        ([SAID, FAILED], True, [[SAID, FAILED]]),
        ([], True, [[]]),
    ],
)
def test_what_comes_before_the_end_of_a_stream_does_not_wait_for_its_record(
    events: list[AnswerEvent], streamed: bool, batches: list[list[AnswerEvent]]
) -> None:
    assert in_batches(events, streamed=streamed) == batches
