"""Outputs: the base class of all kinds, the registry of kinds, and the function that makes one.

A new kind is a module with a subclass of `Output`, and its line in `OUTPUTS`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Literal, cast, get_args

from cled_edge.address import Address, explicit_address
from cled_edge.errors import OptionError, OutputError
from cled_edge.frame import FusedFrame
from cled_edge.image import Uint8
from cled_edge.json_text import shown
from cled_edge.output.view import shown_image

OUTPUTS = {  # scheme -> module:class
    "folder": "cled_edge.output.png_folder:PngFolder",
    "mcap": "cled_edge.output.bag_file:BagFile",
    "none": "cled_edge.output.nowhere:Nowhere",
    "picture": "cled_edge.output.picture_file:PictureFile",
    "rerun": "cled_edge.output.rerun_log:RerunLog",
    "rtsp": "cled_edge.output.rtsp_push:RtspPush",
    "rtsps": "cled_edge.output.rtsp_push:RtspPush",
    "uncertainty": "cled_edge.output.uncertainty_folder:UncertaintyFolder",
    "video": "cled_edge.output.video_writer:VideoWriter",
    "window": "cled_edge.output.window:Window",
}
WINDOW = "window"  # the one bare place that is no path
VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4")
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_OTHER_FILES = (".gif", ".m4v", ".mpeg", ".mpg", ".webm", ".wmv")

Shown = Literal[  # see cled_edge.output.view: fused; both restored; both as they came; what is made of them; doubt
    "fused",
    "infrared",
    "visible",
    "infrared-input",
    "visible-input",
    "infrared-inferno",
    "side-by-side",
    "overlay",
    "registration",
    "infrared-uncertainty",
    "visible-uncertainty",
]
Policy = Literal["wait", "drop"]


def is_uncertainty(view: str) -> bool:
    """Say whether a view is that of an uncertainty."""
    return view.endswith("-uncertainty")


@dataclass(frozen=True)
class OutputSettings:
    """What a user says of one output. OptionError for what is not allowed.

    to: its address. shows: which view of a `FusedFrame` it takes, see `cled_edge.output.view.VIEWS`.
    policy: "wait" makes the loop wait for it, "drop" leaves out the oldest frame that it has not taken. None waits for
    files that are fused from files, and drops for windows and for all that comes from a live camera.
    queue_frames: frames that it may be behind by. None is 1 where it waits, and 4 where it drops.
    """

    to: str
    shows: Shown = "fused"
    policy: Policy | None = None
    queue_frames: int | None = None

    def __post_init__(self) -> None:
        """Check the values and the address's form; nothing is opened."""
        if self.shows not in get_args(Shown):
            raise OptionError(f"shows is {self.shows!r}; needed one of {', '.join(get_args(Shown))}; choose one")
        if self.policy not in (None, *get_args(Policy)):
            raise OptionError(f"policy is {self.policy!r}; needed one of {', '.join(get_args(Policy))}; choose one")
        frames = self.queue_frames
        if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames < 1):
            raise OptionError(f"queue_frames is {frames!r}; it must be 1 or more, a whole number")
        output_address(self.to)

    @property
    def asks_uncertainty(self) -> bool:
        """Whether it shows or writes the uncertainty, which a run must then ask its fuser for."""
        return is_uncertainty(self.shows) or output_address(self.to).scheme == "uncertainty"

    @classmethod
    def parse(cls, text: str) -> "OutputSettings":
        """Return the settings of `ADDRESS` or `SHOWN=ADDRESS`, such as `infrared=night/`.

        Another name before `=` is a part of the path. OptionError if it is nearly that of a view.
        """
        view, equals, address = text.partition("=")
        if equals and view in get_args(Shown):
            return cls(address, cast("Shown", view))
        near = get_close_matches(view, get_args(Shown), 1, 0.75) if equals and "/" not in view else []
        if near:
            raise OptionError(
                f"output {shown(text)} shows the unknown view {shown(view)!r}; did you mean {near[0]}? Write ./ before "
                "it if it is a path"
            )
        return cls(text)


class Output(ABC):
    """One place where fused frames go. Making one touches nothing; entering its context opens it.

    Whatever ends the context, what was written is kept, and an output in which no frame was written leaves nothing.
    drops: its policy unless the user chooses: leave out frames rather than let the loop wait. on_main_thread: it must
    be called on the main thread. holds: frames that it can hold, None for any number. target: the file or folder that
    it writes, None if it writes none. notes: sentences that the user should read once, such as that it padded.
    """

    drops: bool = False
    on_main_thread: bool = False
    holds: int | None = None
    target: Path | None = None

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        """Take what the user said. rate_hz: of the source, None if it has none."""
        self.address, self.shows, self.rate_hz = address, shows, rate_hz
        self.notes: list[str] = []
        self._named = 0

    @abstractmethod
    def write(self, frame: FusedFrame) -> bool:
        """Take a frame; return False if the user asked to stop. OutputError if it cannot be written."""

    def image(self, frame: FusedFrame) -> Uint8:
        """Return the image of a frame that this output shows: (H, W, 3) in the frame's colour order, or (H, W) grey."""
        return shown_image(frame, self.shows)

    def stem(self, frame: FusedFrame) -> str:
        """Return what to call a frame's file: its name, or six digits of its place among those that were called so far.

        OutputError for a name that would leave the output's folder.
        """
        stem = frame.name or f"{self._named:06d}"
        if Path(stem).name != stem or stem == "..":
            raise OutputError(f"a frame is called {shown(stem)!r}; needed a name without folders; rename it")
        self._named += 1
        return stem

    def __enter__(self) -> "Output":
        return self

    def __exit__(  # noqa: B027 (some kinds hold nothing open)
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""


def open_output(settings: OutputSettings | str, rate_hz: float | None = None) -> Output:
    """Make the output that an address names, see `output_address`; its context opens it.

    rate_hz: of the source, for a video; None if it has none.
    """
    settings = OutputSettings.parse(settings) if isinstance(settings, str) else settings
    address = output_address(settings.to)
    module, name = OUTPUTS[address.scheme].split(":")
    output_type = cast("type[Output]", getattr(import_module(module), name))
    return output_type(address, settings.shows, rate_hz)


def output_address(text: str) -> Address:
    """Return the parsed address of an output.

    `window`: a window. A name with a video's suffix: that video; with a picture's: that picture; `.mcap`: a bag. Any
    other path: a folder of PNGs. `window:`, `video:`, `picture:` or another of `OUTPUTS` before it says which kind is
    meant. OptionError for an unknown scheme, for another file's suffix, and for `-`.
    """
    explicit = explicit_address(text, OUTPUTS)
    if explicit:
        return explicit
    if text == "-":
        raise OptionError("- is standard output, to which nothing is streamed; give a file or a folder, such as ./-")
    if text == WINDOW:
        return Address(text, WINDOW, text)
    return Address(text, _scheme_of(text), text)


def _scheme_of(text: str) -> str:
    suffix = Path(text).suffix.lower()
    if Path(text.partition("?")[0]).suffix.lower() in VIDEO_SUFFIXES:
        return "video"
    if suffix == ".mcap":
        return "mcap"
    if Path(text).is_dir():
        return "folder"
    if suffix in PICTURE_SUFFIXES:
        return "picture"
    if suffix in _OTHER_FILES:
        raise OptionError(
            f"{text} names a file; give a folder, a video ({', '.join(VIDEO_SUFFIXES)}) or a picture "
            f"({', '.join(PICTURE_SUFFIXES)})"
        )
    return "folder"
