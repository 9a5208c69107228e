"""H.264 in pieces: whole units come out, and none waits for the packet behind it."""

import numpy as np

from cled_edge.camera.nal_units import START, NalUnits


def cut(unit: bytes, piece: int = 1386) -> list[bytes]:
    """Cut a unit as FFmpeg hands it on: the first piece has a start code and the unit's own byte."""
    head = START + unit[: piece + 1]
    rest = unit[piece + 1 :]
    return [head, *(rest[k : k + piece] for k in range(0, len(rest), piece))]


def units(sizes: list[int]) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, 256, size).astype(np.uint8).tobytes() for size in sizes]


def test_units_come_out_whole_and_with_their_last_piece() -> None:
    given = units([20, 5000, 30, 1387, 4000, 700])
    joined = NalUnits()
    for unit in given[:3] + given[4:]:
        *pieces, last = cut(unit)
        for piece in pieces:
            assert joined.add(piece) == []
        assert joined.add(last) == [START + unit]


def test_a_unit_whose_last_piece_is_full_ends_where_the_next_begins() -> None:
    full, after = units([1 + 3 * 1386, 100])
    joined = NalUnits()
    assert [joined.add(piece) for piece in cut(full)] == [[], [], []]
    assert joined.add(START + after) == [START + full, START + after]


def test_pieces_of_all_sizes_break_three_units_and_then_no_more() -> None:
    given = units([3000] * 6)
    joined = NalUnits()
    out = []
    for unit in given:
        out += joined.add(START + unit[:700])
        out += joined.add(unit[700:2000])
        out += joined.add(unit[2000:])
    assert out == [START + unit[:700] for unit in given[:3]] + [START + unit for unit in given[3:5]]
    assert joined.add(START + b"end")[0] == START + given[5]


def test_pieces_without_a_beginning_do_not_matter_before_the_first_and_where_one_in_fifty_is_lost() -> None:
    given = units([3000] * 300)
    joined = NalUnits()
    for _ in range(4):
        assert joined.add(b"a piece") == []
    for k, unit in enumerate(given):
        *pieces, last = cut(unit)
        if k % 50 == 0:
            for piece in [*pieces[1:], last]:
                joined.add(piece)
            continue
        assert [joined.add(piece) for piece in pieces] == [[]] * len(pieces)
        assert joined.add(last) == [START + unit]
