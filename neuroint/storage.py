"""Read and write files by address: a local path, or ``s3://bucket/key``.

Credentials, region and endpoint come from the environment that boto3 reads (``AWS_PROFILE``, ``AWS_ENDPOINT_URL``, …).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any


class StorageError(ValueError):
    """A file or object that cannot be read or written: what was given, what was expected, what to do."""


def read_bytes(address: str | Path) -> bytes:
    """Read a whole file.

    Raises:
        StorageError: it is not there or may not be read.
    """
    return _store(address).read(str(address))


def write_bytes(address: str | Path, data: bytes) -> None:
    """Write a whole file, its folders included; readers see the old content or the new, never a part.

    Raises:
        StorageError: it may not be written there, or there is no space.
    """
    _store(address).write(str(address), data)


def exists(address: str | Path) -> bool:
    """Tell whether a file or a folder (in S3: any key below it) is there."""
    return _store(address).exists(str(address))


def list_files(address: str | Path) -> list[str]:
    """List the files below a folder at any depth, sorted, relative to it, with slashes.

    Raises:
        StorageError: there is no such folder (in S3: no such bucket, or no key below it).
    """
    return _store(address).names(str(address))


def upload_folder(folder: str | Path, address: str | Path) -> None:
    """Copy all files of a local folder to an address, replacing those of the same name.

    Raises:
        StorageError: the folder is not there, or the address cannot be written.
    """
    if not Path(folder).is_dir():
        raise StorageError(f"{folder}: not a folder; expected a local folder to upload; check the path")
    _store(address).upload(Path(folder), str(address))


class LocalStore:
    """Files of this machine."""

    def read(self, address: str) -> bytes:
        """Read a file."""
        try:
            return Path(address).read_bytes()
        except OSError as error:
            raise _failed(address, error, "a file that can be read") from error

    def write(self, address: str, data: bytes) -> None:
        """Write beside the target, wait for the disk, then rename."""
        path, draft = Path(address), None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                draft = Path(file.name)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.chmod(0o644)  # temporary files are private
            draft.replace(path)
        except OSError as error:
            if draft is not None:
                draft.unlink(missing_ok=True)
            raise _failed(address, error, "a folder that can be written and has space") from error

    def exists(self, address: str) -> bool:
        """Look for a file or folder."""
        return Path(address).exists()

    def names(self, address: str) -> list[str]:
        """Walk a folder."""
        root = Path(address)
        if not root.is_dir():
            raise StorageError(f"{address}: no such folder; expected a folder of files; check the path")
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    def upload(self, folder: Path, address: str) -> None:
        """Copy a tree."""
        try:
            shutil.copytree(folder, address, dirs_exist_ok=True)
        except OSError as error:
            raise _failed(address, error, "a folder that can be written and has space") from error


class S3Store:
    """Objects of S3 or of anything that speaks its protocol."""

    def __init__(self) -> None:
        import boto3  # slow, and only needed here
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        self._client: Any = boto3.client("s3")
        self._errors = (BotoCoreError, ClientError, S3UploadFailedError)

    def read(self, address: str) -> bytes:
        """Get an object."""
        bucket, key = _bucket_and_key(address)
        try:
            return self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self._errors as error:
            raise _failed(address, error, "an object that can be read") from error

    def write(self, address: str, data: bytes) -> None:
        """Put an object; S3 shows it only when it is whole."""
        bucket, key = _bucket_and_key(address)
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=data)
        except self._errors as error:
            raise _failed(address, error, "a bucket that can be written") from error

    def exists(self, address: str) -> bool:
        """Look for the key itself or for one below it."""
        bucket, key = _bucket_and_key(address)
        return any(
            found == key or found.startswith(key.rstrip("/") + "/") for found in self._keys(address, bucket, key)
        )

    def names(self, address: str) -> list[str]:
        """List the keys below a prefix, all pages."""
        bucket, key = _bucket_and_key(address)
        prefix = key.rstrip("/") + "/" if key else ""
        names = sorted(found.removeprefix(prefix) for found in self._keys(address, bucket, prefix) if found != prefix)
        if not names:
            raise StorageError(f"{address}: no object below it; expected a prefix with objects; check the prefix")
        return names

    def upload(self, folder: Path, address: str) -> None:
        """Put every file, large ones in parts."""
        bucket, key = _bucket_and_key(address)
        for name in LocalStore().names(str(folder)):
            try:
                self._client.upload_file(str(folder / name), bucket, f"{key.rstrip('/')}/{name}".lstrip("/"))
            except self._errors as error:
                raise _failed(f"{address.rstrip('/')}/{name}", error, "a bucket that can be written") from error

    def _keys(self, address: str, bucket: str, prefix: str) -> list[str]:
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            return [found["Key"] for page in pages for found in page.get("Contents", [])]
        except self._errors as error:
            raise _failed(address, error, "a bucket that can be listed") from error


_STORES = {"": LocalStore, "s3": cache(S3Store)}


def _store(address: str | Path) -> LocalStore | S3Store:
    scheme, separator, _ = str(address).partition("://")
    scheme = scheme if separator else ""
    if scheme not in _STORES:
        raise StorageError(f"{address}: unknown scheme {scheme!r}; expected a local path or s3://bucket/key")
    return _STORES[scheme]()


def _bucket_and_key(address: str) -> tuple[str, str]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{address!r} names no bucket; expected s3://bucket/key")
    return bucket, key


def _failed(address: str, error: Exception, expected: str) -> StorageError:
    return StorageError(
        f"{address}: {error}; expected {expected}; check the address, the permissions and the free space"
    )
