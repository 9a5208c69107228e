"""Queues and threads beside the caller's: what is held, dropped, counted, and that a second Ctrl-C does not hurt."""

from cled_edge.errors import CledEdgeError
from cled_edge.queues import BoundedQueue, WriteBehind, WriteBetween, _wait_for_end


def test_a_second_interrupt_does_not_close_a_file_under_its_writer() -> None:
    class Pressed:
        presses = 2

        def exception(self) -> Exception | None:
            self.presses -= 1
            if self.presses >= 0:
                raise KeyboardInterrupt
            return CledEdgeError("the end")

    assert str(_wait_for_end(Pressed())) == "the end"


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
