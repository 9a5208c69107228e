"""What moves in the synthetic street: people, a cyclist and cars, what they look like and where they go.

Metres, as in `canvas`. An actor's own frame is (forward, up, right). The file is long because
each part of a body and of a car is written out with its place, shape, colour and warmth.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import cos, hypot, pi, sin, sqrt
from typing import NamedTuple

import numpy as np

from cled_edge.scene.canvas import Actor, Float64, Paint, Point, Pose, Rgb, Shape, Spot, shaded

TURN_M = 0.6  # an actor looks this far ahead and behind for its heading

WALK_CYCLE_M, PEDAL_CYCLE_M = 1.4, 4.5  # two steps; one turn of the pedals
THIGH_M, SHIN_M, UPPER_ARM_M, FOREARM_M = 0.43, 0.42, 0.28, 0.25
HIP_M, SHOULDER_M, TRUNK_M = 0.10, 0.17, 0.54  # half width, half width, height
CRANK_M, WHEEL_M, HUB_M = 0.17, 0.34, 0.52
SKIN_INFRARED, HAIR_INFRARED, COAT_INFRARED, TROUSERS_INFRARED, SHOE_INFRARED = 246, 196, 168, 152, 118

# Outline of a car from the front bumper over the roof to the rear one: (forward, up, half width).
CAR_OUTLINE: tuple[Point, ...] = (
    (2.08, 0.28, 0.80), (2.10, 0.70, 0.86), (0.95, 0.96, 0.86), (0.20, 1.43, 0.62),
    (-1.15, 1.43, 0.62), (-1.85, 1.00, 0.84), (-2.08, 0.90, 0.84), (-2.10, 0.28, 0.82),
)  # fmt: skip
CAR_SIDE, CAR_CABIN = (0, 1, 2, 5, 6, 7), (2, 3, 4, 5)
CAR_AXLES = (1.30, -1.32)
CAR_FRONT, CAR_REAR, CAR_WINDOWS = 0, 6, (2, 4)  # parts between a point of CAR_OUTLINE and the next
CAR_SHADES = (0.82, 1.12, 0.0, 1.2, 0.0, 1.2, 0.8)
CAR_WARMTHS = (150, 178, 0, 84, 0, 84, 92)

GLASS, RUBBER, HUB = Paint((58, 70, 82), 62), Paint((26, 26, 29), 158), Paint((150, 152, 156), 192)
SHOE, GRILLE, PLATE = Paint((38, 32, 30), SHOE_INFRARED), Paint((30, 32, 36), 188), Paint((226, 222, 196), 90)
BUMPER, EXHAUST, BICYCLE = Paint((52, 54, 58), 92), Paint((60, 58, 56), 252), Paint((34, 34, 38), 96)
HEADLIGHT, TAIL_LIGHT = Paint((255, 252, 236), 132, shine=1.0), Paint((232, 30, 24), 108, shine=1.0)


@dataclass(frozen=True)
class Clothes:
    """Colours of one person."""

    coat: Rgb
    trousers: Rgb
    hair: Rgb
    skin: Rgb


class _Body(NamedTuple):
    """Joints of one person in the plane (forward, up); limbs are left before right."""

    legs: tuple[Sequence[tuple[float, float]], Sequence[tuple[float, float]]]  # hip, knee, ankle, toe
    arms: tuple[Sequence[tuple[float, float]], Sequence[tuple[float, float]]]  # shoulder, elbow, hand
    head: tuple[float, float]


@dataclass(frozen=True)
class Person:
    """A pedestrian. `coat_m` is how far the coat reaches below the hip."""

    clothes: Clothes
    coat_m: float = 0.2
    reach_m: float = 1.0

    def spots(self) -> Sequence[Spot]:
        """Return the shadow."""
        return (Spot(0.0, 0.38, 0.38, (46.0, 44.0, 40.0), light=False),)

    def shapes(self, eye: Point, travelled_m: float) -> list[Shape]:
        """Return the body in the phase of the step that the distance implies."""
        return _body_shapes(_walking(2 * pi * travelled_m / WALK_CYCLE_M), self.clothes, self.coat_m, eye)


@dataclass(frozen=True)
class Cyclist:
    """A person on a bicycle with a red rear light."""

    clothes: Clothes
    frame: Rgb
    reach_m: float = 1.2

    def spots(self) -> Sequence[Spot]:
        """Return the shadow."""
        return (Spot(0.0, 0.8, 0.3, (46.0, 44.0, 40.0), light=False),)

    def shapes(self, eye: Point, travelled_m: float) -> list[Shape]:
        """Return bicycle and rider, the pedals turned as the distance implies."""
        parts = []
        for hub in (HUB_M, -HUB_M):
            rim = [(hub + WHEEL_M * cos(k * pi / 8), WHEEL_M * (1 + sin(k * pi / 8)), 0.0, 0.025) for k in range(17)]
            parts.append(Shape(rim, BICYCLE, line=True))
        tubes = ((-HUB_M, 0.34), (-0.18, 0.9), (0.36, 0.85), (0.0, 0.32), (-HUB_M, 0.34))
        frame = Paint(self.frame, 84)
        parts.append(Shape([(a, y, 0.0, 0.025) for a, y in tubes], frame, line=True))
        parts.append(Shape([(HUB_M, 0.34, 0.0, 0.025), (0.36, 0.95, 0.0, 0.025)], frame, line=True))
        parts.append(Shape([(0.4, 1.02, -0.25, 0.025), (0.4, 1.02, 0.25, 0.025)], BICYCLE, line=True))
        body = _body_shapes(_riding(2 * pi * travelled_m / PEDAL_CYCLE_M), self.clothes, 0.0, eye)
        light = [Shape([(-0.3, 0.72, 0.0, 0.04)], TAIL_LIGHT)] if eye[0] < 0 else []
        return parts + body + light


@dataclass(frozen=True)
class Car:
    """A small car with its head and tail lights on and a warm engine."""

    body: Rgb
    reach_m: float = 2.6

    def spots(self) -> Sequence[Spot]:
        """Return the shadow, and the light before the headlights and behind the tail lights."""
        return (
            Spot(6.5, 4.2, 1.9, (112.0, 110.0, 100.0), light=True),
            Spot(-3.2, 1.3, 1.1, (80.0, 8.0, 5.0), light=True),
            Spot(0.0, 2.3, 1.15, (78.0, 76.0, 72.0), light=False),
        )

    def shapes(self, eye: Point, travelled_m: float) -> list[Shape]:  # noqa: ARG002  (its wheels are round)
        """Return the parts that are turned to the eye."""
        parts = [
            Shape([(a + da, y, side * b, 0.0) for da in (-0.2, 0.2) for y in (0.02, 0.4) for b in (0.6, 0.8)], RUBBER)
            for a in CAR_AXLES
            for side in (-1, 1)
        ]
        for side in (-1, 1):
            if side * eye[2] > CAR_OUTLINE[1][2]:
                parts += self._flank(side)
        for k, (start, end) in enumerate(pairwise(CAR_OUTLINE)):
            out = end[1] - start[1], start[0] - end[0]  # normal in the plane (forward, up)
            if (eye[0] - start[0]) * out[0] + (eye[1] - start[1]) * out[1] > 0:
                parts += self._strip(k, start, end)
        return parts

    def _flank(self, side: int) -> list[Shape]:
        """Return one side: cabin, window, body and wheels; `side` is -1 on the left and 1 on the right."""
        paint = Paint(shaded(self.body, 0.92), 88)
        outline = [(a, y, side * b, 0.03) for a, y, b in CAR_OUTLINE]
        cabin = [outline[k] for k in CAR_CABIN]
        pane = [(0.84 * a - 0.08, 0.8 * y + 0.25, b, 0.0) for a, y, b, _ in cabin]
        parts = [Shape(cabin, paint), Shape(pane, GLASS), Shape([outline[k] for k in CAR_SIDE], paint)]
        for hub in CAR_AXLES:
            for radius, tyre in ((0.32, RUBBER), (0.19, HUB)):
                turns = [(radius * cos(k * pi / 6), radius * sin(k * pi / 6)) for k in range(12)]
                parts.append(Shape([(hub + a, 0.32 + y, side * 0.86, 0.0) for a, y in turns], tyre))
        return parts

    def _strip(self, k: int, start: Point, end: Point) -> list[Shape]:
        """Return part `k` of the outline across the car, with the lights if it is an end of the car."""
        corners = [(a, y, side * b, 0.02) for a, y, b in (start, end) for side in (-1, 1)]
        if k in CAR_WINDOWS:
            return [Shape(corners, GLASS)]
        parts = [Shape(corners, Paint(shaded(self.body, CAR_SHADES[k]), CAR_WARMTHS[k]))]
        if k == CAR_FRONT:
            parts.append(_plate(2.11, (0.24, 0.36), 0.74, BUMPER))
            parts.append(_plate(2.12, (0.44, 0.54), 0.4, GRILLE))
            parts += [Shape([(2.13, 0.62, b, 0.115)], HEADLIGHT) for b in (-0.64, 0.64)]
        if k == CAR_REAR:
            parts.append(_plate(-2.11, (0.24, 0.36), 0.74, BUMPER))
            parts.append(_plate(-2.12, (0.54, 0.64), 0.22, PLATE))
            parts += [Shape([(-2.12, 0.68, b, 0.07), (-2.12, 0.82, b, 0.07)], TAIL_LIGHT) for b in (-0.7, 0.7)]
            parts.append(Shape([(-2.13, 0.26, 0.5, 0.06)], EXHAUST))
        return parts


@dataclass(frozen=True)
class Role:
    """An actor that follows a path from out of sight to out of sight, anew in every cycle.

    path: (N, 2) x and z in metres. reached_m: (N,) distance along it. start_m: the distance at time 0.
    """

    actor: Actor
    path: Float64
    reached_m: Float64
    speed_m_s: float
    start_m: float
    cycle_s: float

    def pose(self, time_s: float) -> tuple[Pose, float] | None:
        """Return the pose and the distance travelled in this cycle, or None while out of sight."""
        distance = (self.start_m + self.speed_m_s * time_s) % (self.speed_m_s * self.cycle_s)
        if distance > self.reached_m[-1]:
            return None
        at = distance, max(distance - TURN_M, 0.0), distance + TURN_M  # beyond the end the path stays there
        x, x_behind, x_ahead = np.interp(at, self.reached_m, self.path[:, 0]).tolist()
        z, z_behind, z_ahead = np.interp(at, self.reached_m, self.path[:, 1]).tolist()
        step = hypot(x_ahead - x_behind, z_ahead - z_behind)
        return Pose(x, z, (x_ahead - x_behind) / step, (z_ahead - z_behind) / step), distance


def cast(rng: np.random.Generator) -> list[Role]:
    """Return everybody with a timetable in which nobody uses the crossing or a lane at the same time."""
    coats: list[Rgb] = [
        (176, 44, 40), (38, 78, 150), (206, 160, 48), (64, 112, 74), (120, 66, 128), (214, 206, 190), (224, 116, 56),
    ]  # fmt: skip
    bodies: list[Rgb] = [(160, 32, 34), (44, 92, 156), (188, 190, 188), (58, 116, 92), (208, 150, 46)]
    skins: list[Rgb] = [(226, 182, 154), (190, 140, 108), (122, 84, 62)]
    hairs: list[Rgb] = [(48, 34, 26), (106, 72, 42), (28, 26, 28), (150, 120, 76)]
    trousers: list[Rgb] = [(52, 58, 78), (70, 62, 54), (44, 44, 48)]
    worn = [
        Clothes(coats[c], trousers[k % 3], hairs[k % 4], skins[k % 3])
        for k, c in enumerate(rng.permutation(len(coats)))
    ]
    cars = [Car(bodies[k]) for k in rng.permutation(len(bodies))]
    coming, going = [(-16.0, 66.5), (-2.1, 66.5), (-2.1, -6.0)], [(2.1, -9.0), (2.1, 65.0), (16.0, 65.0)]
    return [
        _role(Person(worn[0]), [(-11.0, 7.6), (11.0, 7.6)], 1.35, 6.7, 20.0),
        _role(Person(worn[6]), [(11.0, 7.2), (-11.0, 7.2)], 1.35, 16.1, 20.0),
        _role(Person(worn[1]), [(13.0, 65.0), (5.6, 65.0), (5.6, 2.0)], 1.25, 55.0, 60.0),
        _role(Person(worn[2], 0.34), [(-5.9, 2.0), (-5.9, 35.5), (-16.0, 35.5)], 1.30, 9.5, 60.0),
        _role(Person(worn[3]), [(6.3, 2.0), (6.3, 64.5), (14.0, 64.5)], 1.25, 24.0, 60.0),
        _role(Person(worn[4], 0.3), [(-16.0, 36.5), (-5.1, 36.5), (-5.1, 2.0)], 1.20, 8.0, 60.0),
        _role(Cyclist(worn[5], (40, 120, 130)), [(3.3, -2.0), (3.3, 64.0), (14.0, 64.0)], 3.6, 11.0, 40.0),
        _role(cars[0], coming, 6.0, 40.0, 20.0),
        _role(cars[1], going, 5.5, 21.0, 20.0),
        _role(cars[2], coming, 6.0, 100.0, 20.0),
        _role(cars[3], going, 5.5, 76.0, 20.0),
    ]


def _role(
    actor: Actor, corners: Sequence[tuple[float, float]], speed_m_s: float, start_m: float, cycle_s: float
) -> Role:
    """Return the role on the path through the corners, each cut round by Chaikin's rule from 2 m before it."""
    path = np.asarray(corners, dtype=np.float64)
    for cut in (2.0, 0.25, 0.25, 0.25):
        step = np.diff(path, axis=0)
        if cut > 1:
            step /= np.hypot(*step.T)[:, None]  # the first cut is in metres, the others are shares of a side
        inner = np.stack([path[:-1] + cut * step, path[1:] - cut * step], axis=1).reshape(-1, 2)
        path = np.concatenate([path[:1], inner[1:-1], path[-1:]])
    reached = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    return Role(actor, path, reached, speed_m_s, start_m, cycle_s)


def _plate(forward: float, heights: Iterable[float], half_width: float, paint: Paint) -> Shape:
    """Return an upright rectangle across a car."""
    return Shape([(forward, y, b, 0.02) for y in heights for b in (-half_width, half_width)], paint)


def _leg(phase: float) -> list[tuple[float, float]]:
    """Return hip, knee, ankle and toe of a walking leg, (forward, up) of the hip."""
    thigh = 0.42 * sin(phase)
    shin = thigh - 0.08 - 0.65 * max(0.0, cos(phase))
    knee = THIGH_M * sin(thigh), -THIGH_M * cos(thigh)
    ankle = knee[0] + SHIN_M * sin(shin), knee[1] - SHIN_M * cos(shin)
    return [(0.0, 0.0), knee, ankle, (ankle[0] + 0.16 * cos(shin), ankle[1] + 0.16 * sin(shin) - 0.03)]


def _arm(swing: float) -> list[tuple[float, float]]:
    """Return shoulder, elbow and hand of a swinging arm, (forward, up) of the hip."""
    elbow = UPPER_ARM_M * sin(swing), TRUNK_M - UPPER_ARM_M * cos(swing)
    return [(0.0, TRUNK_M), elbow, (elbow[0] + FOREARM_M * sin(swing + 0.35), elbow[1] - FOREARM_M * cos(swing + 0.35))]


def _walking(phase: float) -> _Body:
    """Return the joints of a walking person, the lower foot on the ground."""
    legs = _leg(phase), _leg(phase + pi)
    arms = _arm(-0.42 * sin(phase)), _arm(0.42 * sin(phase))
    hip = 0.05 - min(up for leg in legs for _, up in leg)
    raised = [[(forward, up + hip) for forward, up in limb] for limb in (*legs, *arms)]
    return _Body((raised[0], raised[1]), (raised[2], raised[3]), (0.03, hip + TRUNK_M + 0.23))


def _riding(phase: float) -> _Body:
    """Return the joints of a cyclist, the feet on the pedals."""
    hip, legs = (-0.2, 0.98), []
    for turn in (phase, phase + pi):
        foot = CRANK_M * sin(turn), 0.36 + CRANK_M * cos(turn)
        reach = foot[0] - hip[0], foot[1] - hip[1]
        distance = min(hypot(*reach), THIGH_M + SHIN_M - 0.01)
        bend = sqrt(THIGH_M**2 - (distance / 2) ** 2) / distance
        knee = hip[0] + reach[0] / 2 - bend * reach[1], hip[1] + reach[1] / 2 + bend * reach[0]
        legs.append((hip, knee, foot, (foot[0] + 0.14, foot[1] - 0.03)))
    arm = ((0.12, 1.45), (0.22, 1.2), (0.4, 1.06))
    return _Body((legs[0], legs[1]), (arm, arm), (0.2, 1.68))


def _limb(joints: Sequence[tuple[float, float]], right: float, radii: tuple[float, float], paint: Paint) -> Shape:
    """Return the part of a limb between two joints."""
    return Shape([(a, y, right, r) for (a, y), r in zip(joints, radii, strict=True)], paint)


def _body_shapes(body: _Body, clothes: Clothes, coat_m: float, eye: Point) -> list[Shape]:
    """Return legs, the arm of the far side, trunk, head and the arm of the near side."""
    near = 1 if eye[2] > 0 else 0
    coat = Paint(clothes.coat, COAT_INFRARED)
    parts = []
    for side in (1 - near, near):
        hip, knee, ankle, toe = body.legs[side]
        right = (2 * side - 1) * HIP_M
        trousers = Paint(shaded(clothes.trousers, 1.0 if side == near else 0.8), TROUSERS_INFRARED)
        parts.append(_limb((ankle, toe), right, (0.05, 0.045), SHOE))
        parts.append(_limb((knee, ankle), right, (0.068, 0.05), trousers))
        parts.append(_limb((hip, knee), right, (0.095, 0.068), trousers))
    (_, hip_up), (forward, shoulder_up) = body.legs[0][0], body.arms[0][0]
    hips = [(body.legs[0][0][0], hip_up - coat_m, b, 0.11) for b in (-HIP_M + 0.02, HIP_M - 0.02)]
    shoulders = [(forward, shoulder_up - 0.04, b, 0.085) for b in (-SHOULDER_M + 0.05, SHOULDER_M - 0.05)]
    parts += _arm_shapes(body.arms[1 - near], 1 - near, clothes)
    parts.append(Shape(shoulders + hips, coat))
    parts += _head_shapes(body.head, clothes, eye)
    return parts + _arm_shapes(body.arms[near], near, clothes)


def _arm_shapes(joints: Sequence[tuple[float, float]], side: int, clothes: Clothes) -> list[Shape]:
    """Return the hand and the sleeve of an arm; `side` is 0 on the left and 1 on the right."""
    shoulder, elbow, hand = joints
    right = (2 * side - 1) * (SHOULDER_M + 0.04)
    wrist = tuple(0.75 * h + 0.25 * e for h, e in zip(hand, elbow, strict=True))
    sleeve = Paint(shaded(clothes.coat, 0.82), COAT_INFRARED - 8)
    return [
        Shape([(*hand, right, 0.05)], Paint(clothes.skin, SKIN_INFRARED)),
        _limb((elbow, (wrist[0], wrist[1])), right, (0.055, 0.045), sleeve),
        _limb((shoulder, elbow), right, (0.07, 0.055), sleeve),
    ]


def _head_shapes(head: tuple[float, float], clothes: Clothes, eye: Point) -> list[Shape]:
    """Return neck, hair and face; the hair hides the face of those who walk away."""
    a, y = head
    skin, dark = Paint(clothes.skin, SKIN_INFRARED), Paint(clothes.hair, HAIR_INFRARED)
    neck = Shape([(a - 0.01, y - 0.2, 0.0, 0.055), (a, y - 0.1, 0.0, 0.055)], skin)
    hair = Shape([(a - 0.02, y - 0.02, 0.0, 0.112), (a - 0.02, y + 0.04, 0.0, 0.112)], dark)
    face = Shape([(a + 0.03, y - 0.05, 0.0, 0.088), (a + 0.03, y + 0.01, 0.0, 0.088)], skin)
    return [neck, hair, face] if eye[0] > -0.5 * hypot(eye[0], eye[2]) else [neck, face, hair]
