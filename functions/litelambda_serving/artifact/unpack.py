"""Artifacts that are stored compressed or encrypted, back into the flatbuffer, straight into memory while they arrive.

Imported only for an artifact that needs it, as are the decompressors: an uncompressed one does not pay for them.
Bytes are unpacked before all of them are there, and so before their digest is known: what comes out may not grow
beyond what the manifest says, and is not used until the digests of both forms are right.
"""

from __future__ import annotations

from _thread import allocate_lock

from litelambda_serving.digest import new_hasher
from litelambda_serving.errors import ArtifactError, DigestError, ServingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from litelambda_serving.digest import Hasher
    from litelambda_serving.manifest import FileEntry

    Stage = Callable[[Buffer], Iterator[Buffer]]

__all__ = ["Unpacker", "unpack"]

_CHECKED_FROM_BYTES = 1024 * 1024
_PIECE_BYTES = 1024 * 1024  # unpacked at a time, before it is copied to its place


class Unpacker:
    """Unpacks one file as it arrives, piece by piece, in the thread that fetches it.

    The fetch may start before the manifest says what is fetched: its first piece waits for `begin` or `abandon`.
    """

    def __init__(self, name: str) -> None:
        """Wait for a file.

        Args:
            name: its name, for messages.
        """
        self._name = name
        self._decompress: Stage | None = None
        self._target = memoryview(bytearray())
        self._hasher: Hasher | None = None
        self._sha256 = ""
        self._position = 0
        self._failure: ServingError | None = None
        self._begun = allocate_lock()
        self._begun.acquire()

    def begin(self, entry: FileEntry, decrypt: Stage | None = None) -> None:
        """Say what the file is, and let the pieces in.

        Args:
            entry: its pin, with the encoding and the unpacked form's.
            decrypt: opens it, where it is encrypted.
        """
        pin = entry.unpacked
        try:
            if pin is not None:
                stage = decrypt or _DECOMPRESSORS[entry.encoding]()
                if decrypt is not None and pin.unpacked is not None:
                    stage, pin = _one_after_another(decrypt, _DECOMPRESSORS[pin.encoding]()), pin.unpacked
                self._target = memoryview(_room(self._name, pin.size_bytes, in_memory=decrypt is not None))
                if decrypt is None:  # AES-GCM has authenticated every byte that comes out of it
                    self._hasher, self._sha256 = new_hasher(pin.size_bytes), pin.sha256
                self._decompress = stage
        except ServingError as error:
            self._failure = error
        finally:
            self._begun.release()  # in any case: the thread that fetches must not wait forever

    def abandon(self) -> None:
        """Ignore the pieces of a file that is not wanted after all."""
        self._begun.release()

    def update(self, data: Buffer) -> None:
        """Unpack the next bytes. `result` reports what is wrong with them, after their digest was checked."""
        with self._begun:
            pass
        if self._decompress is None or self._failure is not None:
            return
        try:
            for piece in self._decompress(data):
                self._append(piece)
        except ServingError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - zlib.error, LZMAError, EOFError: none may be imported to name it
            self._failure = ArtifactError(f"{self._name} is not the stream that its manifest says: {error}")

    def result(self) -> Buffer:
        """What came out of all the bytes, which the caller found to be those that were pinned.

        Raises:
            ArtifactError: they are not of that encoding, or not of that size unpacked.
            DigestError: they unpack to something else than was pinned.
            ModelTooLargeError: the unpacked model does not fit into this function.
        """
        if self._failure is None and self._position != len(self._target):
            self._failure = self._other_size()
        if self._failure is not None:
            raise self._failure
        digest = self._hasher.hexdigest() if self._hasher is not None else ""
        if digest != self._sha256:
            raise DigestError(f"{self._name} unpacks to SHA-256 {digest}, the manifest pins {self._sha256}")
        return self._target.obj

    def _append(self, data: Buffer) -> None:
        piece = memoryview(data)
        end = self._position + len(piece)
        if end > len(self._target):
            raise self._other_size()
        self._target[self._position : end] = piece
        self._position = end
        if self._hasher is not None:
            self._hasher.update(piece)

    def _other_size(self) -> ArtifactError:
        return ArtifactError(
            f"{self._name} does not unpack to the {len(self._target)} bytes that the manifest pins: publish it again"
        )


def unpack(data: Buffer, entry: FileEntry, name: str, decrypt: Stage | None = None) -> Buffer:
    """Unpack a file that is here already; one that is not compressed comes back as it is.

    Args:
        data: the stored bytes, verified.
        entry: their pin.
        name: for messages.
        decrypt: see `Unpacker.begin`.

    Raises:
        ArtifactError, DigestError, ModelTooLargeError: see `Unpacker.result`.
    """
    if not entry.encoding:
        return data
    unpacker = Unpacker(name)
    unpacker.begin(entry, decrypt)
    unpacker.update(data)
    return unpacker.result()


def _one_after_another(first: Stage, second: Stage) -> Stage:
    def both(data: Buffer) -> Iterator[Buffer]:
        for piece in first(data):
            yield from second(piece)

    return both


def _room(name: str, size_bytes: int, *, in_memory: bool) -> Buffer:
    if size_bytes < _CHECKED_FROM_BYTES:
        return bytearray(size_bytes)
    from litelambda_serving.store.memory import allocate

    return allocate(name, size_bytes, in_memory=in_memory)


def _zlib() -> Stage:
    from zlib import decompressobj

    decompressor = decompressobj()

    def decompress(data: Buffer) -> Iterator[bytes]:
        piece = decompressor.decompress(data, _PIECE_BYTES)
        yield piece
        # A full piece may have left some of what it read to the next one.
        while decompressor.unconsumed_tail or len(piece) == _PIECE_BYTES:
            piece = decompressor.decompress(decompressor.unconsumed_tail, _PIECE_BYTES)
            yield piece

    return decompress


def _xz() -> Stage:
    # The C module alone: `lzma` around it imports 2 ms of file objects.
    from _lzma import FORMAT_XZ, LZMADecompressor

    decompressor = LZMADecompressor(FORMAT_XZ)

    def decompress(data: Buffer) -> Iterator[bytes]:
        if decompressor.eof:
            return
        yield decompressor.decompress(data, _PIECE_BYTES)
        while not decompressor.eof and not decompressor.needs_input:
            yield decompressor.decompress(b"", _PIECE_BYTES)

    return decompress


_DECOMPRESSORS = {"zlib": _zlib, "xz": _xz}
"""By the manifest's word for an encoding, what undoes it."""
