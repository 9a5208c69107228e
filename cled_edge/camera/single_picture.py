"""One picture file as a camera: of one frame, or of one for each page."""

from collections.abc import Iterator
from pathlib import Path

from cled_edge.address import Address
from cled_edge.camera.source import Camera
from cled_edge.decoder import count_pages, read_pages
from cled_edge.frame import ORDER, Frame


class SinglePicture(Camera):
    """One picture; every page of a TIFF that has several, named STEM_000 and so on.

    Opening it raises SourceMissingError, reading it SourceUnreadableError.
    """

    has_names = True

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.files = (Path(address.place),)
        self.announced = self.pages = count_pages(self.files[0])

    def __iter__(self) -> Iterator[Frame]:
        (path,) = self.files
        for index, page in enumerate(read_pages(path)):
            name = path.stem if self.pages == 1 else f"{path.stem}_{index:03d}"
            yield Frame(page.image, index, ORDER, index, str(path), "BGR", name, page.notes)
