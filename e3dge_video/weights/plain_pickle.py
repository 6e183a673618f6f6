"""A reader of pickles that calls nothing a file names: it knows only the instructions that describe values.

Python's own unpickler imports and calls whatever a file asks for. This one is a machine of its own, with the few
instructions that checkpoints use; names of classes and functions stay names, and the caller decides what value, if
any, each of them stands for. What a file can make it allocate is bounded by the file's size and `MAX_STEPS`.
"""

from __future__ import annotations

import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from e3dge_video.errors import ModelError

#: Instructions a pickle may have; released checkpoints have less than 100 000.
MAX_STEPS = 300_000
#: Characters of text in one pickle; the longest of released checkpoints are source texts, some 100 kB.
MAX_TEXT = 32_000_000
_MAX_INTEGER_BYTES = 16  # torch's magic number has 10
_MAX_KEY = 2**60  # smaller integers never share a hash

#: Makes the value that a class or function name stands for, from the arguments the file gives.
Builder = Callable[..., Any]


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle refers to; never looked up."""

    text: str


@dataclass(eq=False)
class Record:
    """An object of the file, taken apart.

    Attributes:
        type: Its class, a name only.
        state: What the file would have set on the instance.
    """

    type: str
    state: Any = None


_CONSTANTS: dict[int, Any] = {pickle.NONE[0]: None, pickle.NEWTRUE[0]: True, pickle.NEWFALSE[0]: False}
_EMPTY: dict[int, type] = {
    pickle.EMPTY_DICT[0]: dict,
    pickle.EMPTY_LIST[0]: list,
    pickle.EMPTY_TUPLE[0]: tuple,
    pickle.EMPTY_SET[0]: set,
}
_NUMBERS = {pickle.BININT[0]: "<i", pickle.BININT1[0]: "<B", pickle.BININT2[0]: "<H", pickle.BINFLOAT[0]: ">d"}
_TEXT = {
    pickle.SHORT_BINSTRING[0]: "<B",
    pickle.SHORT_BINUNICODE[0]: "<B",
    pickle.BINUNICODE[0]: "<I",
    pickle.BINUNICODE8[0]: "<Q",
}
_BYTES = {pickle.SHORT_BINBYTES[0]: "<B", pickle.BINBYTES[0]: "<I", pickle.BINBYTES8[0]: "<Q"}
_PUT = {pickle.BINPUT[0]: "<B", pickle.LONG_BINPUT[0]: "<I"}
_GET = {pickle.BINGET[0]: "<B", pickle.LONG_BINGET[0]: "<I"}
_SHORT_TUPLES = {pickle.TUPLE1[0]: 1, pickle.TUPLE2[0]: 2, pickle.TUPLE3[0]: 3}
_SKIPPED = {pickle.PROTO[0]: 1, pickle.FRAME[0]: 8}


def read_pickle(
    data: memoryview,
    source: str,
    builders: Mapping[str, Builder],
    *,
    start: int = 0,
    steps: int = MAX_STEPS,
    persistent: Builder | None = None,
) -> tuple[Any, int]:
    """Read one pickle.

    Args:
        data: The bytes that hold it; byte strings of the result are views into them.
        source: What the bytes are, for messages.
        builders: `module.name` → what makes its value. A name that is not here is refused.
        start: Where the pickle begins.
        steps: Instructions it may have.
        persistent: What makes the value of a persistent identifier; None: refused.

    Returns:
        The value: None, bool, int, float, str, memoryview, tuple, list, dict, set, or what a builder made; and where
        the pickle ends. Containers may share parts and hold themselves, so walk them with a limit.

    Raises:
        ModelError: Damaged, too large, or asks for more than plain values.
    """
    return _Machine(data, source, builders, start, persistent).run(steps)


class _Machine:
    def __init__(
        self, data: memoryview, source: str, builders: Mapping[str, Builder], start: int, persistent: Builder | None
    ) -> None:
        self.data, self.source, self.place = data, source, start
        self.builders, self.persistent = builders, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lies under each mark
        self.memo: dict[int, Any] = {}
        self.text = 0

    def run(self, steps: int) -> tuple[Any, int]:
        for _ in range(steps):
            code = self.take(1)[0]
            if code == pickle.STOP[0]:
                return self.pop(), self.place
            self.step(code)
        self.refuse(f"has more than {steps} pickle instructions, as no checkpoint has; is it what it should be?")

    def step(self, code: int) -> None:
        if code in _CONSTANTS:
            self.stack.append(_CONSTANTS[code])
        elif code in _EMPTY:
            self.stack.append(_EMPTY[code]())
        elif code in _NUMBERS:
            self.stack.append(self.number(_NUMBERS[code]))
        elif code in _TEXT:
            self.stack.append(self.string(int(self.number(_TEXT[code]))))
        elif code in _BYTES:
            self.stack.append(self.take(int(self.number(_BYTES[code]))))
        elif code in _PUT:
            self.memo[int(self.number(_PUT[code]))] = self.top()
        elif code in _GET:
            self.stack.append(self.recall(int(self.number(_GET[code]))))
        elif code in _SHORT_TUPLES:
            self.stack.append(tuple(reversed([self.pop() for _ in range(_SHORT_TUPLES[code])])))
        elif code in _SKIPPED:
            self.take(_SKIPPED[code])
        elif code in _OTHERS:
            _OTHERS[code](self)
        else:
            known = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
            if code not in known:
                self.damaged()
            self.refuse(
                f"uses the pickle instruction {known[code]}, which no checkpoint needs; do not open it otherwise"
            )

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.top()

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        if not self.below:
            self.damaged()
        items, self.stack = self.stack, self.below.pop()
        return items

    def long_integer(self) -> None:
        count = self.take(1)[0]
        if count > _MAX_INTEGER_BYTES:
            self.refuse("holds an integer of more digits than any checkpoint has; is it what it should be?")
        self.stack.append(int.from_bytes(self.take(count), "little", signed=True))

    def long_tuple(self) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def append(self) -> None:
        self.extend([self.pop()])

    def appends(self) -> None:
        items = self.since_mark()
        self.extend(items)

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def add_items(self) -> None:
        items = self.since_mark()
        self.top(set).update(map(self.key, items))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.top(dict)[self.key(key)] = value

    def set_items(self) -> None:
        items = self.since_mark()
        if len(items) % 2:
            self.damaged()
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self.key(key)] = value

    def key(self, value: Any) -> Any:
        # Hashing a tuple descends into it without a limit, and large integers can be chosen to collide.
        if not isinstance(value, str) and not (isinstance(value, int) and abs(value) < _MAX_KEY):
            self.refuse("has a table with keys that are neither text nor integers; is it what it should be?")
        return value

    def named(self) -> None:
        module, name = self.line(), self.line()
        self.name(f"{module}.{name}")

    def named_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self.damaged()
        self.name(f"{module}.{name}")

    def name(self, text: str) -> None:
        if text not in self.builders:
            self.refuse(
                f"refers to {text[:80]!r}, which is no part of such a checkpoint and may be an attempt to run code; "
                "do not open it with other programs, get it from its publisher again"
            )
        self.stack.append(Name(text))

    def build(self) -> None:
        """Both `REDUCE` and `NEWOBJ`: a name and its arguments become a value."""
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            self.damaged()
        try:
            self.stack.append(self.builders[name.text](*arguments))
        except (TypeError, ValueError) as error:
            self.refuse(f"{name.text} has arguments that it cannot have ({error}); the file is damaged")

    def set_state(self) -> None:
        state = self.pop()
        if isinstance(self.top(), dict):
            return  # a table with attributes, such as torch's numbers of versions; nothing needs them
        self.top(Record).state = state

    def persistent_value(self) -> None:
        if self.persistent is None:
            self.refuse("refers to data outside of itself; is it what it should be?")
        self.stack.append(self.persistent(self.pop()))

    def pop(self) -> Any:
        if not self.stack:
            self.damaged()
        return self.stack.pop()

    def top(self, kind: type = object) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            self.damaged()
        return self.stack[-1]

    def recall(self, number: int) -> Any:
        if number not in self.memo:
            self.damaged()
        return self.memo[number]

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.place:
            self.refuse("ends in the middle; the download is not complete, get it again")
        taken = self.data[self.place : self.place + count]
        self.place += count
        return taken

    def number(self, form: str) -> int | float:
        value: int | float = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def string(self, count: int) -> str:
        self.text += count
        if self.text > MAX_TEXT:
            self.refuse(f"has more than {MAX_TEXT} characters of text, as no checkpoint has; is it what it should be?")
        try:
            return str(self.take(count), "utf-8")
        except UnicodeDecodeError:
            self.damaged()

    def line(self) -> str:
        text = bytes(self.data[self.place : self.place + 256])
        end = text.find(b"\n")
        if end < 0:
            self.damaged()
        self.place += end + 1
        return text[:end].decode("utf-8", "replace")

    def damaged(self) -> NoReturn:
        self.refuse(f"is no valid pickle (at byte {self.place}); the file is damaged or something else, get it again")

    def refuse(self, reason: str) -> NoReturn:
        raise ModelError(f"{self.source}: {reason}")


_OTHERS: dict[int, Callable[[_Machine], None]] = {
    pickle.MEMOIZE[0]: _Machine.memoize,
    pickle.MARK[0]: _Machine.mark,
    pickle.LONG1[0]: _Machine.long_integer,
    pickle.TUPLE[0]: _Machine.long_tuple,
    pickle.APPEND[0]: _Machine.append,
    pickle.APPENDS[0]: _Machine.appends,
    pickle.ADDITEMS[0]: _Machine.add_items,
    pickle.SETITEM[0]: _Machine.set_item,
    pickle.SETITEMS[0]: _Machine.set_items,
    pickle.GLOBAL[0]: _Machine.named,
    pickle.STACK_GLOBAL[0]: _Machine.named_from_stack,
    pickle.REDUCE[0]: _Machine.build,
    pickle.NEWOBJ[0]: _Machine.build,
    pickle.BUILD[0]: _Machine.set_state,
    pickle.BINPERSID[0]: _Machine.persistent_value,
}
