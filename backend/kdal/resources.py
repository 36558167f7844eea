"""What the parts of the backend share: settings, tables, assets, Label Studio, images, teachers, backbones."""

from __future__ import annotations

from dataclasses import dataclass

from kdal.backbones import Backbones
from kdal.images.loader import ImageLoader
from kdal.labelstudio.client import LabelStudioClient
from kdal.settings import Settings
from kdal.storage.assets import Assets
from kdal.storage.database import Storage
from kdal.storage.features import FeatureStore
from kdal.storage.installation import agree_on_secrets
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
    backbones: Backbones
    features: FeatureStore

    @classmethod
    def open(cls, settings: Settings) -> Resources:
        """Open everything that the settings name. Its own settings always have user and password.

        Raises:
            ConfigError: something cannot be opened, or another kdal uses the database with other secrets.
        """
        _ = settings.home_folder  # if it cannot be made, that is to be said, and not what follows from it
        label_studio = LabelStudioClient.of(settings)
        assets = Assets(settings.assets_root)
        storage = Storage(settings.sqlalchemy_url)
        agree_on_secrets(storage, settings)
        return cls(
            settings=settings.with_credentials(),
            storage=storage,
            assets=assets,
            images=ImageLoader(settings, label_studio),
            label_studio=label_studio,
            teachers=load_catalogue(settings.teachers),
            backbones=Backbones(settings, assets),
            features=FeatureStore(storage, assets),
        )
