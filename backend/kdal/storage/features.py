"""Features of images: computed once for each image and backbone, whatever task or project shows the image.

The numbers are assets, blocks of some thousand rows; the tables say in which block and row those of an image are.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from kdal.storage.assets import Assets, DamagedAssetError, MissingAssetError
from kdal.storage.database import Storage
from kdal.storage.tables import ImageContent, ImageFeatures
from kdal_core.errors import AssetError

Half = NDArray[np.float16]

AT_ONCE = 500
"""Rows asked for, or written, in one statement."""
PLACES = 1_000_000
"""Images and backbones of which it is remembered, at most, where their features are: of no few rounds all."""
IN_MEMORY = 256 * 1024**2
"""Bytes of blocks that are kept in memory."""


class Content(NamedTuple):
    """A row of the table `ImageContent`: what is at an address."""

    address: bytes
    content: bytes
    width: int
    height: int


class LostFeaturesError(AssetError):
    """Features that the tables know of and the assets do not hold: they have to be computed again."""


def digest(text: str | bytes) -> bytes:
    """16 bytes that stand for a text or a file."""
    return hashlib.blake2b(
        text.encode(errors="surrogatepass") if isinstance(text, str) else text, digest_size=16
    ).digest()


class FeatureStore:
    """Features (N, D) float16 by the backbone and the digests of images' files.

    Args:
        storage: the tables.
        assets: where the blocks are.
    """

    def __init__(self, storage: Storage, assets: Assets) -> None:
        self._storage, self._assets = storage, assets
        self._blocks: OrderedDict[str, Half] = OrderedDict()
        self._places: dict[tuple[bytes, bytes], tuple[str, int]] = {}
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ what is at an address

    def contents(self, addresses: Sequence[bytes]) -> dict[bytes, Content]:
        """What is known of these addresses, by address."""
        found: dict[bytes, Content] = {}
        columns = (ImageContent.address, ImageContent.content, ImageContent.width, ImageContent.height)
        with self._storage.session() as session:
            for part in _parts(addresses):  # columns, not objects, which take twice the time
                rows = session.execute(select(*columns).where(ImageContent.address.in_(part)))
                found |= {row.address: Content(*row) for row in rows}
        return found

    def note_contents(self, rows: Sequence[Content]) -> None:
        """Note what was found at addresses."""
        values = [row._asdict() for row in rows]
        with self._storage.session() as session:
            _upsert(session, ImageContent, values, ["address"])

    # ------------------------------------------------------------------ features

    def readable(self, backbone: bytes, contents: Sequence[bytes]) -> set[bytes]:
        """Those of these images whose features are there; blocks that are missing or damaged are forgotten.

        Raises:
            AssetError: the assets are out of reach.
        """
        places = self.known(backbone, contents)
        lost: set[str] = set()
        for block in {block for block, _ in places.values()}:
            try:
                self._block(block)
            except LostFeaturesError:
                lost.add(block)
        return {content for content, (block, _) in places.items() if block not in lost}

    def known(self, backbone: bytes, contents: Sequence[bytes]) -> dict[bytes, tuple[str, int]]:
        """Block and row of those of these images whose features the tables know of."""
        remembered = self._places
        found = {content: remembered[backbone, content] for content in contents if (backbone, content) in remembered}
        asked = [content for content in contents if content not in found]
        columns = (ImageFeatures.content, ImageFeatures.block, ImageFeatures.row)
        with self._storage.session() as session:
            for part in _parts(asked):
                query = select(*columns).where(ImageFeatures.backbone == backbone, ImageFeatures.content.in_(part))
                found |= {content: (block, row) for content, block, row in session.execute(query)}
        if len(remembered) + len(asked) > PLACES:
            remembered = self._places = {}
        remembered.update({(backbone, content): found[content] for content in asked if content in found})
        return found

    def add(self, backbone: bytes, features: Mapping[bytes, Half]) -> None:
        """Keep the features (D,) of images, by the digests of their files."""
        if not features:
            return
        block = f"features/{backbone.hex()}/{uuid4().hex}.npz"
        self._assets.write_arrays(block, False, features=np.stack(list(features.values())))
        values = [
            {"backbone": backbone, "content": content, "block": block, "row": row}
            for row, content in enumerate(features)
        ]
        with self._storage.session() as session:
            _upsert(session, ImageFeatures, values, ["backbone", "content"])

    def read(self, backbone: bytes, contents: Sequence[bytes]) -> Half:
        """(N, D) of these images, in this order.

        Raises:
            LostFeaturesError: those of an image are not there; what the tables knew of them is forgotten.
            AssetError: the assets are out of reach.
        """
        places = self.known(backbone, contents)
        by_block: dict[str, list[int]] = {}
        for position, content in enumerate(contents):
            if content not in places:
                raise LostFeaturesError("features of an image are missing: they are computed again")
            by_block.setdefault(places[content][0], []).append(position)
        result: Half | None = None
        for block, positions in by_block.items():
            array = self._block(block)
            if result is None:
                result = np.empty((len(contents), array.shape[1]), dtype=np.float16)
            rows = [places[contents[position]][1] for position in positions]
            if max(rows) >= len(array) or array.shape[1] != result.shape[1]:
                self._forget(block)
                raise LostFeaturesError(f"{block} is damaged: its features are computed again")
            result[positions] = array[rows]
        return np.empty((0, 0), dtype=np.float16) if result is None else result

    def _block(self, key: str) -> Half:
        with self._lock:
            if (kept := self._blocks.get(key)) is not None:
                self._blocks.move_to_end(key)
                return kept
        try:
            array = self._assets.read_arrays(key)["features"]
            if array.ndim != 2 or array.dtype != np.float16:
                raise KeyError(key)
        except (MissingAssetError, DamagedAssetError, KeyError) as error:
            self._forget(key)
            raise LostFeaturesError(f"{key} is missing or damaged: its features are computed again") from error
        with self._lock:
            self._blocks[key] = array
            while sum(held.nbytes for held in self._blocks.values()) > IN_MEMORY and len(self._blocks) > 1:
                self._blocks.popitem(last=False)
        return array

    def _forget(self, block: str) -> None:
        self._places = {}
        with self._storage.session() as session:
            session.execute(delete(ImageFeatures).where(ImageFeatures.block == block))


def _parts(values: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    unique = list(dict.fromkeys(values))
    for start in range(0, len(unique), AT_ONCE):
        yield unique[start : start + AT_ONCE]


def _upsert(
    session: Session, table: type[ImageContent] | type[ImageFeatures], values: list[dict[str, object]], keys: list[str]
) -> None:
    """Insert rows, the new ones in place of those that are there: two workers may write the same."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    for start in range(0, len(values), AT_ONCE):
        statement = insert(table).values(values[start : start + AT_ONCE])
        changed = {name: statement.excluded[name] for name in values[0] if name not in keys}
        session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))
