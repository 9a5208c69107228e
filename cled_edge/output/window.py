"""A window on this machine's screen as an output."""

import os
import re
import sys
from contextlib import suppress
from types import TracebackType

import cv2

from cled_edge.address import Address
from cled_edge.errors import OutputError
from cled_edge.frame import FusedFrame
from cled_edge.image import swapped
from cled_edge.output.sink import Output, Shown

_ESCAPE = 27
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM", "OPENCV_UI_BACKEND")  # one of them says where to show


def window_toolkit() -> str:
    """Return what this OpenCV draws windows with, such as QT5; "" for the headless build."""
    if hasattr(cv2, "currentUIFramework"):  # not in 4.9, which a robot may have
        return str(cv2.currentUIFramework())
    gui = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    return gui.group(1) if gui and gui.group(1) != "NONE" else ""


class Window(Output):
    """A window; q or Escape in it stops the run."""

    drops = True
    on_main_thread = True  # OpenCV's windows work on no other

    def __init__(self, address: Address, shows: Shown = "fused", rate_hz: float | None = None) -> None:
        super().__init__(address, shows, rate_hz)
        self.title = "cled-edge" if shows == "fused" else f"cled-edge {shows}"

    def __enter__(self) -> "Window":
        if sys.platform == "linux" and window_toolkit() and not any(map(os.environ.get, _SCREENS)):
            # Qt would end the process without a word of ours.
            raise OutputError(
                "there is no screen for a window: neither DISPLAY nor WAYLAND_DISPLAY is set; start in a desktop's "
                "session, write to a file, or show the run on its page"
            )
        try:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise OutputError(
                "this OpenCV has no window support (it is the headless build); write to a file, or: "
                "pip uninstall opencv-python-headless && pip install opencv-python"
            ) from error
        return self

    def write(self, frame: FusedFrame) -> bool:
        """Show a frame; return False on q or Escape."""
        image = self.image(frame)
        cv2.imshow(self.title, swapped(image) if image.ndim == 3 and frame.color_order == "RGB" else image)
        return cv2.waitKey(1) & 0xFF not in (ord("q"), _ESCAPE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(cv2.error):  # the user has closed it
            cv2.destroyWindow(self.title)
