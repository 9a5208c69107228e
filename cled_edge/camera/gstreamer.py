"""A pipeline of GStreamer as a camera, where OpenCV was built with it: a Jetson's CSI camera, or any other source."""

import re
import time
from collections.abc import Iterator

import cv2

from cled_edge.address import Address
from cled_edge.camera.source import Camera
from cled_edge.errors import BackendError, SourceUnreadableError
from cled_edge.frame import ARRIVAL, Frame

_SINK = " ! appsink drop=true max-buffers=1 sync=false"  # nothing waits in it: a frame that nobody took is replaced


class GstreamerCamera(Camera):
    """`gst:PIPELINE`, as `gst:nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert`.

    Without an appsink at its end one is added, which keeps the newest frame alone. Frames are as OpenCV gives them: BGR
    (H, W, 3) uint8, or (H, W) uint8 or uint16 if the pipeline ends in GRAY8 or GRAY16_LE. timestamp_ns: when the frame
    arrived, ARRIVAL.

    BackendError if OpenCV has no GStreamer, SourceUnreadableError if the pipeline does not start or ends.
    """

    is_live = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if not _has_gstreamer():
            raise BackendError(
                f"{address.shown} needs GStreamer, and this OpenCV has none; needed one built with it; on a Jetson or "
                "Debian, use the system's python3-opencv in place of the one from pip"
            )
        pipeline = address.place if re.search(r"\bappsink\b", address.place) else address.place + _SINK
        self._capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        if not self._capture.isOpened():
            raise SourceUnreadableError(
                f"{address.shown} does not start; needed a pipeline that ends in raw video; try it with gst-launch-1.0"
            )
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate_hz if rate_hz > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self._capture.grab():
            now_ns = time.monotonic_ns()
            is_whole, image = self._capture.retrieve()
            if not is_whole or image is None:
                self.oddities["corrupt"] += 1
                continue
            yield Frame(image, now_ns, ARRIVAL, index, self.address.shown, "BGR", arrival_ns=now_ns)
            index += 1
        raise SourceUnreadableError(f"{self.address.shown} ended after {index} frames; check what is at its front")

    def close(self) -> None:
        """Stop the pipeline."""
        self._capture.release()


def _has_gstreamer() -> bool:
    """Say whether OpenCV can open a pipeline: OpenCV 5 of PyPI lists GStreamer, but as a plugin that is not there."""
    registry = cv2.videoio_registry
    if cv2.CAP_GSTREAMER not in registry.getBackends():
        return False
    try:
        return registry.isBackendBuiltIn(cv2.CAP_GSTREAMER) or bool(
            registry.getStreamBackendPluginVersion(cv2.CAP_GSTREAMER)
        )
    except cv2.error:
        return False
