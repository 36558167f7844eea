"""How kdal is set up on a machine: environment variables, or a `.env` file in the working directory."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from kdal.logs import keep_secret
from kdal.own_secrets import kept_once
from kdal_core.errors import ConfigError

ENV_FILE = ".env"
QUOTES = ("'", '"', "\u2018", "\u201c", "\u201e")
CREDENTIALS, USER = "credentials", "kdal"
"""The file in KDAL_HOME with user and password, and the user that kdal makes."""
ENCODING = "utf-8-sig"
"""Of `.env`: editors on Windows put a byte-order mark before the first name."""


class Settings(BaseSettings):
    """Every setting of kdal. The variable of a field is KDAL_ and its name in capitals, unless it says otherwise.

    What belongs to one project (budget, strategy, models, ...) is not here but in its policy:
    the "extra params" of the ML backend in Label Studio, see `kdal.policy`.
    """

    # A variable's name is KDAL_ and the field's: never the bare name, or $HOME and $URL would be taken for ours.
    model_config = SettingsConfigDict(
        env_prefix="KDAL_",
        env_file=ENV_FILE,
        env_file_encoding=ENCODING,
        extra="ignore",
        env_ignore_empty=True,
        populate_by_name=True,
        frozen=True,
    )

    label_studio_url: str = Field(
        default="http://127.0.0.1:8080",
        validation_alias="LABEL_STUDIO_URL",
        description="Where kdal reaches Label Studio.",
    )
    label_studio_public_url: str = Field(
        default="",
        validation_alias="LABEL_STUDIO_PUBLIC_URL",
        description="Where people reach Label Studio (its LABEL_STUDIO_HOST), if that differs from LABEL_STUDIO_URL.",
    )
    label_studio_api_key: str = Field(
        default="",
        repr=False,
        validation_alias="LABEL_STUDIO_API_KEY",
        description="A token of Label Studio: legacy token or personal access token.",
    )
    url: str = Field(default="http://127.0.0.1:9090", description="Where Label Studio reaches kdal.")
    home: Path = Field(
        default=Path(".kdal"),
        description="A folder for the database, the secret, the image cache and, by default, the assets.",
    )
    database_url: str = Field(
        default="",
        repr=False,  # it may hold a password
        description="SQLAlchemy URL; default: SQLite in KDAL_HOME.",
    )
    assets: str = Field(default="", description="A folder or s3://bucket/prefix; default: KDAL_HOME/assets.")
    webhook_secret: str = Field(
        default="",
        repr=False,
        description="Sent by Label Studio with each event; default: made once and kept in KDAL_HOME.",
    )
    auth_user: str = Field(
        default="",
        description="User whom kdal's server asks for; default: made once with a password, and kept in KDAL_HOME.",
    )
    auth_password: str = Field(default="", repr=False, description="Password that goes with KDAL_AUTH_USER.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:1.")
    threads: int = Field(
        default=0,
        ge=0,
        description="CPU threads of a training worker; 0: all cores but one, which stays with the annotators.",
    )
    reconcile_seconds: float = Field(
        default=30.0,
        gt=0,
        allow_inf_nan=False,
        description="How often the worker compares itself with Label Studio, events or none.",
    )
    keep_models: int = Field(
        default=20,
        ge=1,
        description="The newest models of a project whose weights are kept; so are those that are needed, however old.",
    )
    cache_bytes: int = Field(default=2 * 1024**3, gt=0, description="How large the cache of images may grow.")
    max_image_bytes: int = Field(default=64 * 1024**2, gt=0, description="A larger image file is not used.")
    max_image_pixels: int = Field(
        default=50_000_000,
        gt=0,
        le=178_956_970,  # more than that Pillow refuses by itself
        description="An image of more pixels is not used; it is not even decoded.",
    )
    local_files_root: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("KDAL_LOCAL_FILES_ROOT", "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"),
        description="The only folder from which images are read as local files.",
    )
    image_sources: str = Field(
        default="",
        description="Hosts, host:port, networks (10.1.0.0/16) and s3://buckets where images may be read, separated by "
        "commas: those on private networks, and buckets that are no storage of the project in Label Studio.",
    )
    teachers: Path | None = Field(
        default=None,
        description="A YAML file with the black-box teachers that projects may name, see `kdal.teachers.catalogue`.",
    )
    lost_after_seconds: float = Field(
        default=60.0,
        ge=1,
        allow_inf_nan=False,
        description="How long a worker may give no sign of life before another one takes its rounds over.",
    )
    worker_id: str = Field(
        default="worker-1",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="A worker's name; it finds its interrupted work again under the same name.",
    )

    @field_validator("label_studio_url", "label_studio_public_url", "url")
    @classmethod
    def _web_address(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.field_name == "label_studio_public_url":
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https"):
            quoted = ", without quotation marks around it" if value[:1] in QUOTES else ""
            raise ValueError(f"must start with http:// or https://{quoted}")
        if not parts.hostname or parts.port == 0:  # a port that is no number raises by itself
            raise ValueError("names no host: expected something like http://127.0.0.1:8080")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("must be an address alone, without a user, a password, a query or a fragment")
        return value.rstrip("/")

    @field_validator("label_studio_api_key", "webhook_secret")
    @classmethod
    def _fit_for_a_header(cls, value: str) -> str:
        value = value.strip()
        if not re.fullmatch(r"[\x21-\x7e]*", value):
            raise ValueError("must be ASCII letters, digits and signs, without spaces: it is sent in an HTTP header")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_address(cls, value: str) -> str:
        try:
            if value:
                make_url(value)
        except (ArgumentError, ValueError):  # their messages quote the address, and with it a password
            raise ValueError("is no SQLAlchemy URL such as postgresql+psycopg://user:password@host/kdal") from None
        return value

    @field_validator("assets")
    @classmethod
    def _folder_or_bucket(cls, value: str) -> str:
        scheme, found, rest = value.partition("://")
        if found and (scheme != "s3" or not rest.strip("/")):
            raise ValueError("must be a folder or s3://bucket/prefix")
        return value

    @field_validator("image_sources")
    @classmethod
    def _hosts_networks_and_buckets(cls, value: str) -> str:
        for item in _items(value):
            if not re.fullmatch(r"s3://[A-Za-z0-9.\-_]+/?|\[?[A-Za-z0-9.\-_:]+\]?(:[0-9]{1,5})?(/[0-9]{1,3})?", item):
                raise ValueError(
                    "must be hosts (images.lan), hosts with a port (127.0.0.1:8000), networks (10.1.0.0/16) and "
                    f"buckets (s3://bucket), separated by commas, and {item[:60]!r} is none of these"
                )
        return value

    @field_validator("device")
    @classmethod
    def _device_name(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", value):
            raise ValueError("must be auto, cpu, cuda or, to name one of several, cuda:1")
        return value

    @model_validator(mode="after")
    def _user_and_password(self) -> Settings:
        # With one of them alone the server would accept an empty password, or ask for another user than the one meant.
        if bool(self.auth_user) != bool(self.auth_password):
            raise ValueError("KDAL_AUTH_USER and KDAL_AUTH_PASSWORD: set both, or neither")
        return self

    @model_validator(mode="after")
    def _keep_secrets(self) -> Settings:
        password = make_url(self.database_url).password if self.database_url else None
        keep_secret(self.label_studio_api_key, self.webhook_secret, self.auth_password, password)
        return self

    @classmethod
    def load(cls) -> Settings:
        """Read the environment; a wrong value is a `ConfigError` that names the variable."""
        try:
            return cls()
        except ValidationError as error:
            problems = "; ".join(_explain(e["loc"], e["msg"]) for e in error.errors())
            raise ConfigError(f"settings: {problems}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(error) from error

    @staticmethod
    def export_aws() -> None:
        """Put the AWS_* of `.env` into the environment, where it has none: boto3 reads that, but no `.env`."""
        try:
            values = dotenv_values(ENV_FILE, encoding=ENCODING)
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(error) from error
        for name, value in values.items():
            if name.startswith("AWS_") and value is not None:
                os.environ.setdefault(name, value)
        keep_secret(os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("AWS_SESSION_TOKEN"))

    @cached_property
    def sqlalchemy_url(self) -> str:
        """URL of the tables; `kdal.storage.database.Storage` makes the folder of a SQLite file."""
        return self.database_url or f"sqlite:///{self.home_path / 'kdal.sqlite'}"

    @cached_property
    def dbos_url(self) -> str:
        """URL of the workflow engine's own tables: a SQLite file beside ours, or the same PostgreSQL."""
        if self.sqlalchemy_url.startswith("sqlite:///"):
            return self.sqlalchemy_url.removesuffix(".sqlite") + "-workflows.sqlite"
        return self.sqlalchemy_url

    @cached_property
    def home_path(self) -> Path:
        """KDAL_HOME, absolute, whether it is there or not."""
        return _absolute(self.home, "KDAL_HOME")

    @cached_property
    def home_folder(self) -> Path:
        """KDAL_HOME, absolute and made."""
        folder = self.home_path
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"KDAL_HOME: the folder {folder} cannot be made ({error.strerror})") from error
        return folder

    @cached_property
    def assets_root(self) -> str:
        """Where assets live: an absolute folder or an s3:// prefix."""
        if self.assets.startswith("s3://"):
            return self.assets.rstrip("/")
        return str(_absolute(Path(self.assets), "KDAL_ASSETS") if self.assets else self.home_path / "assets")

    @cached_property
    def secret(self) -> str:
        """The webhook's secret: as set, or made once and shared by all processes of KDAL_HOME."""
        if self.webhook_secret:
            return self.webhook_secret
        path = self.home_folder / "webhook-secret"
        secret = kept_once(path, lambda: secrets.token_urlsafe(32), "the webhook's secret")
        keep_secret(secret)
        return secret

    def with_credentials(self) -> Settings:
        """The same with user and password: as set, or made once and shared by all processes of KDAL_HOME.

        Raises:
            ConfigError: the file in KDAL_HOME cannot be made or read, or holds no user and password.
        """
        if self.auth_user:
            return self
        path = self.home_folder / CREDENTIALS
        text = kept_once(path, lambda: f"{USER}:{secrets.token_urlsafe(24)}\n", "the user and password in")
        user, _, password = text.partition(":")
        if not user or not password or "\n" in text:
            raise ConfigError(
                f"{path} must hold one line, user:password. Delete it, and kdal will make it anew, "
                "or set KDAL_AUTH_USER and KDAL_AUTH_PASSWORD"
            )
        keep_secret(password)
        return self.model_copy(update={"auth_user": user, "auth_password": password})

    @cached_property
    def fingerprint(self) -> str:
        """Stands for user and password among the tables. Without the webhook's secret it tells nothing of them."""
        full = self.with_credentials()
        told = f"{full.auth_user}\0{full.auth_password}"
        return hmac.new(self.secret.encode(), told.encode(), hashlib.sha256).hexdigest()

    @property
    def image_sources_list(self) -> list[str]:
        """`image_sources`, one by one."""
        return _items(self.image_sources)

    @cached_property
    def torch_threads(self) -> int:
        """CPU threads that one training process takes."""
        return self.threads or max(1, (os.cpu_count() or 2) - 1)

    def use_threads(self) -> None:
        """Let torch, and what computes for numpy, scipy and faiss, take as many CPU threads as these settings say.

        Two threads of a linear algebra library beside another busy process can take ten times as long as one.
        """
        import faiss
        import scipy.linalg
        import torch
        from threadpoolctl import threadpool_limits

        _ = faiss, scipy.linalg  # only what is loaded can be limited
        torch.set_num_threads(self.torch_threads)
        threadpool_limits(self.torch_threads)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _absolute(path: Path, variable: str) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # "~name" of a user that this machine does not have
        raise ConfigError(f"{variable}: {path} cannot be found: {error}") from error


def _unreadable(error: Exception) -> ConfigError:
    return ConfigError(f"settings: the file {ENV_FILE} cannot be read: {error}; it must be a text file in UTF-8")


def _explain(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message
    name = str(location[0])
    return f"{name if name.isupper() else 'KDAL_' + name.upper()}: {message}"
