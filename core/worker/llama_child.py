"""llama.cpp's own library, out of a prebuilt wheel. A program: it runs in a child process.

    python llama_child.py LIBRARIES BACKEND check
    python llama_child.py LIBRARIES BACKEND quantize INPUT OUTPUT TYPE THREADS [MATRIX]
    python llama_child.py LIBRARIES BACKEND matrix MODEL ROWS OUTPUT THREADS

`quantize`: TYPE is llama.cpp's number of a file type (`enum llama_ftype`). `matrix`: ROWS is a JSON file of rows, each a list
of token ids; OUTPUT is an importance matrix in the form of llama.cpp's llama-imatrix, which MATRIX names again.

Exit code 0: done, 2: the library does not load here. Native code that crashes takes only this process with it.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
from pathlib import Path
from typing import Any

_PIECE = 256
"""Tokens at once. All of them are outputs, each as wide as the vocabulary, or the last layer would see only the last."""


class _Quantizing(ctypes.Structure):
    """The head of `llama_model_quantize_params`; the rest is kept as the library's defaults filled it."""

    _fields_ = [
        ("threads", ctypes.c_int32),
        ("file_type", ctypes.c_int32),
        ("types", ctypes.c_int32 * 2),
        ("switches", ctypes.c_uint8 * 8),
        ("matrix", ctypes.c_void_p),
        ("rest", ctypes.c_uint64 * 28),
    ]


class _Importance(ctypes.Structure):
    """`llama_model_imatrix_data`; one without a name ends the list."""

    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Loading(ctypes.Structure):
    """`llama_model_params`, kept as the library's defaults filled it."""

    _fields_ = [("all", ctypes.c_uint64 * 32)]


class _Context(ctypes.Structure):
    """The head of `llama_context_params`; the rest is kept as the library's defaults filled it."""

    _fields_ = [
        ("context", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
        ("part", ctypes.c_uint32),
        ("sequences", ctypes.c_uint32),
        ("snapshots", ctypes.c_uint32),
        ("outputs", ctypes.c_uint32),
        ("outputs_of_one", ctypes.c_uint32),
        ("threads", ctypes.c_int32),
        ("batch_threads", ctypes.c_int32),
        ("kinds", ctypes.c_int32 * 5),
        ("rope", ctypes.c_float * 6),
        ("original_context", ctypes.c_uint32),
        ("defragment", ctypes.c_float),
        ("on_tensor", ctypes.c_void_p),
        ("on_tensor_data", ctypes.c_void_p),
        ("cache_types", ctypes.c_int32 * 2),
        ("rest", ctypes.c_uint64 * 32),
    ]


class _Batch(ctypes.Structure):
    """`llama_batch`."""

    kept: Any
    _fields_ = [
        ("count", ctypes.c_int32),
        ("tokens", ctypes.c_void_p),
        ("embeddings", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("sequence_counts", ctypes.c_void_p),
        ("sequences", ctypes.c_void_p),
        ("outputs", ctypes.c_void_p),
    ]


class _Tensor(ctypes.Structure):
    """`ggml_tensor`."""


_Tensor._fields_ = [
    ("type", ctypes.c_int32),
    ("buffer", ctypes.c_void_p),
    ("shape", ctypes.c_int64 * 4),
    ("strides", ctypes.c_size_t * 4),
    ("operation", ctypes.c_int32),
    ("parameters", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("sources", ctypes.POINTER(_Tensor) * 10),
    ("view", ctypes.c_void_p),
    ("view_offset", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


class Unloadable(Exception):
    """The library is not to be used on this machine. The message says why."""


class Library:
    """llama.cpp's libraries, loaded. Raises Unloadable."""

    def __init__(self, folder: Path, backend: Path) -> None:
        try:
            for name in ("libgomp.so.1", "libggml-base.so.0"):
                if (folder / name).exists():
                    self.base = ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
            ggml = ctypes.CDLL(str(folder / "libggml.so.0"), mode=ctypes.RTLD_GLOBAL)
            self.llama = llama = ctypes.CDLL(str(folder / "libllama.so.0"))
            ggml.ggml_backend_load.restype = ctypes.c_void_p
            ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
            llama.llama_model_quantize_default_params.restype = _Quantizing
            llama.llama_model_quantize.argtypes = [
                ctypes.c_char_p,
                ctypes.c_char_p,
                ctypes.POINTER(_Quantizing),
            ]
            llama.llama_model_quantize.restype = ctypes.c_uint32
            llama.llama_model_default_params.restype = _Loading
            llama.llama_context_default_params.restype = _Context
            for name, taken, given in (
                ("llama_model_load_from_file", (ctypes.c_char_p, _Loading), ctypes.c_void_p),
                ("llama_init_from_model", (ctypes.c_void_p, _Context), ctypes.c_void_p),
                ("llama_get_memory", (ctypes.c_void_p,), ctypes.c_void_p),
                ("llama_memory_clear", (ctypes.c_void_p, ctypes.c_bool), None),
                ("llama_decode", (ctypes.c_void_p, _Batch), ctypes.c_int32),
            ):
                function = getattr(llama, name)
                function.argtypes, function.restype = taken, given
            loaded = ggml.ggml_backend_load(str(backend).encode())
        except (OSError, AttributeError) as error:
            raise Unloadable(f"llama.cpp's library does not load: {error}") from error
        if not loaded:
            raise Unloadable("llama.cpp's CPU backend does not load")
        quantizing, context = self.quantizing(), self.context()
        # The structures are those of the pinned library: another one's defaults stand elsewhere.
        if list(context.cache_types) != [1, 1] or context.defragment != -1.0 or context.on_tensor:
            raise Unloadable("llama.cpp's library is another one than the pinned one")
        if quantizing.matrix or list(quantizing.switches) != [0, 1, 0, 0, 0, 0, 0, 0]:
            raise Unloadable("llama.cpp's library is another one than the pinned one")

    def quantizing(self) -> _Quantizing:
        return self.llama.llama_model_quantize_default_params()

    def context(self) -> _Context:
        return self.llama.llama_context_default_params()


def quantize(library: Library, source: str, target: str, kind: int, threads: int, matrix: str) -> int:
    parameters = library.quantizing()
    parameters.threads, parameters.file_type = threads, kind
    kept: list[Any] = []
    if matrix:
        weights = _read(matrix)
        listed = (_Importance * (len(weights) + 1))()
        for at, (name, values) in enumerate(weights.items()):
            listed[at] = _Importance(name.encode(), values.ctypes.data, values.size)
        kept = [weights, listed]
        parameters.matrix = ctypes.addressof(listed)
    failed = library.llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
    kept.clear()
    return 1 if failed else 0


def _read(matrix: str) -> dict[str, Any]:
    """For each tensor, the mean square of each of its inputs, expert after expert; 1 where an expert was never asked."""
    import numpy as np
    from gguf import GGUFReader

    tensors = {tensor.name: tensor.data for tensor in GGUFReader(matrix).tensors}
    found: dict[str, Any] = {}
    for name, sums in tensors.items():
        if name.endswith(".in_sum2"):
            name = name.removesuffix(".in_sum2")
            counts = np.reshape(tensors[f"{name}.counts"], (-1, 1))
            sums = np.reshape(sums, (len(counts), -1))
            means = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
            found[name] = np.ascontiguousarray(means.ravel(), np.float32)
    return found


class Importance:
    """Sums of squares of what goes into each weight of the blocks, as the model reads rows."""

    def __init__(self, library: Library) -> None:
        import numpy as np

        self.numpy = np
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}
        self.failure: Exception | None = None
        base = library.base
        base.ggml_op_name.argtypes, base.ggml_op_name.restype = [ctypes.c_int32], ctypes.c_char_p
        names = {base.ggml_op_name(number): number for number in range(64)}
        self._multiply, self._route = names[b"MUL_MAT"], names[b"MUL_MAT_ID"]
        self.callback = ctypes.CFUNCTYPE(
            ctypes.c_bool, ctypes.POINTER(_Tensor), ctypes.c_bool, ctypes.c_void_p
        )(self._on_tensor)

    def _on_tensor(self, tensor: Any, ask: bool, _data: Any) -> bool:
        """llama.cpp asks which results it shall stop at, and stops there. What is returned then is whether it goes on."""
        result = tensor.contents
        if result.operation not in (self._multiply, self._route):
            return not ask
        weight, inputs = result.sources[0].contents, result.sources[1].contents
        name = weight.name.decode("utf-8", "replace")
        wanted = name.startswith("blk.") and name.endswith(".weight") and inputs.type == 0
        if ask or not wanted:
            return wanted or not ask
        try:
            self._add(name, weight, inputs, result)
        except Exception as error:  # one must not pass through C
            self.failure = error
            return False
        return True

    def _add(self, name: str, weight: _Tensor, inputs: _Tensor, result: _Tensor) -> None:
        np = self.numpy
        values = self._view(inputs, np.float32)  # (…, …, rows, inputs)
        width, matrices = values.shape[-1], weight.shape[2] * weight.shape[3]
        if name not in self.sums:
            self.sums[name] = np.zeros((matrices, width))
            self.counts[name] = np.zeros(matrices)
        sums, counts = self.sums[name], self.counts[name]
        if result.operation == self._route:
            chosen = self._view(result.sources[2].contents, np.int32)[0, 0]  # (tokens, experts of each)
            squares = np.square(values[0])  # (tokens, 1 or experts of each, inputs)
            squares = np.broadcast_to(squares, (*chosen.shape, width)).reshape(-1, width)
            np.add.at(sums, chosen.ravel(), squares)
            np.add.at(counts, chosen.ravel(), 1)
            return
        squares = np.einsum("abrw,abrw->abw", values, values)
        groups = squares.reshape(
            weight.shape[3], -1, weight.shape[2], values.shape[1] // weight.shape[2], width
        )
        sums += groups.sum((1, 3)).reshape(matrices, width)
        counts += values.shape[0] * values.shape[1] * values.shape[2] // matrices

    def _view(self, tensor: _Tensor, kind: Any) -> Any:
        """The tensor's numbers where they stand, slowest dimension first."""
        shape, strides = list(tensor.shape)[::-1], list(tensor.strides)[::-1]
        size = sum((count - 1) * stride for count, stride in zip(shape, strides, strict=True)) + 4
        held: Any = (ctypes.c_char * size).from_address(tensor.data)
        return self.numpy.ndarray(shape, kind, held, strides=strides)

    def write(self, file: str, rows: int, longest: int) -> None:
        from gguf import GGUFWriter

        writer = GGUFWriter(file, "")
        writer.kv_data[0].pop("general.architecture", None)
        writer.add_string("general.type", "imatrix")
        writer.add_array("imatrix.datasets", ["the training data"])
        writer.add_uint32("imatrix.chunk_count", rows)
        writer.add_uint32("imatrix.chunk_size", longest)
        for name, sums in sorted(self.sums.items()):
            writer.add_tensor(f"{name}.in_sum2", sums.astype("float32"))
            writer.add_tensor(f"{name}.counts", self.counts[name].astype("float32").reshape(-1, 1))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def matrix(library: Library, model_file: str, rows_file: str, target: str, threads: int) -> int:
    rows = json.loads(Path(rows_file).read_text(encoding="utf-8"))
    longest = max(map(len, rows))
    llama, importance = library.llama, Importance(library)
    model = llama.llama_model_load_from_file(model_file.encode(), llama.llama_model_default_params())
    if not model:
        print("error: llama.cpp does not load the model", file=sys.stderr)
        return 1
    parameters = library.context()
    parameters.context = -(-longest // _PIECE) * _PIECE
    parameters.batch = parameters.part = _PIECE
    parameters.outputs = parameters.outputs_of_one = 0  # as many as the batch
    parameters.threads = parameters.batch_threads = threads
    parameters.on_tensor = ctypes.cast(importance.callback, ctypes.c_void_p)
    context = llama.llama_init_from_model(model, parameters)
    if not context:
        print("error: llama.cpp makes no context for the model", file=sys.stderr)
        return 1
    for done, row in enumerate(rows):
        print(f"[{done:5d}/{len(rows):5d}]", flush=True)
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        for start in range(0, len(row), _PIECE):
            code = llama.llama_decode(context, _batch(row[start : start + _PIECE], start))
            if code or importance.failure:
                print(f"error: row {done} was not read: {importance.failure or code}", file=sys.stderr)
                return 1
    if not importance.sums or not all(math.isfinite(sums.sum()) for sums in importance.sums.values()):
        print("error: the model's activations are no numbers", file=sys.stderr)
        return 1
    importance.write(target, len(rows), longest)
    return 0


def _batch(tokens: list[int], start: int) -> _Batch:
    """The tokens of one row from the place `start` on, each of them an output."""
    count = len(tokens)
    row = (ctypes.c_int32 * 1)(0)
    arrays: dict[str, Any] = {
        "tokens": (ctypes.c_int32 * count)(*tokens),
        "positions": (ctypes.c_int32 * count)(*range(start, start + count)),
        "sequence_counts": (ctypes.c_int32 * count)(*[1] * count),
        "sequences": (ctypes.c_void_p * count)(*[ctypes.addressof(row)] * count),
        "outputs": (ctypes.c_int8 * count)(*[1] * count),
    }
    batch = _Batch(count, **{name: ctypes.addressof(array) for name, array in arrays.items()})
    batch.kept = (arrays, row)  # they live as long as the batch
    return batch


def main(arguments: list[str]) -> int:
    folder, backend, job, *rest = arguments
    try:
        library = Library(Path(folder), Path(backend))
    except Unloadable as error:
        print(error, file=sys.stderr)
        return 2
    if job == "quantize":
        source, target, kind, threads, *importance = rest
        return quantize(library, source, target, int(kind), int(threads), "".join(importance[:1]))
    if job == "matrix":
        model, rows, target, threads = rest
        return matrix(library, model, rows, target, int(threads))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
