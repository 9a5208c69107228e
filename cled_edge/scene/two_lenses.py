"""A rig of two cameras with lenses of their own, side by side, before a picture on a wall: the right map is known."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from cled_edge.image import Uint8
from cled_edge.registration.lens import Lens, Matrix, PixelMap, Points
from cled_edge.size import Size


@dataclass(frozen=True)
class Camera:
    """A lens before a sensor of (height, width) pixels."""

    size: Size
    lens: Lens

    def points(self) -> Points:
        """Return every pixel (x, y), row by row."""
        y, x = np.mgrid[: self.size[0], : self.size[1]]
        return np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float64)


def camera(size: Size, view_deg: float, distortion: tuple[float, float, float, float, float]) -> Camera:
    """Return a camera that sees `view_deg` degrees across its width, without its distortion."""
    focal_px = size[1] / 2 / np.tan(np.radians(view_deg) / 2)
    return Camera(size, Lens((focal_px, focal_px), ((size[1] - 1) / 2, (size[0] - 1) / 2), distortion))


@dataclass(frozen=True)
class TwoLenses:
    """Infrared and visible camera. baseline_m: where the visible camera is, seen from the infrared: x, y, z.

    turn_deg: of the infrared camera about x, y, z.
    """

    infrared: Camera = field(default_factory=lambda: camera((512, 640), 50, (-0.25, 0.06, 0.0, 0.0, 0.0)))
    visible: Camera = field(default_factory=lambda: camera((720, 1280), 70, (-0.12, 0.02, 0.0, 0.0, 0.0)))
    baseline_m: tuple[float, float, float] = (0.3, 0.02, 0.0)
    turn_deg: tuple[float, float, float] = (0.5, 1.0, 0.8)

    @property
    def rotation(self) -> Matrix:
        """Of the infrared camera: a point x of the visible one is at rotation @ x + baseline_m there."""
        return np.asarray(cv2.Rodrigues(np.radians(self.turn_deg))[0], np.float64)

    def map(self, distance_m: float) -> PixelMap:
        """Return the right map for a wall at that distance, square to the visible camera."""
        between = self.rotation + np.outer(self.baseline_m, (0, 0, 1 / distance_m))
        matrix = self.infrared.lens.matrix @ between @ np.linalg.inv(self.visible.lens.matrix)
        return PixelMap(matrix / matrix[2, 2], self.infrared.lens, self.visible.lens)

    def frames(
        self, wall: Mapping[str, Uint8], distance_m: float, noise_levels: float = 0.0, seed: int = 0
    ) -> tuple[Uint8, Uint8]:
        """Return what both see of a wall, infrared (H, W) and visible (H, W, C), with noise of that deviation.

        wall: "infrared" and "visible" of one size; they fill the visible camera's view 1.5 times.
        """
        random = np.random.default_rng(seed)
        ours = self.map(distance_m)
        views = {"infrared": ours.visible_points(self.infrared.points()), "visible": self.visible.points()}
        sizes = {"infrared": self.infrared.size, "visible": self.visible.size}
        seen = []
        for name, points in views.items():
            picture = wall[name]
            height, width = picture.shape[:2]
            straight = self.visible.lens.straightened(points) - self.visible.lens.center_px
            scale = width / (1.5 * self.visible.size[1])
            x, y = (straight * scale + ((width - 1) / 2, (height - 1) / 2)).T.astype(np.float32)
            # A pixel sees the mean of what it covers.
            covers = scale * self.visible.size[1] / sizes[name][1] / 2
            soft = cv2.GaussianBlur(picture, (0, 0), covers) if covers > 0.4 else picture
            shape = sizes[name]
            image = cv2.remap(soft, x.reshape(shape), y.reshape(shape), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            noisy = image + random.normal(0, noise_levels, image.shape)
            seen.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
        return seen[0], seen[1]
