"""Reading ahead and writing behind: order, loss, errors from other threads, and that the three really overlap."""

import threading
import time

import pytest

from cled_edge.errors import SourceUnreadableError
from cled_edge.relay import ReadAhead, Relay, WriteBehind

STAGE_S = 0.02


def slow(items, seconds: float = STAGE_S):
    for item in items:
        time.sleep(seconds)
        yield item


def test_everything_arrives_in_order_with_the_time_it_took_to_draw() -> None:
    with ReadAhead(slow(range(5))) as reader:
        drawn = [reader.next() for _ in range(6)]
    assert [d and d[0] for d in drawn] == [0, 1, 2, 3, 4, None]
    assert all(d[1] >= 0.9 * STAGE_S * 1e9 for d in drawn if d)
    assert reader.dropped == 0


def test_three_stages_take_the_time_of_one() -> None:
    written = []

    def write(item: int) -> bool:
        time.sleep(STAGE_S)
        written.append(item)
        return True

    start = time.perf_counter()
    with ReadAhead(slow(range(20))) as reader, WriteBehind(write) as writer:
        while (drawn := reader.next()) is not None:
            time.sleep(STAGE_S)
            assert writer.put(drawn[0])
    seconds = time.perf_counter() - start
    assert written == list(range(20))
    assert seconds < 20 * 2.2 * STAGE_S  # one after the other: 20 * 3


def test_a_live_source_gives_its_newest_and_counts_what_it_overtook() -> None:
    released = threading.Event()

    def camera():
        yield from range(10)
        released.set()

    with ReadAhead(camera(), newest_only=True) as reader:
        assert released.wait(5)
        while reader.dropped < 9:
            time.sleep(0.001)
        assert reader.next()[0] == 9
        assert reader.next() is None
    assert reader.dropped == 9


def test_an_error_of_the_source_comes_after_what_was_read_before_it() -> None:
    def broken():
        yield 1
        yield 2
        raise SourceUnreadableError("the link is damaged")

    with ReadAhead(broken()) as reader:
        assert [reader.next()[0], reader.next()[0]] == [1, 2]
        with pytest.raises(SourceUnreadableError, match="the link is damaged"):
            reader.next()


def test_a_failing_writer_stops_the_loop_and_is_raised_at_its_end() -> None:
    def write(item: int) -> bool:
        raise OSError(f"disk full at {item}")

    def run() -> int:
        with WriteBehind(write) as writer:
            for item in range(100):
                if not writer.put(item):
                    return item
        return -1

    with pytest.raises(OSError, match="disk full at 0"):
        run()


def test_a_writer_that_wants_no_more_ends_the_loop() -> None:
    seen = []

    def write(item: int) -> bool:
        seen.append(item)
        return item < 3

    with WriteBehind(write) as writer:
        for item in range(100):
            if not writer.put(item):
                break
    assert seen == [0, 1, 2, 3]
    with WriteBehind(write, beside=False) as here:
        assert here.put(0)
        assert not here.put(3)


def test_leaving_early_never_waits_for_a_blocked_source() -> None:
    with ReadAhead(iter(range(10_000))) as reader:
        assert reader.next()[0] == 0
    assert not any(t.name.startswith("read") and t.is_alive() for t in threading.enumerate())


def test_a_closed_relay_takes_nothing_and_gives_what_it_holds() -> None:
    relay: Relay[int] = Relay()
    assert relay.put(1)
    relay.close()
    assert not relay.put(2)
    assert relay.get() == 1
    assert relay.get() is None
