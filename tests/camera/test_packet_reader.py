"""Packets that are read beside: when they came, what a busy reader gets, and how it ends."""

import threading
from collections.abc import Iterator

import pytest

from cled_edge.camera.packet_reader import PacketReader
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

    newest = PacketReader(packets(), only_newest=True, now=lambda: 7)
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
        given.extend(PacketReader(packets()))
    assert given in ([], [(1, given and given[0][1])])


def test_each_packet_has_the_time_when_it_came_though_nobody_took_it_then() -> None:
    clock = iter((10, 20, 30))
    came = threading.Event()

    def packets() -> Iterator[int]:
        yield from (1, 2, 3)
        came.set()

    reader = PacketReader(packets(), now=lambda: next(clock))
    assert came.wait(PATIENCE_S)
    assert list(reader) == [(1, 10), (2, 20), (3, 30)]
    assert reader.skipped == 0


def test_who_reads_no_more_lets_packets_wait_in_the_socket() -> None:
    read = 0

    def packets() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    reader = PacketReader(packets())
    with reader._changed:
        assert reader._changed.wait_for(lambda: len(reader._held) == 512, PATIENCE_S)
    given = iter(reader)
    assert [next(given)[0] for _ in range(600)] == list(range(1, 601))
    assert read < 600 + 520
    assert reader.stop(PATIENCE_S)
    assert list(given) == []
