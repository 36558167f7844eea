"""What the parts of the backend share: settings, tables, assets, Label Studio, images, teachers."""

from __future__ import annotations

from dataclasses import dataclass

from kdal.images.loader import ImageLoader
from kdal.labelstudio.client import LabelStudioClient
from kdal.settings import Settings
from kdal.storage.assets import Assets
from kdal.storage.database import Storage
from kdal.teachers.catalogue import Catalogue, load_catalogue


@dataclass(frozen=True)
class Resources:
    """Opened once per process and passed to whatever needs it."""

    settings: Settings
    storage: Storage
    assets: Assets
    images: ImageLoader
    label_studio: LabelStudioClient
    teachers: Catalogue

    @classmethod
    def open(cls, settings: Settings) -> Resources:
        """Open everything that the settings name."""
        _ = settings.home_folder  # if it cannot be made, that is to be said, and not what follows from it
        label_studio = LabelStudioClient.of(settings)
        return cls(
            settings=settings,
            storage=Storage(settings.sqlalchemy_url),
            assets=Assets(settings.assets_root),
            images=ImageLoader(settings, label_studio),
            label_studio=label_studio,
            teachers=load_catalogue(settings.teachers),
        )
