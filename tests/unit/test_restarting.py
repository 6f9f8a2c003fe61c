"""What `serve --reload` decides, whatever happens in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from claude_coded.restarting import Action, Event, Phase, decide


class Story:
    """A supervisor's life: it keeps the books on its daemons, and fails at what must not be."""

    def __init__(self) -> None:
        self.phase = Phase.WAITING
        self.alive = self.told = self.killed = False
        self.stops = 0
        self.happens(Event.CHANGED)

    def possible(self, event: Event) -> bool:
        return {Event.EXITED: self.alive, Event.OVERDUE: self.told}.get(event, True)

    def happens(self, event: Event) -> None:
        before = self.alive, self.told
        self.stops += event is Event.STOP
        if event is Event.EXITED:
            self.alive = self.told = self.killed = False
        self.phase, action = decide(self.phase, event)
        if action is not None:
            getattr(self, action.name.lower())()
        assert self.alive == (self.phase in {Phase.RUNNING, Phase.RESTARTING, Phase.STOPPING})
        assert self.told == (self.phase in {Phase.RESTARTING, Phase.STOPPING})
        assert (self.phase in {Phase.STOPPING, Phase.ENDED}) == bool(self.stops)
        assert self.told or not before[1] or event is Event.EXITED

    def start(self) -> None:
        assert not self.alive
        assert not self.stops
        self.alive = True

    def terminate(self) -> None:
        assert self.alive
        assert not self.told  # twice would be at once
        self.told = True

    def kill(self) -> None:
        assert self.told
        self.killed = True

    def hang_up(self) -> None:
        assert self.alive
        assert not self.told

    def complain(self) -> None:
        assert not self.alive
        assert not self.stops


def lived(events: list[Event]) -> Story:
    story = Story()
    for event in events:
        if story.possible(event):
            story.happens(event)
    return story


STORIES = st.lists(st.sampled_from(Event), max_size=30).map(lived)


@given(STORIES)
def test_a_stop_ends_it_with_the_daemon(story: Story) -> None:
    story.happens(Event.STOP)
    if story.alive:
        story.happens(Event.EXITED)
    assert story.phase is Phase.ENDED


@given(STORIES)
def test_a_second_stop_while_the_daemon_ends_is_at_once(story: Story) -> None:
    story.happens(Event.STOP)
    if story.alive:
        story.happens(Event.STOP)
        assert story.killed


@given(STORIES.filter(lambda story: not story.stops))
def test_a_change_brings_a_daemon_of_the_new_code(story: Story) -> None:
    story.happens(Event.CHANGED)
    if story.told:
        story.happens(Event.EXITED)
    assert story.alive
    assert not story.told


@given(STORIES.filter(lambda story: story.phase is Phase.RUNNING), st.lists(st.sampled_from([*Event])))
def test_a_daemon_that_dies_is_not_started_before_a_change(story: Story, events: list[Event]) -> None:
    story.happens(Event.EXITED)
    for event in events:
        if event is not Event.CHANGED and story.possible(event):
            story.happens(event)
    assert not story.alive


@given(STORIES.filter(lambda story: story.told))
def test_a_daemon_that_does_not_end_is_killed(story: Story) -> None:
    story.happens(Event.OVERDUE)
    assert story.killed


def test_every_action_is_taken_somewhere() -> None:
    taken = {decide(phase, event)[1] for phase in Phase for event in Event}
    assert taken == {None, *Action}
