"""A pickle reader that calls nothing: calls are recorded, not made.

Python's own unpickler runs whatever functions a pickle names. This one carries out the same
instructions on data alone: a name becomes a :class:`Global`, a call a :class:`RecordedCall` of what
would have been called, and neither imports nor runs anything. What they mean is decided by
:mod:`converters.states.checkpoint.tensors`, which knows the few calls that stand for tensors.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import CheckpointError, damage
from .mapped import Window
from .meter import Meter

_LARGEST_INDEX = 1 << 32
_LONGEST_NAME = 1000

# Nothing of these is ever run; a file that names them was made to do harm, and the user should
# know. Modules: the first part of a dotted name and, for unambiguous names, any other part.
_HARMFUL_ANYWHERE = {"os", "posix", "nt", "sys", "subprocess", "ctypes", "pty"}
_HARMFUL_ROOTS = {
    "_pickle", "asyncio", "bdb", "cProfile", "cloudpickle", "commands", "dill", "http",
    "importlib", "joblib", "marshal", "multiprocessing", "pdb", "pickle", "pip", "requests",
    "runpy", "shutil", "smtplib", "socket", "timeit", "urllib", "webbrowser",
}  # fmt: skip
_HARMFUL_NAMES = {
    "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "execfile", "globals",
    "input", "open", "setattr", "vars",
}  # fmt: skip
_HARMFUL_FUNCTIONS = {
    "torch.load", "torch.serialization.load", "torch.hub.load", "torch.jit.load",
    "torch.jit._serialization.load", "numpy.load", "numpy.lib._npyio_impl.load", "io.open",
    "_io.open",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function by name; nothing is imported.

    Attributes:
        path: module and name, joined by a dot.
    """

    path: str


@dataclass(eq=False, slots=True)
class RecordedCall:
    """A recorded call, and what the pickle would have done to its result.

    Attributes:
        function: a :class:`Global`, or whatever stood in its place.
        arguments: of the call.
        state: attributes set afterwards.
        items: entries set afterwards, as in a dict.
        members: elements appended afterwards, as to a list.
    """

    function: object
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[str, Any] = field(default_factory=dict)
    members: list[Any] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Dotted name of the function."""
        return self.function.path if isinstance(self.function, Global) else ""


PersistentLoad = Callable[[Any], Any]


def no_persistent(identifier: object) -> object:
    """For pickles without references to storages.

    Raises:
        CheckpointError: always.
    """
    raise CheckpointError(
        "the pickle refers to data outside of it, but the file has none; save it again"
    )


def read_pickle(
    stream: Window, meter: Meter, persistent_load: PersistentLoad = no_persistent
) -> Any:
    """Reads one pickle; the stream then stands behind it.

    Dicts keep entries whose keys are strings or small integers (as strings): others name no
    weights. Sets become lists.

    Args:
        stream: where the pickle starts.
        meter: of the file.
        persistent_load: what stands for a reference to data outside of the pickle.

    Returns:
        Plain values, dicts, lists, tuples, :class:`Global` and :class:`RecordedCall`.

    Raises:
        CheckpointError: if the pickle is truncated, damaged, too large, or names functions that
            only an attack would.
    """
    machine = _Machine(persistent_load)
    with damage("the pickle"):
        while (code := stream.byte()) != _STOP:
            meter.build()
            read, step = _INSTRUCTIONS[code]
            step(machine, None if read is None else read(stream))
        return machine.pop()


def refuse_harmful(path: str) -> None:
    """Refuses names that checkpoints have no use for.

    Raises:
        CheckpointError: if the name is that of a function an attack would call.
    """
    parts = path.split(".")
    builtin = parts[0] in ("builtins", "__builtin__") and parts[-1] in _HARMFUL_NAMES
    if (
        builtin
        or parts[0] in _HARMFUL_ROOTS
        or path in _HARMFUL_FUNCTIONS
        or not _HARMFUL_ANYWHERE.isdisjoint(parts[:-1])
    ):
        raise CheckpointError(
            f"the file asks for {path[:80]} to be run on loading, as an attack would; nothing was "
            "run. Do not open it with torch.load or pickle; get the weights from a source you trust"
        )
    if path.startswith("torch.fx.") and "graph_module" in path:
        raise CheckpointError(
            "the file holds a torch.fx GraphModule, which carries its code as text to be run on "
            "loading; nothing was run. Save the state dict instead: "
            "torch.save(module.state_dict(), path)"
        )


class _Machine:
    """The stack, the marks and the memo of a pickle."""

    def __init__(self, persistent_load: PersistentLoad) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.persistent_load = persistent_load

    def pop(self) -> Any:
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def collect_last(self, count: int) -> None:
        self.stack[-count:] = [tuple(self._last(count))]

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        return self.stack[-count:]

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop_one(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def memoize(self, index: int | None) -> None:
        index = len(self.memo) if index is None else index
        if not 0 <= index < _LARGEST_INDEX:
            raise IndexError("a memo index out of range")
        self.memo[index] = self.stack[-1]

    def collect(self, kind: type) -> None:
        items = self.since_mark()
        self.stack.append(kind(items))

    def collect_dict(self, _: Any) -> None:
        items, result = self.since_mark(), dict[str, Any]()
        _set_items(result, items)
        self.stack.append(result)

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, RecordedCall):
            target.members += items
        elif isinstance(target, list):
            target += items
        else:
            raise TypeError(f"appends to a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (RecordedCall, dict)):
            raise TypeError(f"sets items of a {type(target).__name__}")
        _set_items(target.items if isinstance(target, RecordedCall) else target, items)

    def set_last_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def name(self, module: object, name: object) -> Global:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name is not a string")
        if len(module) + len(name) > _LONGEST_NAME:  # a file may put long texts together at will
            raise CheckpointError(f"damaged: a name of {len(module) + len(name):,} letters")
        refuse_harmful(path := f"{module}.{name}")
        return Global(path)

    def stack_name(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(self.name(module, name))

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise TypeError("a call's arguments are not a tuple")
        if not isinstance(function, (Global, RecordedCall)):
            raise TypeError(f"calls a {type(function).__name__}")
        self.stack.append(RecordedCall(function, arguments))

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        self.call(function, arguments)

    def reduce_named(self, _: Any) -> None:
        self.pop()  # keyword arguments
        self.reduce(None)

    def call_since_mark(self, name: str | None) -> None:
        items = self.since_mark()
        if name is None:
            self.call(items[0], tuple(items[1:]))
        else:
            self.call(self.name(*name.split(" ", 1)), tuple(items))

    def build(self, _: Any) -> None:
        state, target = self.pop(), self.stack[-1]
        if not isinstance(target, RecordedCall):
            raise TypeError(f"sets the state of a {type(target).__name__}")
        target.state = state

    def refer(self, identifier: Any) -> None:
        self.stack.append(self.persistent_load(identifier))


def _set_items(target: dict[str, Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str):
            target[key] = value
        elif isinstance(key, int) and abs(key) < _LARGEST_INDEX:
            target[str(key)] = value


_Step = Callable[[_Machine, Any], object]
_PUSH = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip
_STEPS: dict[str, _Step] = {
    **dict.fromkeys(_PUSH, _Machine.push),
    "NONE": lambda m, a: m.push(None),
    "NEWTRUE": lambda m, a: m.push(True),
    "NEWFALSE": lambda m, a: m.push(False),
    "EMPTY_LIST": lambda m, a: m.push([]),
    "EMPTY_SET": lambda m, a: m.push([]),
    "EMPTY_DICT": lambda m, a: m.push({}),
    "EMPTY_TUPLE": lambda m, a: m.push(()),
    "TUPLE1": lambda m, a: m.collect_last(1),
    "TUPLE2": lambda m, a: m.collect_last(2),
    "TUPLE3": lambda m, a: m.collect_last(3),
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": _Machine.mark,
    "POP": _Machine.pop_one,
    "POP_MARK": lambda m, a: m.since_mark(),
    "DUP": lambda m, a: m.stack.append(m.stack[-1]),
    "PUT": _Machine.memoize,
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "MEMOIZE": _Machine.memoize,
    "GET": lambda m, a: m.stack.append(m.memo[a]),
    "BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LIST": lambda m, a: m.collect(list),
    "TUPLE": lambda m, a: m.collect(tuple),
    "FROZENSET": lambda m, a: m.collect(list),
    "DICT": _Machine.collect_dict,
    "APPEND": lambda m, a: m.append([m.pop()]),
    "APPENDS": lambda m, a: m.append(m.since_mark()),
    "ADDITEMS": lambda m, a: m.append(m.since_mark()),
    "SETITEM": lambda m, a: m.set_last_item(),
    "SETITEMS": lambda m, a: m.set_items(m.since_mark()),
    "GLOBAL": lambda m, a: m.stack.append(m.name(*a.split(" ", 1))),
    "STACK_GLOBAL": _Machine.stack_name,
    "INST": _Machine.call_since_mark,
    "OBJ": _Machine.call_since_mark,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.reduce_named,
    "BUILD": _Machine.build,
    "PERSID": _Machine.refer,
    "BINPERSID": lambda m, a: m.refer(m.pop()),
}


def _useless(name: str) -> _Step:
    def step(_: _Machine, __: Any) -> None:
        raise CheckpointError(
            f"its pickle has the instruction {name}, which checkpoints have no use for; save the "
            "state dict alone"
        )

    return step


_STOP = ord(".")
_INSTRUCTIONS: dict[int, tuple[Callable[[Any], Any] | None, _Step]] = {
    ord(opcode.code): (
        None if opcode.arg is None else opcode.arg.reader,
        _STEPS.get(opcode.name) or _useless(opcode.name),
    )
    for opcode in pickletools.opcodes
}
