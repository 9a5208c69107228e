"""The newest packet: what a busy reader gets, and how it ends."""

import threading
from collections.abc import Iterator

import pytest

from cled_edge.camera.newest_packet import NewestPacket
from cled_edge.errors import SourceUnreadableError

PATIENCE_S = 10


def test_a_busy_reader_gets_the_newest_and_the_others_are_counted() -> None:
    may_read, all_came = threading.Semaphore(0), threading.Event()

    def packets() -> Iterator[int]:
        for number in range(6):
            if number:
                may_read.acquire()
            yield number
        all_came.set()
        may_read.acquire()

    newest = NewestPacket(packets(), now=lambda: 7)
    given = iter(newest)
    assert next(given) == (0, 7)
    may_read.release(5)
    assert all_came.wait(PATIENCE_S)
    assert next(given) == (5, 7)
    assert newest.skipped == 4
    assert not newest.stop(0), "it still waits for a packet"
    may_read.release()
    assert newest.stop(PATIENCE_S)
    assert list(given) == []


def test_what_ends_the_packets_ends_the_reader() -> None:
    def packets() -> Iterator[int]:
        yield 1
        raise SourceUnreadableError("its cable is out; needed a camera; plug it in")

    given = []
    with pytest.raises(SourceUnreadableError, match="its cable is out"):
        given.extend(NewestPacket(packets()))
    assert given in ([], [(1, given and given[0][1])])
