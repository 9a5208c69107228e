"""What the releases 8.6, 10.3, 10.16 and 11.4 have in common with the real module: versions, enums, native objects.

What a release lacks raises AttributeError here as there; calls with other parameters raise TypeError. `SEEN` holds the
names that were used, as "Class.name".
"""

import sys
from types import ModuleType
from typing import Any

VERSIONS = {"8.6": "8.6.2", "10.3": "10.3.0", "10.16": "10.16.1.11", "11.4": "11.4.0.106"}
SEEN: set[str] = set()
MAGIC = b"ftrt"


class Member(int):
    """A value of an enum, as pybind has them: a number with a name."""

    name: str
    owner: str

    def __new__(cls, owner: str, name: str, value: int) -> "Member":
        member = super().__new__(cls, value)
        member.owner, member.name = owner, name
        return member

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and (self.owner, self.name) == (other.owner, other.name)

    def __hash__(self) -> int:
        return hash((self.owner, self.name))


class Enum:
    def __init__(self, owner: str, **members: int) -> None:
        self.__dict__["_members"] = {name: Member(owner, name, value) for name, value in members.items()}
        self.__dict__["_owner"] = owner

    def __getattr__(self, name: str) -> Member:
        if name not in self.__dict__["_members"]:
            raise AttributeError(f"type object {self._owner!r} has no attribute {name!r}")
        _note(f"{self._owner}.{name}")
        return self.__dict__["_members"][name]


class Native:
    """An object of C++: its attributes are those of its class, and each that is used is noted."""

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        _note(f"{_owner(type(self), name)}.{name}")
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _note(f"{_owner(type(self), name)}.{name}")
        object.__setattr__(self, name, value)


def _owner(kind: type, name: str) -> str:
    return next((one.__name__ for one in kind.__mro__ if name in vars(one)), kind.__name__)


def _note(name: str) -> None:
    """Remember a public name that the engine package used; the fakes use each other too."""
    if "._" not in name and sys._getframe(2).f_globals["__name__"].startswith("cled_edge."):
        SEEN.add(name)


def typed(value: object, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"incompatible function arguments: {value!r} is no {kind}")


def module_of(release: str) -> ModuleType:
    """Return the module of a release with its version and its enums alone."""
    before_10, before_11 = release == "8.6", release != "11.4"
    trt = ModuleType("tensorrt")
    trt.__version__ = VERSIONS[release]
    creation = {"EXPLICIT_BATCH": 0} if before_11 else {}
    if not before_10:
        creation["STRONGLY_TYPED"] = 1 if before_11 else 0
    trt.NetworkDefinitionCreationFlag = Enum("NetworkDefinitionCreationFlag", **creation)
    weak = {"FP16": 0, "INT8": 1, "OBEY_PRECISION_CONSTRAINTS": 9} if before_11 else {}
    trt.BuilderFlag = Enum("BuilderFlag", TF32=6, **weak)
    trt.MemoryPoolType = Enum("MemoryPoolType", WORKSPACE=0)
    trt.ProfilingVerbosity = Enum("ProfilingVerbosity", LAYER_NAMES_ONLY=0, NONE=1, DETAILED=2)
    trt.HardwareCompatibilityLevel = Enum("HardwareCompatibilityLevel", NONE=0, AMPERE_PLUS=1)
    trt.LayerInformationFormat = Enum("LayerInformationFormat", ONELINE=0, JSON=1)
    layers = {"CONVOLUTION": 0, "SOFTMAX": 6, "ELEMENTWISE": 9, "UNARY": 11, "REDUCE": 14, "NORMALIZATION": 45}
    trt.LayerType = Enum("LayerType", **layers)
    trt.DataType = Enum("DataType", FLOAT=0, HALF=1, INT8=2, INT32=3, BOOL=4, UINT8=5)
    trt.TensorIOMode = Enum("TensorIOMode", NONE=0, INPUT=1, OUTPUT=2)
    trt.UnaryOperation = Enum("UnaryOperation", EXP=0, SQRT=2)
    trt.ElementWiseOperation = Enum("ElementWiseOperation", SUM=0, POW=6)
    return trt
