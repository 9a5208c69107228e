"""One picture file as a camera of one frame."""

from collections.abc import Iterator
from pathlib import Path

from cled_edge.address import Address
from cled_edge.camera.picture_folder import picture_frame
from cled_edge.camera.source import Camera
from cled_edge.frame import Frame


class SinglePicture(Camera):
    """One picture. Reading it raises SourceMissingError or SourceUnreadableError."""

    has_names = True
    announced = 1

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.files = (Path(address.place),)

    def __iter__(self) -> Iterator[Frame]:
        yield picture_frame(self.files[0], 0)
