"""Queues and threads beside the caller's: what is held, dropped, counted, and that a second Ctrl-C does not hurt."""

import threading
from collections.abc import Iterator

from cled_edge.errors import CledEdgeError
from cled_edge.queues import BoundedQueue, ReadAhead, WriteBehind, WriteBetween, _has_ended


def test_a_second_interrupt_does_not_close_a_file_under_its_writer() -> None:
    class Pressed:
        presses = 2

        def exception(self, timeout: float | None) -> None:
            self.presses -= 1
            if self.presses >= 0:
                raise KeyboardInterrupt

    assert _has_ended(Pressed())


def test_a_reader_that_hangs_is_left_alone_once_it_is_stopped() -> None:
    may_go_on = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        may_go_on.wait(10)

    reader = ReadAhead(items())
    try:
        with reader:
            assert reader.next() is not None
            threading.Timer(0.05, reader.stop).start()
            assert reader.next() is None
        assert reader.is_stuck
    finally:
        may_go_on.set()


def test_a_reader_that_is_stopped_hands_on_nothing_more() -> None:
    with ReadAhead(iter(range(3))) as reader:
        reader.stop()
        assert reader.next() is None
    assert not reader.is_stuck


def test_a_closed_queue_gives_what_it_holds_and_takes_no_more() -> None:
    queue: BoundedQueue[int] = BoundedQueue()
    assert queue.put(1)
    queue.close()
    assert not queue.put(2)
    assert queue.get() == 1
    assert queue.get() is None


def test_a_queue_that_drops_keeps_the_newest_and_counts_the_others() -> None:
    queue: BoundedQueue[int] = BoundedQueue(3, drops=True)
    for item in range(8):
        assert queue.put(item)
    queue.close()
    assert [queue.get() for _ in range(4)] == [5, 6, 7, None]
    assert queue.dropped == 5


def test_a_writer_that_was_given_nothing_has_not_failed() -> None:
    writer: WriteBehind[int] = WriteBehind(lambda item: True)
    writer.close()
    assert writer.failure() is None


def test_a_writer_on_the_callers_thread_ends_when_it_fails_and_when_it_is_told_to() -> None:
    def write(item: int) -> bool:
        if item == 1:
            raise CledEdgeError("broken")
        return item < 2

    writer: WriteBetween[int] = WriteBetween(write)
    assert writer.put(0)
    assert writer.failure() is None
    assert not writer.put(1)
    assert str(writer.failure()) == "broken"
    assert not writer.put(2)
    assert not writer.put(0)
