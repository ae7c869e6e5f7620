"""Pickles of checkpoints, read by a small machine of our own in which nothing can be called.

torch describes tensors by pickles. Python's own unpickler runs what they ask for, lets BUILD rewrite objects that were
checked before, and gives an index of 500 bytes three gigabytes of memo. This machine knows the opcodes that describe
data and makes five things of them: numbers and texts, lists, tuples, dictionaries, and immutable descriptions of
tensors. Every other name is refused, before it is looked up. What a pickle may cost is limited by its bytes and by the
number of its opcodes, so that it stays below 500 MB whatever it says.
"""

import struct
from dataclasses import dataclass

from sonic_ms.errors import WeightsError, printable
from sonic_ms.files.weights import MAX_NAME, sound_shape

# torch's storage classes -> safetensors dtype
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",  # what fp8 tensors lie in; their type is named, and refused, after it
}
MAX_BYTES = 32 << 20  # descriptions of a few thousand tensors take a few hundred kilobytes
MAX_STEPS = 2_000_000  # opcodes; a tensor takes about 40
MAX_LINE = 1000  # bytes of a name
MAX_INTEGER = 255  # bytes; the largest known are the 16 of a random generator's state
MAX_COUNT = 1 << 40  # elements of a storage


class Damaged(Exception):
    """A pickle that does not describe anything; `load` names the file."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements in the file: key of the storage, safetensors dtype, number of elements."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor described by a pickle: a strided view of a storage. Offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple
    stride: tuple


class ScriptObject:
    """An object of a TorchScript archive, as the dictionary of its attributes."""

    __slots__ = ("state",)

    def __init__(self):
        self.state = {}


class StateDict(dict):
    """Stands for collections.OrderedDict; torch hangs version numbers on it, which are dropped."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Name:
    """An allowed global name. It stands for itself: what REDUCE makes of it is in `Machine._reduce`."""

    module: str
    name: str


TENSOR, PARAMETER = Name("torch._utils", "_rebuild_tensor_v2"), Name("torch._utils", "_rebuild_parameter")
TYPED = Name("torch._utils", "_rebuild_tensor_v3")  # a type without a storage class follows, which is refused by name
ORDERED, TAG = Name("collections", "OrderedDict"), Name("torch.jit._pickle", "restore_type_tag")
# TorchScript marks the element types of lists with these.
LISTS = tuple(Name("torch.jit._pickle", f"build_{kind}list") for kind in ("int", "double", "bool", "tensor"))
SCRIPT = Name("__torch__", "")  # any class of a TorchScript archive
ALLOWED = {(name.module, name.name): name for name in (TENSOR, PARAMETER, TYPED, ORDERED, TAG, *LISTS)}


def reason(module, name):
    """Why a name is refused, and what to do about it."""
    if module == "torch" and name.startswith(("float8", "float4")):
        return "the tensors are 8-bit floats (fp8) or smaller, which lost the weights' precision; get the fp16 file"
    if name.startswith(("QInt", "QUInt")) or "qtensor" in name:
        return "the tensors are quantised; get the fp16 or fp32 file"
    if module.startswith(("torch.nn.", "__main__")):
        return "this is a whole model, not its weights; save its state_dict() instead"
    return "a checkpoint may hold tensors and plain containers only"


def rebuild_tensor(storage, offset, shape, stride, *_):
    """torch._utils._rebuild_tensor_v2, as a description. Refuses a view that leaves its storage or repeats it."""
    if (
        not isinstance(storage, Storage)
        or not isinstance(shape, (tuple, list))
        or not isinstance(stride, (tuple, list))
    ):
        raise Damaged("a tensor without a storage, shape or strides")
    if len(shape) != len(stride):
        raise Damaged("a tensor whose shape and strides differ in length")
    count = sound_shape(shape)
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in (offset, *stride)):
        raise Damaged("a tensor with a negative, huge or non-integer offset or stride")
    # The step along an axis of one element says nothing, and torch writes any number there.
    stride = tuple(step if side > 1 else 0 for side, step in zip(shape, stride))
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride)) if count else offset
    if count > storage.count or (count and last >= storage.count):
        raise Damaged(f"a tensor of {count} elements in a storage of {storage.count}")
    return TensorEntry(storage, offset, tuple(shape), stride)


def sound_key(key):
    """Whether a dictionary may have this key: cheap to hash and to write down.

    Integers of 60 bits and more can be made to hash alike, and a tuple of tuples can hold itself many times.
    """
    if type(key) is tuple:
        short = all(type(part) is not str or len(part) <= MAX_NAME for part in key)
        return len(key) <= 8 and short and all(type(part) is not tuple and sound_key(part) for part in key)
    return key is None or type(key) in (str, float, bool) or (type(key) is int and abs(key) < 1 << 60)


class Machine:
    """Runs one pickle from a file that is open for reading, which is left behind the pickle's end."""

    def __init__(self, file, script):
        self._file, self._script = file, script
        self._left, self._steps = MAX_BYTES, MAX_STEPS
        self._stack, self._marks, self._memo = [], [], {}

    def run(self):
        """The value of the pickle."""
        while True:
            self._spend(1)
            opcode = self._take(1)
            if opcode == b".":
                return self._pop()
            step = STEPS.get(opcode)
            if step is None:
                raise Damaged(f"the opcode {opcode!r}, which no checkpoint needs")
            step(self)

    def _spend(self, steps):
        self._steps -= steps
        if self._steps < 0:
            raise Damaged(f"more than {MAX_STEPS} opcodes")

    def _take(self, size):
        self._left -= size
        if self._left < 0:
            raise Damaged(f"more than {MAX_BYTES} bytes")
        data = self._file.read(size)
        if len(data) != size:
            raise Damaged("it ends early")
        return data

    def _number(self, form):
        return struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))[0]

    def _line(self):
        line = self._file.readline(MAX_LINE)
        self._left -= len(line)
        if not line.endswith(b"\n") or self._left < 0:
            raise Damaged("a line without an end")
        return line[:-1].decode("utf-8")

    # The stack. A mark hides what lies below it.

    def _push(self, value):
        self._stack.append(value)

    def _pop(self):
        self._top()
        return self._stack.pop()

    def _top(self):
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Damaged("it takes more from its stack than it put there")
        return self._stack[-1]

    def _mark(self):
        self._marks.append(len(self._stack))

    def _pop_mark(self):
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _drop(self):
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    # Texts, numbers, containers

    def _text(self, size):
        self._push(self._take(size).decode("utf-8"))

    def _integer(self, size):
        if not 0 <= size <= MAX_INTEGER:
            raise Damaged(f"an integer of {size} bytes; at most {MAX_INTEGER}")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def _decimal(self):
        text = self._line()
        self._push({"00": False, "01": True}[text] if text in ("00", "01") else int(text.rstrip("L")))

    def _tuple(self, size):
        items = [self._pop() for _ in range(size)]
        self._push(tuple(reversed(items)))

    def _append(self, items):
        target = self._top()
        if type(target) is not list:
            raise Damaged(f"elements for a {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items):
        self._fill(self._top(), items[::2], items[1::2])

    @staticmethod
    def _fill(target, keys, values):
        if not isinstance(target, dict) or len(keys) != len(values):
            raise Damaged(f"pairs for a {type(target).__name__}")
        for key in keys:
            if not sound_key(key):
                raise Damaged(f"a dictionary key of type {type(key).__name__}")
        target.update(zip(keys, values))

    # Names and objects

    def _global(self, module, name):
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if self._script and module.split(".")[0] == "__torch__":
            return SCRIPT
        if (module, name) not in ALLOWED:
            raise WeightsError(f"refused {printable(module)}.{printable(name)}: {reason(module, name)}")
        return ALLOWED[module, name]

    def _stack_global(self):
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise Damaged("a name that is not a text")
        self._push(self._global(module, name))

    def _instance(self):
        module, name = self._line(), self._line()
        self._push(self._made(self._global(module, name), self._pop_mark()))

    def _object(self):
        name, *arguments = self._pop_mark()
        self._push(self._made(name, arguments))

    def _reduce(self):
        arguments, name = self._pop(), self._pop()
        if type(arguments) is not tuple:
            raise Damaged("arguments that are not a tuple")
        self._push(self._made(name, arguments))

    def _made(self, name, arguments):
        """What an allowed name makes of its arguments."""
        if name == SCRIPT:
            return ScriptObject()
        if name == TENSOR:
            return rebuild_tensor(*arguments)
        if name in (PARAMETER, TAG) and arguments:
            return arguments[0]
        if name == ORDERED:
            pairs = arguments[0] if arguments else []
            if type(pairs) is not list or not all(type(pair) in (tuple, list) and len(pair) == 2 for pair in pairs):
                raise Damaged("a dictionary made of something else than pairs")
            self._spend(len(pairs))  # the only copy that one opcode can make
            target = StateDict()
            self._fill(target, [key for key, _ in pairs], [value for _, value in pairs])
            return target
        if name in LISTS and len(arguments) == 1 and type(arguments[0]) in (list, tuple):
            return arguments[0]
        raise Damaged(f"a call of {name.name if isinstance(name, Name) else type(name).__name__}")

    def _build(self):
        """State for the object on top. Descriptions are immutable, and of containers only a script's object has any."""
        state, target = self._pop(), self._top()
        if isinstance(target, ScriptObject):
            target.state = state if isinstance(state, dict) else {}
        elif not isinstance(target, StateDict):
            raise Damaged(f"state for a {type(target).__name__}")

    def _storage(self):
        identity = self._pop()
        if type(identity) is not tuple or len(identity) < 5:
            raise Damaged("a storage without its five parts")
        kind, dtype, key, _device, count, *view = identity
        known = type(dtype) is str and dtype in STORAGES.values()
        if kind != "storage" or not known or any(part is not None for part in view):
            raise Damaged("an unknown kind of storage")
        if type(count) is not int or not 0 <= count <= MAX_COUNT or type(key) not in (str, int) or not sound_key(key):
            raise Damaged("a storage of negative or huge size, or without a key")
        self._push(Storage(printable(str(key)), dtype, count))

    # The memo is a dictionary: an index takes the memory of one entry, however large it is.

    def _keep(self, index):
        self._memo[index] = self._top()

    def _get(self, index):
        if index not in self._memo:
            raise Damaged(f"it asks for value {index} of its memo, which was never kept")
        self._push(self._memo[index])


STEPS = {
    b"\x80": lambda m: m._take(1),  # PROTO
    b"\x95": lambda m: m._take(8),  # FRAME
    b"(": Machine._mark,
    b"0": Machine._drop,
    b"1": lambda m: m._pop_mark() and None,
    b"2": lambda m: m._push(m._top()),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"I": Machine._decimal,
    b"L": Machine._decimal,
    b"J": lambda m: m._push(m._number("i")),
    b"K": lambda m: m._push(m._number("B")),
    b"M": lambda m: m._push(m._number("H")),
    b"\x8a": lambda m: m._integer(m._number("B")),
    b"\x8b": lambda m: m._integer(m._number("i")),
    b"F": lambda m: m._push(float(m._line())),
    b"G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    b"V": lambda m: m._push(m._line()),
    b"X": lambda m: m._text(m._number("I")),
    b"\x8c": lambda m: m._text(m._number("B")),
    b"\x8d": lambda m: m._text(m._number("Q")),
    b"T": lambda m: m._text(m._number("I")),
    b"U": lambda m: m._text(m._number("B")),
    b"B": lambda m: m._push(m._take(m._number("I"))),
    b"C": lambda m: m._push(m._take(m._number("B"))),
    b"\x8e": lambda m: m._push(m._take(m._number("Q"))),
    b"]": lambda m: m._push([]),
    b"l": lambda m: m._push(m._pop_mark()),
    b"a": lambda m: m._append([m._pop()]),
    b"e": lambda m: m._append(m._pop_mark()),
    b")": lambda m: m._push(()),
    b"t": lambda m: m._push(tuple(m._pop_mark())),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"}": lambda m: m._push({}),
    b"d": lambda m: (items := m._pop_mark(), m._push({}), m._set_items(items)),
    b"s": lambda m: (value := m._pop(), key := m._pop(), m._set_items([key, value])),
    b"u": lambda m: m._set_items(m._pop_mark()),
    b"\x8f": lambda m: m._push([]),  # sets become lists: nothing in them is ever looked up
    b"\x90": lambda m: m._append(m._pop_mark()),
    b"\x91": lambda m: m._push(m._pop_mark()),
    b"c": lambda m: m._push(m._global(m._line(), m._line())),
    b"\x93": Machine._stack_global,
    b"i": Machine._instance,
    b"o": Machine._object,
    b"R": Machine._reduce,
    b"\x81": Machine._reduce,  # NEWOBJ
    b"b": Machine._build,
    b"Q": Machine._storage,
    b"p": lambda m: m._keep(int(m._line())),
    b"q": lambda m: m._keep(m._number("B")),
    b"r": lambda m: m._keep(m._number("I")),
    b"\x94": lambda m: m._keep(len(m._memo)),
    b"g": lambda m: m._get(int(m._line())),
    b"h": lambda m: m._get(m._number("B")),
    b"j": lambda m: m._get(m._number("I")),
}


def load(file, path, script=False):
    """The next pickle of `file`; every way in which one can be broken becomes a WeightsError that names `path`."""
    try:
        return Machine(file, script).run()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except (Damaged, LookupError, ValueError, TypeError, OverflowError, MemoryError, OSError) as error:
        raise WeightsError(f"{path}: the pickle is damaged: {error or type(error).__name__}") from error
