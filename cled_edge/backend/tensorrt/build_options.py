"""What an engine is built as: precision, picture size, opset and the builder's limits."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cled_edge.bundle.manifest import GraphPrecision, GraphSpec, Manifest
from cled_edge.contract import GraphRole, dimensions
from cled_edge.size import Size, size_text

# What cled_edge/build/plan.py does of its own accord: the layers it pins, the flags it clears. Raise it whenever that
# makes another engine of the same graph and options, so that no engine of an older recipe is taken for a new one.
RECIPE = 1
USUAL_LEVEL = 3  # what every release searches with unless told
# No part of an engine's key: the opset only picks a graph, whose hash is in the key, and the timing cache's file is
# one of many that the same choices can come from.
NOT_IN_KEY = ("timing_cache", "opset")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Profile(_Model):
    """The sizes that one engine takes: it is fastest at `opt`, and refuses what is smaller than `min` or over `max`."""

    min: Size
    opt: Size
    max: Size

    @model_validator(mode="after")
    def _ordered(self) -> "Profile":
        for axis in (0, 1):
            if not 0 < self.min[axis] <= self.opt[axis] <= self.max[axis]:
                raise ValueError(f"profile {self} is not ordered: min <= opt <= max, in height and in width")
        return self

    def __str__(self) -> str:
        return ",".join(size_text(size) for size in (self.min, self.opt, self.max))


class BuildOptions(_Model):
    """How to build an engine. Either `size`, one (height, width) after padding, or `profile`, a range of them.

    precision: of the graphs to take; the engine computes as they are typed. opset: of the graphs; None is the newest
    that the bundle has and the release parses. workspace_mib: scratch memory the builder may plan with; None is all
    of the GPU's. optimization_level: 0 to 5; None is the release's own, 3. timing_cache: None is in the engine folder.
    """

    precision: GraphPrecision = "fp16"
    size: Size | None = None
    profile: Profile | None = None
    opset: int | None = Field(default=None, ge=9)
    workspace_mib: int | None = Field(default=None, ge=1)
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    max_aux_streams: int = Field(default=0, ge=0)
    tf32: bool = False
    timing_cache: Path | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "BuildOptions":
        if (self.size is None) == (self.profile is None):
            raise ValueError("needed either a size or a profile of three")
        return self

    @property
    def sizes(self) -> Profile:
        """The sizes that the engine takes; three times the same if it takes one."""
        if self.profile is not None:
            return self.profile
        assert self.size is not None  # noqa: S101  the validator saw to it
        return Profile(min=self.size, opt=self.size, max=self.size)

    @property
    def tried_sizes(self) -> tuple[Size, ...]:
        """The sizes that an engine is tried at: each of `sizes` once."""
        return tuple(dict.fromkeys((self.sizes.min, self.sizes.opt, self.sizes.max)))

    @property
    def level(self) -> int:
        """How long the builder searches, 0 to 5."""
        return USUAL_LEVEL if self.optimization_level is None else self.optimization_level

    @property
    def heeds_timings(self) -> bool:
        """Whether TensorRT uses a timing cache: at level 0 it takes what runs first, and returns an empty cache."""
        return self.level != 0

    def takes(self, size: Size) -> bool:
        """Say whether the engine takes pictures of this size."""
        sizes = self.sizes
        return all(sizes.min[axis] <= size[axis] <= sizes.max[axis] for axis in (0, 1))

    def key_values(self) -> dict[str, object]:
        """Return what an engine's key depends on, as JSON values: all but `NOT_IN_KEY`, the level as a number."""
        values = self.model_dump(mode="json", exclude=set(NOT_IN_KEY))
        return values | {"optimization_level": self.level}

    def canonical_json(self) -> str:
        """Return `key_values` as the one JSON text they have."""
        return canonical_json(self.key_values())


def canonical_json(values: object) -> str:
    """Return JSON with sorted keys, no spaces and ASCII alone: equal values give equal texts."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fitting_graph(
    manifest: Manifest,
    role: GraphRole,
    options: BuildOptions,
    newest_opset: int | None = None,
    steps: int | None = None,
    maps: tuple[str, ...] = (),
) -> str | None:
    """Return the name of the graph to build or run for `role`, or None if the bundle has none of that kind.

    newest_opset: the newest that the release parses (`Capabilities.newest_opset`), None if it parses them all. Of
    what is left, the newest opset; at that, a graph of just this size before one of any size.
    """
    opsets = {graph.opset for graph in manifest.graphs.values() if newest_opset is None or graph.opset <= newest_opset}
    for opset in sorted(opsets if options.opset is None else opsets & {options.opset}, reverse=True):
        name = manifest.find(role, options.precision, opset, options.size, steps, maps)
        if name is not None:
            return name
    return None


def tensor_shape(spec: GraphSpec, shape: tuple[int | str, ...], size: Size) -> tuple[int, ...]:
    """Return a tensor's shape with numbers for its names. KeyError for a name that no graph of ours has."""
    numbers = dimensions(spec.role, size)
    return tuple(numbers[side] if isinstance(side, str) else side for side in shape)
