"""What goes to Rerun: images as JPEG, numbers, and events; and that the package is asked for only when it is used."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cled_edge.errors import OptionError, OutputError
from cled_edge.output.sink import open_output
from tests.output.test_view import scene


class Stream:
    def __init__(self, name: str) -> None:
        self.logged: list[tuple[str, object]] = []
        self.calls: list[tuple[object, ...]] = [("made", name)]
        Stream.last = self

    def log(self, name: str, value: object) -> None:
        self.logged.append((name, value))

    def __getattr__(self, name: str):
        return lambda *given, **named: self.calls.append((name, *given, *named.values()))


@pytest.fixture
def rerun(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(
        RecordingStream=Stream,
        EncodedImage=lambda contents, media_type: (media_type, contents[:2]),
        Scalars=float,
        TextLog=lambda text, level: (level, text),
    )
    monkeypatch.setitem(sys.modules, "rerun", module)


def test_a_file_gets_images_numbers_and_events(rerun, tmp_path: Path) -> None:
    from dataclasses import replace

    with open_output(f"overlay=rerun:{tmp_path}/a.rrd") as output:
        output.write(replace(scene(), degraded="visible lost", skew_ns=4_000_000, timestamp_ns=5 * 10**9))
    stream = Stream.last
    logged = dict(stream.logged)
    assert ("save", f"{tmp_path}/a.rrd") in stream.calls
    assert ("set_time", "taken", 5.0) in stream.calls
    assert [logged[name] for name in ("fused", "infrared", "visible")] == [("image/jpeg", b"\xff\xd8")] * 3
    assert (logged["skew_ms"], logged["controls/balance"], logged["log"]) == (4.0, 0.5, ("WARN", "visible lost"))
    assert "infrared_age_ms" not in logged, "it is unknown"
    assert stream.calls[-1] == ("disconnect",)


def test_a_running_viewer_is_named_by_host_and_port(rerun) -> None:
    with open_output("rerun:laptop:9876"):
        pass
    assert ("connect_grpc", "rerun+http://laptop:9876/proxy") in Stream.last.calls
    with pytest.raises(OptionError, match=r"needed rerun:FILE.rrd or rerun:HOST:PORT"):
        open_output("rerun:somewhere")


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(OutputError, match=r"rerun-sdk, which is not installed; pip install 'cled-edge\[rerun\]'"):
        open_output(f"rerun:{tmp_path}/a.rrd").__enter__()
