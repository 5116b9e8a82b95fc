"""Objects of an S3-compatible store, handled as paths; each method with as few requests as it can be done with.

Credentials and the endpoint come from where every S3 client takes them: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, a profile, or the
machine's role.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

from upath.implementations.cloud import S3Path
from upath.registry import register_implementation

from orchestrator.errors import StorageFailed
from orchestrator.storage import fence

# With pauses between them that grow, a store may be away for half a minute
ATTEMPTS = 6
PIECE_BYTES = 64 * 2**20
TIME_LIMITS = {"connect_timeout": 5, "read_timeout": 60}
# The codes of what a store answers, here where a condition does not hold or another request for the object is being served
REFUSALS = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")
NO_BUCKET = "NoSuchBucket"


class ObjectPath(S3Path):
    """An object, or all objects whose names begin alike, as in a folder.

    An object that is not there is a FileNotFoundError, as a file is; whatever else goes wrong is StorageFailed, which nobody
    takes for a file that is missing.
    """

    __slots__ = ()

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: there are no folders, and a bucket is not made by mistake."""

    def read_bytes(self) -> bytes:
        """The content of the object, in one request."""
        with _errors_told(self):
            content: bytes = self.fs.cat_file(self.path, max_concurrency=1)
        return content

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """The same as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        """Put the object, whole or not at all, in one request."""
        fence.check()
        with _errors_told(self):
            self.fs.pipe_file(self.path, bytes(data))
        return len(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        """The same with text."""
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def open(self, mode: str = "r", buffering: int = -1, **options: Any) -> IO[Any]:  # type: ignore[override]
        """The object as a file; one that is written appears when the file is closed."""
        if not mode.startswith("r"):
            fence.check()
        with _errors_told(self):
            # whatever the buffering: parts of an object are sent in megabytes
            opened: IO[Any] = self.fs.open(self.path, mode=mode, **options)
        return opened

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is such an object, or one below it."""
        with _errors_told(self):
            return bool(self.fs.exists(self.path))

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object below this name."""
        with _errors_told(self):
            return bool(self.fs.isdir(self.path))

    def glob(self, pattern: str, **options: Any) -> Iterator[ObjectPath]:
        """The objects and folders whose names are like a pattern."""
        with _errors_told(self):
            return iter(list(super().glob(pattern, **options)))

    def iterdir(self) -> Iterator[ObjectPath]:
        """The objects and folders in this folder."""
        with _errors_told(self):
            return iter(list(super().iterdir()))

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """The size of the object, and when it was put."""
        with _errors_told(self):
            return super().stat(follow_symlinks=follow_symlinks)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object, if it is there."""
        fence.check()
        with _errors_told(self):
            self.fs.rm_file(self.path)

    def rename(self, target: Any, **options: Any) -> ObjectPath:
        """Copy the object to another name, and delete it here."""
        fence.check()
        with _errors_told(self):
            self.fs.cp_file(self.path, target.path)
        self.unlink()
        renamed: ObjectPath = target
        return renamed

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Put the object again as it is, which gives it a new time; or an empty one."""
        content = b""
        with contextlib.suppress(FileNotFoundError):
            content = self.read_bytes()
        self.write_bytes(content)

    def listed(self) -> dict[str, int]:
        """The names of all objects in this folder with their sizes in bytes, in a request for each thousand."""
        prefix = self.path.partition("/")[2] + "/"
        sizes: dict[str, int] = {}
        page: dict[str, Any] = {"NextContinuationToken": None}
        while "NextContinuationToken" in page:
            token = page["NextContinuationToken"]
            page = self._page(Prefix=prefix, **({"ContinuationToken": token} if token else {}))
            for entry in page.get("Contents", ()):
                sizes[entry["Key"].removeprefix(prefix)] = entry["Size"]
        return sizes

    def listed_first(self) -> None:
        """Ask for the name of one object: whether the bucket is there, and may be read."""
        self._page(Prefix=self.path.partition("/")[2], MaxKeys=1)

    def _page(self, **options: Any) -> dict[str, Any]:
        """One answer about the names of objects."""
        bucket = self.path.partition("/")[0]
        try:
            with _errors_told(self):
                page: dict[str, Any] = self.fs.call_s3("list_objects_v2", Bucket=bucket, **options)
        # of names that nobody has there is an empty list
        except FileNotFoundError as error:
            raise StorageFailed(f"{self}: there is no such bucket") from error
        return page

    def read_large(self) -> bytes:
        """The content of a large object, whose parts are read side by side."""
        with _errors_told(self):
            content: bytes = self.fs.cat_file(self.path)
        return content

    def pieces(self) -> Iterator[bytes]:
        """The content a piece after the other, of an object that may be larger than memory."""
        with _errors_told(self):
            size = self.fs.size(self.path)
            for start in range(0, size, PIECE_BYTES):
                yield self.fs.cat_file(self.path, start=start, end=min(start + PIECE_BYTES, size))

    def read_from(self, offset: int) -> bytes:
        """The content from a byte on that is there, in one request."""
        with _errors_told(self):
            content: bytes = self.fs.cat_file(self.path, start=offset)
        return content

    def remove_all(self) -> None:
        """Delete all objects of this folder."""
        fence.check()
        with _errors_told(self):
            self.fs.rm(self.path, recursive=True)

    def move_all(self, target: ObjectPath) -> None:
        """Copy all objects of this folder to another one, and delete them here when all are there."""
        fence.check()
        for name in self.listed():
            with _errors_told(self):
                self.fs.cp_file(f"{self.path}/{name}", f"{target.path}/{name}")
        self.remove_all()

    # Conditional requests

    def tagged(self) -> tuple[bytes, str] | None:
        """The content with its ETag, which changes with each put; None where there is no object."""
        try:
            with _errors_told(self):
                bucket, key = self.path.split("/", 1)
                answer = self.fs.call_s3("get_object", Bucket=bucket, Key=key)
                return self._body(answer), str(answer["ETag"])
        except FileNotFoundError:
            return None

    def _body(self, answer: dict[str, Any]) -> bytes:
        from fsspec.asyn import sync

        # the answer's body is read in the thread that all requests are made in
        content: bytes = sync(self.fs.loop, answer["Body"].read)
        return content

    def put_if(self, content: bytes, tag: str | None) -> str | None:
        """Put the object if it still has that ETag; or if there is none, where `tag` is None.

        Gives the new ETag, or None where another process was first.
        """
        bucket, key = self.path.split("/", 1)
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            with _errors_told(self):
                answer = self.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
        except (FileNotFoundError, StorageFailed) as error:
            if code_of(error) in REFUSALS:
                return None
            raise
        return str(answer["ETag"])


# the library makes paths of the class alone that is registered for their scheme
register_implementation("s3", ObjectPath, clobber=True)


def object_path(uri: str, attempts: int = ATTEMPTS) -> ObjectPath:
    """The object, or the folder, at a URI; what is asked of it is asked again so often where the store is busy or away."""
    options = {"retries": {"mode": "standard", "total_max_attempts": attempts}, **TIME_LIMITS}
    # a listing is asked anew each time: other processes write meanwhile
    return ObjectPath(uri, use_listings_cache=False, config_kwargs=options)


def read_side_by_side(paths: Sequence[ObjectPath]) -> list[bytes | None]:
    """The contents of some objects, all asked for at once; None for one that is not there."""
    if not paths:
        return []
    with _errors_told(paths[0].parent):
        found = paths[0].fs.cat([path.path for path in paths], on_error="return", max_concurrency=1)
        contents: list[bytes | None] = []
        for path in paths:
            content = found[path.path]
            if isinstance(content, FileNotFoundError) and code_of(content) != NO_BUCKET:
                contents.append(None)
            elif isinstance(content, Exception):
                raise content
            else:
                contents.append(content)
    return contents


def code_of(error: BaseException) -> str:
    """The code in the answer of the store that an error comes from; empty where it gave none."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        cause = cause.__cause__
    return ""


@contextlib.contextmanager
def _errors_told(path: S3Path) -> Iterator[None]:
    """Raise StorageFailed for what goes wrong, but for an object that is not there."""
    try:
        yield
    except FileNotFoundError as error:
        if code_of(error) == NO_BUCKET:
            raise StorageFailed(f"{path}: there is no such bucket") from error
        raise
    # what clients of S3 raise has many types, some of which are no OSError
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # what was asked for is in the address, and of no use to a reader
        line = re.sub(r'(https?://[^\s"?]*)\?[^\s"]*', r"\1", lines[0])
        raise StorageFailed(f"{path}: {line}") from error
