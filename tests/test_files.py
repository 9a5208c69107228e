"""Files are written whole or not at all, under no name that somebody else can foresee, and through no link."""

import os
import stat
from pathlib import Path

import pytest

from cled_edge.errors import OutputError, ResultError
from cled_edge.files import check_writable, draft, make_folder, read_json, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", "grün\n")
    assert (tmp_path / "a.json").read_bytes() == "grün\n".encode()
    write_whole(tmp_path / "a.json", b"\x00\xff")
    assert (tmp_path / "a.json").read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["a.json"]


def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")

    def give_up() -> None:
        with draft(path) as made:
            made.write_bytes(b"half")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        give_up()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_no_draft(tmp_path: Path, interrupt: type[BaseException]) -> None:
    with pytest.raises(interrupt), draft(tmp_path / "a.bin"):
        raise interrupt
    assert names(tmp_path) == []


def test_two_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with draft(path) as one, draft(path) as other:
        assert one != other
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert path.read_bytes() == b"one"  # the last to end
    assert names(tmp_path) == ["a.bin"]


def test_a_draft_keeps_the_suffix_and_stays_within_a_names_length(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 240}.mp4"
    with draft(path) as made:
        assert made.suffix == ".mp4"
        assert made.parent == tmp_path
        assert made.name.startswith(".")
    assert names(tmp_path) == [path.name]


def test_a_link_at_the_target_is_replaced_and_its_file_untouched(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "out.json").symlink_to(victim)
    write_whole(tmp_path / "out.json", "mine")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "out.json").is_symlink()


def test_private_files_and_folders_are_their_owners_alone(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", private=True)
    write_whole(tmp_path / "a" / "b" / "key", b"secret", private=True)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / "key").stat().st_mode) == 0o600
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "open", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o644


def test_what_cannot_be_written_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    inside = tmp_path / "file" / "a.json"
    with pytest.raises(OutputError, match=r"file/a\.json cannot be written: Not a directory; give another --out"):
        write_whole(inside, "", todo="give another --out")
    with pytest.raises(OutputError, match=r"file/a\.json cannot be written: Not a directory; choose another folder"):
        check_writable(inside)
    with pytest.raises(OutputError, match=r"cannot be written: .*; choose another folder"):
        make_folder(inside)
    with pytest.raises(OutputError, match="is a folder; give the name of a file"):
        check_writable(tmp_path)
    check_writable(tmp_path / "new.json")
    assert names(tmp_path) == ["file"]


def test_a_result_that_is_no_json_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for content, words in ((b"[]", "not a JSON object"), (b"{", "is not JSON")):
        path.write_bytes(content)
        with pytest.raises(ResultError, match=words):
            read_json(path)
    with pytest.raises(ResultError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_a_device_a_pipe_and_a_folder_are_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "pipe"), ("folder", "folder")):
        with pytest.raises(OutputError, match=f"{name} cannot be written: it is a {kind}"):
            write_whole(tmp_path / name, b"")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert names(tmp_path) == ["folder", "pipe"]


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_whole(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
