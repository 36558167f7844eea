"""How kdal is set up on a machine: environment variables, or a `.env` file in the working directory."""

from __future__ import annotations

import os
import secrets
from functools import cached_property
from pathlib import Path

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from kdal_core.errors import ConfigError


class Settings(BaseSettings):
    """Every setting of kdal, by the name of its environment variable in lower case.

    What belongs to one project (budget, strategy, models, ...) is not here but in its policy:
    the "extra params" of the ML backend in Label Studio, see `backend.policy`.
    """

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", env_ignore_empty=True, populate_by_name=True, frozen=True
    )

    label_studio_url: str = Field(default="http://127.0.0.1:8080", description="Where kdal reaches Label Studio.")
    label_studio_api_key: str = Field(
        default="", repr=False, description="A token of Label Studio: legacy token or personal access token."
    )
    url: str = Field(
        default="http://127.0.0.1:9090",
        validation_alias=AliasChoices("KDAL_URL", "url"),
        description="Where Label Studio reaches kdal.",
    )
    home: Path = Field(
        default=Path(".kdal"),
        validation_alias=AliasChoices("KDAL_HOME", "home"),
        description="A folder for the database, the secret, the image cache and, by default, the assets.",
    )
    database_url: str = Field(
        default="",
        validation_alias=AliasChoices("KDAL_DATABASE_URL", "database_url"),
        description="SQLAlchemy URL; default: SQLite in KDAL_HOME.",
    )
    assets: str = Field(
        default="",
        validation_alias=AliasChoices("KDAL_ASSETS", "assets"),
        description="A folder or s3://bucket/prefix; default: KDAL_HOME/assets.",
    )
    webhook_secret: str = Field(
        default="",
        repr=False,
        validation_alias=AliasChoices("KDAL_WEBHOOK_SECRET", "webhook_secret"),
        description="Sent by Label Studio with each event; default: made once and kept in KDAL_HOME.",
    )
    auth_user: str = Field(default="", validation_alias=AliasChoices("KDAL_AUTH_USER", "auth_user"))
    auth_password: str = Field(
        default="", repr=False, validation_alias=AliasChoices("KDAL_AUTH_PASSWORD", "auth_password")
    )
    device: str = Field(
        default="auto",
        validation_alias=AliasChoices("KDAL_DEVICE", "device"),
        description="auto, cpu or cuda.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        validation_alias=AliasChoices("KDAL_THREADS", "threads"),
        description="CPU threads of a training worker; 0: all cores but one, which stays with the annotators.",
    )
    reconcile_seconds: float = Field(
        default=30.0,
        gt=0,
        validation_alias=AliasChoices("KDAL_RECONCILE_SECONDS", "reconcile_seconds"),
        description="How often the worker compares itself with Label Studio, events or none.",
    )
    cache_bytes: int = Field(
        default=2 * 1024**3,
        gt=0,
        validation_alias=AliasChoices("KDAL_CACHE_BYTES", "cache_bytes"),
        description="How large the cache of images may grow.",
    )
    max_image_bytes: int = Field(
        default=64 * 1024**2,
        gt=0,
        validation_alias=AliasChoices("KDAL_MAX_IMAGE_BYTES", "max_image_bytes"),
        description="A larger image file is set aside.",
    )
    max_image_pixels: int = Field(
        default=50_000_000,
        gt=0,
        validation_alias=AliasChoices("KDAL_MAX_IMAGE_PIXELS", "max_image_pixels"),
        description="An image of more pixels is set aside before it is decoded.",
    )
    local_files_root: Path | None = Field(
        default=None,
        validation_alias=AliasChoices(
            "KDAL_LOCAL_FILES_ROOT", "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", "local_files_root"
        ),
        description="The only folder from which images are read as local files.",
    )
    worker_id: str = Field(
        default="worker-1",
        validation_alias=AliasChoices("KDAL_WORKER_ID", "worker_id"),
        description="A worker's name; it finds its interrupted work again under the same name.",
    )

    @field_validator("label_studio_url", "url")
    @classmethod
    def _without_trailing_slash(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @classmethod
    def load(cls) -> Settings:
        """Read the environment; a wrong value is a `ConfigError` that names the variable."""
        try:
            return cls()
        except ValidationError as error:
            problems = "; ".join(f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"settings: {problems}") from error

    @cached_property
    def sqlalchemy_url(self) -> str:
        """URL of the tables; the folder of a default SQLite file is made."""
        if self.database_url:
            return self.database_url
        return f"sqlite:///{self.home_folder / 'kdal.sqlite'}"

    @cached_property
    def dbos_url(self) -> str:
        """URL of the workflow engine's own tables: a SQLite file beside ours, or the same PostgreSQL."""
        if self.sqlalchemy_url.startswith("sqlite:///"):
            return self.sqlalchemy_url.removesuffix(".sqlite") + "-workflows.sqlite"
        return self.sqlalchemy_url

    @cached_property
    def home_folder(self) -> Path:
        """KDAL_HOME, absolute and made."""
        folder = self.home.expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def assets_root(self) -> str:
        """Where assets live: an absolute folder or an s3:// prefix."""
        if self.assets.startswith("s3://"):
            return self.assets.rstrip("/")
        return str(Path(self.assets).expanduser().absolute() if self.assets else self.home_folder / "assets")

    @cached_property
    def secret(self) -> str:
        """The webhook's secret: as set, or made once and shared by all processes of KDAL_HOME."""
        if self.webhook_secret:
            return self.webhook_secret
        path = self.home_folder / "webhook-secret"
        try:
            # O_EXCL: of two processes that start together, one writes and the other reads.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
        except FileExistsError:
            pass
        secret = path.read_text().strip()
        if not secret:
            raise ConfigError(f"{path} is empty: delete it, and kdal will make a new secret")
        return secret

    @cached_property
    def torch_threads(self) -> int:
        """CPU threads that one training process takes."""
        return self.threads or max(1, (os.cpu_count() or 2) - 1)


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "settings"
    field = Settings.model_fields.get(name)
    if field is None:
        return name
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else name.upper()
