"""H.264 and H.265 in pieces: whole units come out, and none waits for the packet behind it."""

import numpy as np

from cled_edge.camera.nal_units import START, EncodedFrames, NalUnits


def cut(unit: bytes, piece: int = 1386, header: int = 1) -> list[bytes]:
    """Cut a unit as FFmpeg hands it on: the first piece has a start code and the unit's header."""
    head = START + unit[: piece + header]
    rest = unit[piece + header :]
    return [head, *(rest[k : k + piece] for k in range(0, len(rest), piece))]


def units(sizes: list[int]) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, 256, size).astype(np.uint8).tobytes() for size in sizes]


def test_units_come_out_whole_and_with_their_last_piece() -> None:
    learned, *given = units([5000, 20, 5000, 30, 4000, 700])
    for piece_size in (1386, 586):
        joined = NalUnits()
        for piece in cut(learned, piece_size):
            joined.add(piece)
        for unit in given:
            *pieces, last = cut(unit, piece_size)
            for piece in pieces:
                assert joined.add(piece) == []
            assert joined.add(last) == [START + unit]


def test_before_a_unit_in_pieces_was_seen_a_unit_ends_where_the_next_begins() -> None:
    first, second = units([700, 800])
    joined = NalUnits()
    assert joined.add(START + first) == []
    assert joined.add(START + second) == [START + first]


def test_a_unit_whose_last_piece_is_full_ends_where_the_next_begins() -> None:
    learned, full, after = units([5000, 1 + 3 * 1386, 100])
    joined = NalUnits()
    for piece in cut(learned):
        joined.add(piece)
    assert [joined.add(piece) for piece in cut(full)] == [[], [], []]
    assert joined.add(START + after) == [START + full, START + after]


def test_pieces_of_all_sizes_break_three_units_and_then_no_more() -> None:
    learned, *given = units([5000] + [3000] * 6)
    joined = NalUnits()
    for piece in cut(learned):
        joined.add(piece)
    out = []
    for unit in given:
        out += joined.add(START + unit[:700])
        out += joined.add(unit[700:2000])
        out += joined.add(unit[2000:])
    assert out == [START + unit[:700] for unit in given[:3]] + [START + unit for unit in given[3:5]]
    assert joined.add(START + b"end")[0] == START + given[5]
    assert not joined.sizes_tell


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


def test_units_of_h265_have_a_header_of_two_bytes_and_slices_of_their_own() -> None:
    key, slice_, settings, after = b"\x28\x01", b"\x02\x01", b"\x40\x01", b"\x50\x01"
    joined = EncodedFrames("hevc")
    for time in range(4):
        for piece in cut(key + bytes(3000), header=2):
            joined.add(piece, time)
    assert joined.add(START + settings + b"s", 4) == []
    assert joined.add(START + slice_ + b"a", 4) == [(START + settings + b"s" + START + slice_ + b"a", 4)]
    assert joined.add(START + after + b"sei", 4) == []


SLICE, KEY, SETTINGS = b"\x41", b"\x65", b"\x67"


def fed(joined: EncodedFrames, units_of: list[bytes], time: int) -> list[list[tuple[bytes, int | None]]]:
    return [joined.add(START + unit, time) for unit in units_of]


def learned_frames() -> EncodedFrames:
    """Return what has seen a key frame in pieces, and frames of two slices each."""
    joined = EncodedFrames()
    for time in range(6):
        for slice_ in (KEY + bytes(3000), KEY + bytes(2000)):
            for piece in cut(slice_):
                joined.add(piece, time)
    return joined


def test_a_frame_is_whole_with_its_last_slice() -> None:
    joined = learned_frames()
    for time in (6, 7):
        settings, first, last = fed(joined, [SETTINGS + b"s", SLICE + b"a", SLICE + b"b"], time)
        assert settings == first == []
        assert last == [(START + SETTINGS + b"s" + START + SLICE + b"a" + START + SLICE + b"b", time)]


def test_a_frame_that_lost_a_slice_is_whole_when_the_next_begins() -> None:
    joined = learned_frames()
    assert fed(joined, [SLICE + b"a"], 6) == [[]]
    first, last = fed(joined, [SLICE + b"c", SLICE + b"d"], 7)
    assert first == [(START + SLICE + b"a", 6)]
    assert last == [(START + SLICE + b"c" + START + SLICE + b"d", 7)]


def test_frames_of_changing_numbers_of_slices_are_never_given_short() -> None:
    joined = EncodedFrames()
    for piece in cut(KEY + bytes(3000)):
        joined.add(piece, 0)
    given = []
    for time in range(1, 40):
        slices = [SLICE + bytes([time, k]) for k in range(1 + time % 3)]
        given += [found for one in fed(joined, slices, time) for found in one if time > 6]
    whole = {time: b"".join(START + SLICE + bytes([time, k]) for k in range(1 + time % 3)) for time in range(7, 39)}
    assert all(whole.get(time, data) == data for data, time in given)
    assert len(given) >= len(whole)
