"""Reads one HDF5 file alone: never data in another file, never fill values in place of data.

HDF5 itself follows links, external storage and virtual datasets into any file they name. It reads zeros where nothing
was written or where a source is gone.
"""

import contextlib
import importlib
import math
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import h5py

from BC_training.common.errors import UserError, first_line

_PLUGIN_FILTERS = {
    307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32017: "sz",
    32018: "fcidecomp", 32024: "sz3", 32026: "blosc2", 32028: "sperr",
}  # fmt: skip  # the filters of the package hdf5plugin
_MOST_LINKS = 64  # soft links on the way to one object
_MOST_OBJECTS = 2000  # below one group
_OWN_DATA = "store the data itself in this file, or remove the episode"
# The exceptions by which h5py reports damage.
DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError)

Item = h5py.Group | h5py.Dataset | h5py.Datatype


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Opens a file; damage that is found while it is open becomes a UserError, too."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DAMAGE as error:
        raise UserError(_why_unreadable(path, error)) from error


def _why_unreadable(path: Path, error: BaseException) -> str:
    reason = first_line(error)
    if "already open for write" in reason or "consistency flags" in reason:
        return (
            f"{path} is marked as being written: wait for the program that writes it; if that ended without closing "
            f"the file, clear the mark with 'h5clear -s \"{path}\"' (of the package hdf5-tools)"
        )
    if "unable to lock file" in reason:
        return (
            f"{path} is locked ({reason.rpartition('error message = ')[2].strip(')')}): close the program that has it "
            "open, or set the environment variable HDF5_USE_FILE_LOCKING=FALSE where the disk has no locks"
        )
    if "file signature not found" in reason:
        return f"{path} is not an HDF5 file: check the path"
    if "truncated file" in reason:
        return f"{path} is cut off ({reason}): copy or download it again"
    if "filter returned failure" in reason:
        remedy = "it is damaged, copy or download the file again"
        return f"{path}: a compressed piece cannot be unpacked ({reason}): {remedy}"
    if isinstance(error, PermissionError):
        return f"cannot read {path}: {error.strerror or reason}"
    return f"cannot read {path} ({reason}): it is damaged, or of a kind that is not read; restore it"


def follow(group: h5py.Group, path: str, where: str, _hops: Iterator[int] | None = None) -> Item | None:
    """The item at ``path``, through hard and soft links; None if there is nothing.

    Raises a UserError if a link leads into another file, to nothing, or in a circle.
    """
    hops = iter(range(_MOST_LINKS)) if _hops is None else _hops
    here: Item = group
    for name in path.split("/"):
        if name in ("", "."):
            continue
        link = here.get(name, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            return None
        assert isinstance(here, h5py.Group)
        if isinstance(link, h5py.ExternalLink):
            fault = f"'{name}' is a link into another file, {link.filename}, and such are not followed"
            raise UserError(f"{where}: {fault}: copy what it names into this file, or remove the link")
        if isinstance(link, h5py.SoftLink):
            if next(hops, None) is None:
                raise UserError(f"{where}: the link '{name}' leads in a circle: correct or remove it")
            target = follow(here.file if link.path.startswith("/") else here, link.path, where, hops)
            if target is None:
                raise UserError(f"{where}: '{name}' is a link to {link.path}, which is not in the file: restore that")
            here = target
        else:
            here = here[name]
    return here


def arrays(group: h5py.Group, where: str, skip: Collection[str] = ()) -> tuple[dict[str, h5py.Dataset], set[str]]:
    """All arrays below ``group`` by name, "outer/inner" for groups in groups; and the names in ``skip`` that exist.

    Raises a UserError if a link cannot be followed, numpy lacks an array's type, or there are too many objects.
    """
    found: dict[str, h5py.Dataset] = {}
    skipped: set[str] = set()
    pending: list[tuple[h5py.Group, str, tuple[h5py.Group, ...]]] = [(group, "", (group,))]
    seen = 0
    while pending:
        outer, prefix, above = pending.pop()
        for name in outer:
            full = f"{prefix}{name}"
            if full in skip:
                skipped.add(full)
                continue
            if isinstance(name, bytes):  # h5py's form of a name that it cannot decode
                raise UserError(f'{where}: the name {full} is not in UTF-8: rename it, or add --leave-out "{full}"')
            seen += 1
            if seen > _MOST_OBJECTS:
                many = f"more than {_MOST_OBJECTS} arrays and groups"
                raise UserError(f"{where} has {many}: do its links lead in circles?")
            item = follow(outer, str(name), where)
            if isinstance(item, h5py.Group):
                if item not in above:  # otherwise a circle without anything new
                    pending.append((item, f"{full}/", (*above, item)))
            elif isinstance(item, h5py.Dataset):
                try:
                    _ = item.dtype
                except TypeError as error:
                    message = f"{where}: '{full}' cannot be read ({error}): add --leave-out \"{full}\""
                    raise UserError(message) from error
                found[full] = item
    return dict(sorted(found.items())), skipped


def require_stored(dataset: h5py.Dataset, rows: int, where: str, _depth: int = 0) -> None:
    """Checks, without reading them, that the first ``rows`` of an array are in this file and can be read.

    Raises a UserError if they are in another file, need a filter that is not installed, or were never written.
    """
    name, made = f"'{str(dataset.name).rpartition('/')[2]}'", dataset.id.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL:
        _require_virtual(dataset, rows, where, name, _depth)
        return
    if made.get_external_count():
        file = made.get_external(0)[0].decode(errors="replace")
        raise UserError(f"{where}: {name} is kept in another file, {file}, which is not read: {_OWN_DATA}")
    _require_filters(made, where, name)
    rows = min(rows, dataset.shape[0])
    if not rows or not dataset.size:
        return
    missing = None
    if dataset.chunks is not None:
        missing = _first_missing(dataset, dataset.chunks, rows)
    elif made.get_layout() == h5py.h5d.CONTIGUOUS and not dataset.id.get_storage_size():
        missing = 0
    if missing is not None:
        raise _never_written(where, name, missing)


def _never_written(where: str, name: str, frame: int) -> UserError:
    fault = f"{name} was never written there, which HDF5 would read as zeros"
    return UserError(f"{where} frame {frame}: {fault}: cut the episode before it, or remove the episode")


def _first_missing(dataset: h5py.Dataset, chunks: tuple[int, ...], rows: int) -> int | None:
    """The first row of the first missing chunk among those with the first ``rows``; None if none is missing."""
    grid = [-(-length // chunk) for length, chunk in zip(dataset.shape, chunks, strict=True)]
    if dataset.id.get_num_chunks() == math.prod(grid):
        return None
    present: Counter[int] = Counter()

    def count(chunk: h5py.h5d.StoreInfo) -> None:
        present[chunk.chunk_offset[0] // chunks[0]] += 1

    dataset.id.chunk_iter(count)
    blocks = -(-rows // chunks[0])
    return next((block * chunks[0] for block in range(blocks) if present[block] < math.prod(grid[1:])), None)


def _require_virtual(dataset: h5py.Dataset, rows: int, where: str, name: str, depth: int) -> None:
    """``require_stored`` for an array that is composed of other arrays in the file, each whole rows of it."""
    spans = []
    for part in dataset.virtual_sources():
        if part.file_name != ".":
            fault = f"is a virtual array of data in another file, {part.file_name}, which is not read"
            raise UserError(f"{where}: {name} {fault}: {_OWN_DATA}")
        source = follow(dataset.file, part.dset_name, where)
        span = _whole_rows(part.vspace, dataset.shape)
        if span is None or not isinstance(source, h5py.Dataset) or depth > 8:
            raise UserError(f"{where}: {name} is a virtual array of a form that is not read: {_OWN_DATA}")
        last = tuple(n - 1 for n in source.shape)
        if part.src_space.get_select_type() != h5py.h5s.SEL_ALL:
            _, last = part.src_space.get_select_bounds()
        elif source.size != (span[1] - span[0]) * math.prod(dataset.shape[1:]):
            last = source.shape
        if len(last) != source.ndim or any(i >= n for i, n in zip(last, source.shape, strict=True)):
            raise UserError(f"{where}: {name} is a virtual array of more than '{part.dset_name}' holds: {_OWN_DATA}")
        require_stored(source, last[0] + 1, where, depth + 1)
        spans.append(span)
    covered = 0
    for start, stop in sorted(spans):
        covered = max(covered, stop) if start <= covered else covered
    if covered < min(rows, dataset.shape[0]):
        raise _never_written(where, name, covered)


def _whole_rows(space: h5py.h5s.SpaceID, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(first row, end) of a selection that covers whole rows of an array; None for another selection."""
    try:
        first, last = space.get_select_bounds()
        cells = space.get_select_npoints()
    except (RuntimeError, ValueError):  # without a bound
        return None
    rows = last[0] - first[0] + 1
    return (first[0], first[0] + rows) if cells == rows * math.prod(shape[1:]) else None


def _require_filters(made: h5py.h5p.PropDCID, where: str, name: str) -> None:
    for i in range(made.get_nfilters()):
        number, _, _, label = made.get_filter(i)
        if h5py.h5z.filter_avail(number):
            continue
        remedy = "write the file again with gzip, where that filter is installed"
        try:
            importlib.import_module("hdf5plugin")  # adds its filters to HDF5's
        except ImportError:
            if number in _PLUGIN_FILTERS:
                remedy = f"run 'uv sync --extra hdf5' (with pip: 'pip install hdf5plugin'), or {remedy}"
        if not h5py.h5z.filter_avail(number):
            known = _PLUGIN_FILTERS.get(number) or label.decode(errors="replace") or "without a name"
            fault = f"is compressed with the HDF5 filter {number} ({known}), which is not installed"
            raise UserError(f"{where}: {name} {fault}: {remedy}")
