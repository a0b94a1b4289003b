"""Rows out of Parquet and Arrow files, a few at a time. pyarrow is imported only here, and only when it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .dataset_source import Located, Reading, Source, broken
from .text import one_line

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 128


@contextmanager
def _reading(source: Source) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's, not the reader's
        raise broken(
            source.path,
            f"The {source.kind} reader says: {one_line(str(error), 160) or 'out of memory'}",
            "Write the file again; it may be cut off.",
        ) from error


def _rows(batch: pyarrow.RecordBatch) -> Iterator[Mapping[str, Any]]:
    """Column by column, which is faster than row by row. Of two columns of one name the first counts."""
    names: dict[str, int] = {}
    for index, name in enumerate(batch.schema.names):
        names.setdefault(name, index)
    if not names:
        yield from ({} for _ in range(batch.num_rows))
        return
    columns = [batch.column(index).to_pylist() for index in names.values()]
    keys = tuple(names)
    for cells in zip(*columns, strict=True):
        yield dict(zip(keys, cells, strict=True))


def parquet_rows(source: Source, reading: Reading) -> Iterator[Located]:
    import pyarrow.parquet

    number = 0
    with _reading(source), pyarrow.parquet.ParquetFile(source.path) as file:
        total = reading.rows = file.metadata.num_rows
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for row in _rows(batch):
                number += 1
                reading.done_bytes = int(source.bytes * number / max(1, total))
                yield Located(number, row)


def arrow_rows(source: Source, reading: Reading) -> Iterator[Located]:
    """Both forms: the file (it begins with ARROW1) and the stream, which `datasets` writes."""
    import pyarrow

    number = 0
    with _reading(source), pyarrow.memory_map(str(source.path)) as mapped:
        if mapped.read(6) == b"ARROW1":
            mapped.seek(0)
            file = pyarrow.ipc.open_file(mapped)
            batches: Iterator[pyarrow.RecordBatch] = (
                file.get_batch(i) for i in range(file.num_record_batches)
            )
        else:
            mapped.seek(0)
            batches = iter(pyarrow.ipc.open_stream(mapped))
        for batch in batches:
            reading.done_bytes = mapped.tell()
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                for row in _rows(batch.slice(start, _BATCH_ROWS)):
                    number += 1
                    yield Located(number, row)
