"""Where one stream over many jobs is, and what it gets next.

States come first; then `synced`; then what changes, and the followed jobs' logs
and metrics in turns, each a share of the bytes at a time: a chatty job never
starves a quiet one. A reader is shared by all clients that are at the same place.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from app.hub.selection import event_frames
from app.hub.selection.channel import Channel, OpenChannel
from app.hub.selection.places import MAX_JOBS, LogPlace, Place, digest
from app.hub.selection.selection import Interest
from app.hub.selection.view import SelectionView


def _nobody_listens() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How much of the states was delivered."""

    #: Of the view's changes.
    number: int
    version: int
    looked: float


class Reader:
    """A place in a selection's states and in each followed job. Times are the loop's clock."""

    #: Events after which a bookmark is due, at the next turn of a channel; and seconds.
    BOOKMARK_EVENTS = 128
    BOOKMARK_SECONDS = 1.0
    #: Least seconds between two events about the cluster.
    CLUSTER_SECONDS = 1.0
    #: Most events about the cluster in a step.
    CLUSTER_EVENTS = 64
    #: Turns of a channel in a step where all have much to send.
    TURNS = 4

    def __init__(
        self,
        view: SelectionView,
        interest: Interest,
        *,
        open_channel: OpenChannel,
        slice_bytes: int,
    ) -> None:
        self.view = view
        self.interest = interest
        self._open_channel = open_channel
        self._slice = slice_bytes
        self._generation = view.generation
        #: What of the states is on its way, each with the mark that it reaches, if any.
        self._pending: deque[tuple[bytes, Mark | None]] = deque()
        #: None until everything that there was in the beginning was delivered.
        self._mark: Mark | None = None
        self._cluster = 0
        self._cluster_at = float("-inf")
        #: What was said to be over its limit: the states, and what is followed.
        self._told_limit = (False, False)
        self._channels: dict[str, Channel] = {}
        self._turns: deque[Channel] = deque()
        self._followed: Mapping[str, None] = {}
        #: Places of jobs that are not followed now, in case they come back; oldest first.
        self._left: dict[bytes, LogPlace] = {}
        self._events = 0
        self._bookmarked_at = 0.0
        #: Whether there is more to send at once, and when there will be something otherwise.
        self.more = True
        self.due: float | None = None
        #: Whether what the gateway no longer remembers is passed over; set for a slow client.
        self.pass_over = False
        #: Called when there may be something to send; set by whoever sends it.
        self.on_news: Callable[[], None] = _nobody_listens
        self._bookmarked: Place | None = None
        #: Whether that place is one from which the whole state is told.
        self._bookmarked_whole = False

    # Beginning

    def begin(self) -> None:
        """Begin with the whole state."""
        self._pend_state(())

    def reset(self, reason: str) -> None:
        """Begin with the whole state, in place of what the client has."""
        self._pend_state((event_frames.reset(reason),))

    def resume(self, events: Iterable[bytes]) -> None:
        """Begin with what has changed for the client."""
        self._pending.extend((event, None) for event in events if self.interest.jobs)
        self._pend_synced()

    def follow(
        self,
        followed: Mapping[str, None],
        channels: Iterable[Channel],
        places: Mapping[bytes, LogPlace],
    ) -> None:
        """Take the channels of what the view followed, and the places of jobs that have none."""
        self._followed = followed
        for channel in channels:
            self._add(channel)
        open_now = {digest(job_id) for job_id in self._channels}
        self._left = {job: place for job, place in places.items() if job not in open_now}

    def _pend_state(self, first: Iterable[bytes]) -> None:
        self._mark = None
        self._pending.clear()
        self._pending.extend((event, None) for event in first)
        if self.interest.jobs:
            self._pending.extend((event, None) for event in self.view.state())
            self._pending.extend((event, None) for event in self.view.missing())
        self._pend_synced()

    def _pend_synced(self) -> None:
        view = self.view
        self._generation = view.generation
        self._pending.extend((event, None) for event in self._cluster_events())
        jobs = len(view.matching) if self.interest.selects else 0
        mark = self._newest_mark()
        self._pending.append((event_frames.synced(jobs), mark))

    # What is next

    def next(self, now: float) -> bytes:
        """Return what is to be sent now, which counts as delivered; it may be empty."""
        out: list[bytes] = []
        begun = self._mark is None
        room = self._take_states(out, self._slice, now)
        if begun and self._mark is not None:
            self._bookmark(out, now)
        if self._mark is not None and room > 0:
            self._tell_limit(out)
            self._take_cluster(out, now)
            self._take_channels(out, room, now)
        else:
            self.more = True
        if self._mark is not None and self._events and self._bookmark_due(now):
            self._bookmark(out, now)
        self.due = self._next_due()
        return b"".join(out)

    def refresh(self, now: float) -> bytes:
        """Return a bookmark if the place has moved although nothing was sent; else nothing."""
        if self._mark is None or self._pending or self._events or self._bookmarked is None:
            return b""
        if self._unlooked(self.place) == self._unlooked(self._bookmarked):
            return b""
        out: list[bytes] = []
        self._bookmark(out, now)
        return b"".join(out)

    @staticmethod
    def _unlooked(place: Place) -> Place:
        # The clock alone moves nothing that a client would have to be told.
        return replace(place, looked=0)

    def at_head(self) -> bool:
        """Whether everything was delivered that there is, the place itself included."""
        return not (self.more or self._pending or self._events) and self._mark is not None

    def same_place(self, other: Self) -> bool:
        """Whether both get the same from now on; for two at the head."""
        return (
            self._generation == other._generation
            and self._mark == other._mark
            and self._cluster == other._cluster
            and self._told_limit == other._told_limit
            and self._bookmarked_whole == other._bookmarked_whole
            # A job that comes back goes on from there, and from its beginning otherwise.
            and self._left == other._left
            and self._channels.keys() == other._channels.keys()
            and all(
                channel.same_place(other._channels[job_id])
                for job_id, channel in self._channels.items()
            )
        )

    def fork(self) -> "Reader":
        """Return another reader at the same place."""
        made = Reader(
            self.view,
            self.interest,
            open_channel=self._open_channel,
            slice_bytes=self._slice,
        )
        made._generation = self._generation
        made._pending = deque(self._pending)
        made._mark = self._mark
        made._cluster, made._cluster_at = self._cluster, self._cluster_at
        made._told_limit = self._told_limit
        made._followed, made._left = self._followed, dict(self._left)
        made._events, made._bookmarked_at = self._events, self._bookmarked_at
        made._bookmarked = self._bookmarked
        made._bookmarked_whole = self._bookmarked_whole
        for channel in self._channels.values():
            made._add(channel.fork())
        return made

    def close(self) -> None:
        """Read no more."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._turns.clear()

    @property
    def place(self) -> Place:
        """Return the place up to which everything was delivered."""
        assert self._mark is not None
        logs: dict[bytes, LogPlace] = {}
        for channel in self._channels.values():
            place = channel.place
            if place is not None and not place.at_beginning:
                logs[digest(channel.job_id)] = place
        for job, place in reversed(self._left.items()):
            if len(logs) >= MAX_JOBS:
                break
            logs.setdefault(job, place)
        return Place(
            selection=self.interest.digest[:8],
            epoch=digest(self.view.record.epoch),
            version=self._mark.version,
            looked=int(self._mark.looked),
            logs=logs,
            whole=self._leaves_out,
        )

    # States

    def _take_states(self, out: list[bytes], room: int, now: float) -> int:
        view = self.view
        if self._generation != view.generation:
            self.reset("epoch_changed")
        elif self._mark is not None and not self._pending:
            if self._mark.number < view.dropped:
                self.reset("lagging")
            else:
                self._pend_changes(self._mark)
        pending = self._pending
        if pending and self._mark is not None and self._leaves_out and not self._bookmarked_whole:
            # Whoever comes back with the one before would not learn which jobs are left out.
            self._bookmark(out, now)
        while pending and room > 0:
            if self._mark is not None and self._events >= self.BOOKMARK_EVENTS:
                break
            event, mark = pending.popleft()
            if event:
                out.append(event)
                room -= len(event)
                self._events += 1
            self._mark = mark or self._mark
        if self._states_told:
            self._mark = self._newest_mark()
            self._reconcile()
        return room

    @property
    def _leaves_out(self) -> bool:
        """Whether jobs are left out, or are still to come that were; once all was delivered."""
        mark, view = self._mark, self.view
        behind = mark is not None and mark.number < view.moved
        return self.interest.jobs and (view.leaves_out or behind)

    def _newest_mark(self) -> Mark:
        view = self.view
        return Mark(view.number, view.version, view.looked)

    @property
    def _states_told(self) -> bool:
        """Whether everything that the view has was delivered."""
        return (
            self._mark is not None and not self._pending and self._mark.number == self.view.number
        )

    def _pend_changes(self, mark: Mark) -> None:
        if mark.number == self.view.number:
            return
        for change in self.view.changes_since(mark.number):
            event = change.event if self.interest.jobs else b""
            self._pending.append((event, Mark(change.number, change.version, change.looked)))

    def _reconcile(self) -> None:
        """Follow the jobs that the view follows; a new one from where it was left, or begins."""
        followed = self.view.followed
        if not self.interest.follows or followed is self._followed:
            return
        self._followed = followed
        for job_id in [each for each in self._channels if each not in followed]:
            channel = self._channels.pop(job_id)
            self._turns.remove(channel)
            place = channel.place
            if place is not None and not place.at_beginning:
                self._left[digest(job_id)] = place
            channel.close()
        for job_id in reversed(followed):
            if job_id not in self._channels:
                place = self._left.pop(digest(job_id), None)
                self._add(self._open_channel(job_id, place))
        while len(self._left) > MAX_JOBS:
            del self._left[next(iter(self._left))]

    def _add(self, channel: Channel) -> None:
        self._channels[channel.job_id] = channel
        self._turns.append(channel)
        channel.listen(self._tell)

    def _tell(self) -> None:
        self.on_news()

    def _tell_limit(self, out: list[bytes]) -> None:
        view, interest = self.view, self.interest
        over = (interest.jobs and view.leaves_out, interest.follows and view.over_limit)
        if any(now and not told for now, told in zip(over, self._told_limit, strict=True)):
            out.append(view.limit_event())
            self._events += 1
        self._told_limit = over

    # The cluster

    def _take_cluster(self, out: list[bytes], now: float) -> None:
        if now - self._cluster_at < self.CLUSTER_SECONDS:
            return
        events = self._cluster_events(self.CLUSTER_EVENTS)
        if events:
            self._events += len(events)
            out += events
        if self._cluster == self.view.record.cluster_changes:
            self._cluster_at = now

    def _cluster_events(self, most: int | None = None) -> list[bytes]:
        """Return what has changed of nodes and queue, oldest first; it counts as delivered."""
        record, seen = self.view.record, self._cluster
        changed: list[tuple[int, bytes]] = []
        if self.interest.nodes:
            for number, data in reversed(record.nodes.values()):
                if number <= seen:
                    break
                changed.append((number, event_frames.node(data)))
        changed.reverse()
        if self.interest.queue and record.queue is not None and record.queue[0] > seen:
            changed.append((record.queue[0], event_frames.queue(record.queue[1])))
            changed.sort()
        complete = most is None or len(changed) <= most
        chosen = changed if complete else changed[:most]
        self._cluster = record.cluster_changes if complete else chosen[-1][0]
        return [event for _, event in chosen]

    # Logs and metrics

    def _take_channels(self, out: list[bytes], room: int, now: float) -> None:
        share = max(self._slice // self.TURNS, 1)
        idle = 0
        while room > 0 and idle < len(self._turns):
            channel = self._turns[0]
            self._turns.rotate(-1)
            events = channel.next(min(share, room), now, pass_over=self.pass_over)
            idle = 0 if events else idle + 1
            if events:
                out.append(events)
                room -= len(events)
                self._events += events.count(b"\n\n")
                if self._events >= self.BOOKMARK_EVENTS:
                    self._bookmark(out, now)
        self.more = room <= 0 or not self._states_told

    def _bookmark_due(self, now: float) -> bool:
        return (
            self._events >= self.BOOKMARK_EVENTS
            or now - self._bookmarked_at >= self.BOOKMARK_SECONDS
        )

    def _bookmark(self, out: list[bytes], now: float) -> None:
        self._bookmarked = self.place
        self._bookmarked_whole = self._bookmarked.whole
        out.append(event_frames.bookmark(str(self._bookmarked)))
        self._events = 0
        self._bookmarked_at = now

    def _next_due(self) -> float | None:
        due = [channel.due for channel in self._channels.values()]
        if self._events and self._mark is not None:
            due.append(self._bookmarked_at + self.BOOKMARK_SECONDS)
        cluster = self.interest.nodes or self.interest.queue
        if cluster and self._cluster != self.view.record.cluster_changes:
            due.append(self._cluster_at + self.CLUSTER_SECONDS)
        return min((each for each in due if each is not None), default=None)
