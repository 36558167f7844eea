"""What all kdals that share a database must have in common: user, password and the webhook's secret."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError

from kdal.settings import Settings
from kdal.storage.database import Storage
from kdal.storage.tables import Installation
from kdal_core.errors import ConfigError

SECRETS = "secrets"


def agree_on_secrets(storage: Storage, settings: Settings) -> None:
    """Note which secrets this kdal has, or see that they are those of the others.

    Label Studio is told one user, one password and one secret for all of them. Those that are made by themselves lie in
    KDAL_HOME: a second machine would make others, and each would undo what the other tells Label Studio. Set by the
    environment they may change: the worker then tells Label Studio.

    Args:
        storage: the tables.
        settings: as they were set, without what was made by itself.

    Raises:
        ConfigError: another kdal uses these tables with other secrets, and some of ours are made rather than set.
    """
    try:
        agreed = _agree(storage, settings)
    except IntegrityError:  # the server and the worker start together: now it is there
        agreed = _agree(storage, settings)
    if not agreed:
        raise ConfigError(
            "another kdal uses this database (KDAL_DATABASE_URL) with another user, password or webhook secret; where "
            f"they are not set, each KDAL_HOME has its own, and here that is {settings.home_path}. Set KDAL_AUTH_USER, "
            "KDAL_AUTH_PASSWORD and KDAL_WEBHOOK_SECRET to the same on every machine (`kdal credentials` shows two of "
            "them), or give all of them one folder as KDAL_HOME"
        )


def _agree(storage: Storage, settings: Settings) -> bool:
    ours = settings.fingerprint
    with storage.session() as session:
        row = session.get(Installation, SECRETS)
        if row is None:
            session.add(Installation(name=SECRETS, value=ours))
        elif row.value != ours:
            alone = not settings.database_url  # the tables lie in KDAL_HOME, and so do the secrets
            if not alone and not (settings.auth_user and settings.webhook_secret):
                return False
            row.value = ours
        return True
