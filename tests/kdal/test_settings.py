import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kdal.settings import Settings
from kdal_core.errors import ConfigError
from tests.paths import PYTHONPATH

SECRETS = {
    "LABEL_STUDIO_API_KEY": "token-that-is-secret",
    "KDAL_WEBHOOK_SECRET": "secret-of-the-webhook",
    "KDAL_AUTH_PASSWORD": "password-that-is-secret",
    "KDAL_DATABASE_URL": "postgresql://kdal:password-of-the-database@db/kdal",
}
VALUES = {
    "LABEL_STUDIO_URL": ("label_studio_url", "https://ls.example.com", "https://ls.example.com"),
    "LABEL_STUDIO_PUBLIC_URL": ("label_studio_public_url", "https://host/ls/", "https://host/ls"),
    "LABEL_STUDIO_API_KEY": ("label_studio_api_key", "abc", "abc"),
    "KDAL_URL": ("url", "http://kdal:9090", "http://kdal:9090"),
    "KDAL_HOME": ("home", "/srv/kdal", Path("/srv/kdal")),
    "KDAL_DATABASE_URL": ("database_url", "postgresql://db/kdal", "postgresql://db/kdal"),
    "KDAL_ASSETS": ("assets", "s3://bucket/prefix", "s3://bucket/prefix"),
    "KDAL_WEBHOOK_SECRET": ("webhook_secret", "s3cret", "s3cret"),
    "KDAL_DEVICE": ("device", "cuda:1", "cuda:1"),
    "KDAL_THREADS": ("threads", "3", 3),
    "KDAL_RECONCILE_SECONDS": ("reconcile_seconds", "2.5", 2.5),
    "KDAL_CACHE_BYTES": ("cache_bytes", "1000", 1000),
    "KDAL_KEEP_MODELS": ("keep_models", "7", 7),
    "KDAL_MAX_IMAGE_BYTES": ("max_image_bytes", "2000", 2000),
    "KDAL_MAX_IMAGE_PIXELS": ("max_image_pixels", "3000", 3000),
    "KDAL_TEACHERS": ("teachers", "/etc/kdal/teachers.yaml", Path("/etc/kdal/teachers.yaml")),
    "KDAL_LOCAL_FILES_ROOT": ("local_files_root", "/images", Path("/images")),
    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": ("local_files_root", "/images", Path("/images")),
    "KDAL_IMAGE_SOURCES": ("image_sources", "10.0.0.0/8, s3://photos", "10.0.0.0/8, s3://photos"),
    "KDAL_LOST_AFTER_SECONDS": ("lost_after_seconds", "90", 90.0),
    "KDAL_WORKER_ID": ("worker_id", "gpu-2", "gpu-2"),
}


@pytest.mark.parametrize("variable", VALUES)
def test_each_variable_sets_its_setting(env, variable):
    field, text, value = VALUES[variable]
    env.setenv(variable, text)
    assert getattr(Settings.load(), field) == value


def test_every_setting_has_a_variable_that_is_tested_here():
    tested = {field for field, _, _ in VALUES.values()} | {"auth_user", "auth_password"}
    assert tested == set(Settings.model_fields)


def test_user_and_password_of_basic_authentication_are_read(env):
    env.setenv("KDAL_AUTH_USER", "me")
    env.setenv("KDAL_AUTH_PASSWORD", "pass")
    settings = Settings.load()
    assert (settings.auth_user, settings.auth_password) == ("me", "pass")


@pytest.mark.parametrize("name", ["HOME", "URL", "THREADS", "DEVICE", "ASSETS", "DATABASE_URL", "WORKER_ID"])
def test_a_variable_that_is_not_kdals_is_left_alone(env, name):
    """$HOME above all: kdal would keep its files in the user's home folder."""
    before = Settings.load()
    env.setenv(name, "/elsewhere")
    assert Settings.load() == before


def test_the_defaults_work_without_any_variable(env, tmp_path):
    settings = Settings.load()
    assert settings.home_folder == tmp_path / ".kdal"
    assert settings.home_folder.is_dir()
    assert settings.sqlalchemy_url == f"sqlite:///{tmp_path}/.kdal/kdal.sqlite"
    assert settings.dbos_url == f"sqlite:///{tmp_path}/.kdal/kdal-workflows.sqlite"
    assert settings.assets_root == str(tmp_path / ".kdal" / "assets")
    assert settings.label_studio_url == "http://127.0.0.1:8080"
    assert settings.label_studio_public_url == ""
    assert settings.url == "http://127.0.0.1:9090"
    assert settings.torch_threads >= 1
    assert settings.local_files_root is None


def test_a_dotenv_file_is_read_and_the_environment_wins_over_it(env, tmp_path):
    (tmp_path / ".env").write_text("KDAL_THREADS=5\nKDAL_WORKER_ID=from-file\nSOMETHING_ELSE=1\n")
    env.setenv("KDAL_WORKER_ID", "from-environment")
    settings = Settings.load()
    assert (settings.threads, settings.worker_id) == (5, "from-environment")


def test_a_dotenv_file_that_is_no_text_is_a_config_error(env, tmp_path):
    (tmp_path / ".env").write_bytes(b"KDAL_WORKER_ID=\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"\.env"):
        Settings.load()


def test_user_and_password_are_made_once_for_all_who_share_the_folder(env, tmp_path):
    first, second = (Settings.load().with_credentials() for _ in range(2))
    assert (first.auth_user, first.auth_password) == (second.auth_user, second.auth_password)
    assert (first.auth_user, len(first.auth_password) >= 32) == ("kdal", True)
    file = tmp_path / ".kdal" / "credentials"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert first.auth_password not in repr(first)
    file.unlink()
    assert Settings.load().with_credentials().auth_password != first.auth_password


@pytest.mark.parametrize("text", ["", "\n", "kdal", "kdal:", ":secret", "kdal:secret\nmore"])
def test_a_damaged_file_of_user_and_password_is_a_config_error_that_says_what_to_do(env, tmp_path, text):
    (tmp_path / ".kdal").mkdir()
    (tmp_path / ".kdal" / "credentials").write_text(text)
    with pytest.raises(ConfigError, match=r"(?i)\.kdal/credentials.*delete it"):
        Settings.load().with_credentials()


def test_set_user_and_password_make_no_file(env, tmp_path):
    env.setenv("KDAL_AUTH_USER", "me")
    env.setenv("KDAL_AUTH_PASSWORD", "pass")
    assert Settings.load().with_credentials().auth_password == "pass"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_counts_as_not_set(env):
    env.setenv("KDAL_THREADS", "")
    env.setenv("KDAL_LOCAL_FILES_ROOT", "")
    settings = Settings.load()
    assert (settings.threads, settings.local_files_root) == (0, None)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LABEL_STUDIO_URL", "127.0.0.1:8080"),
        ("LABEL_STUDIO_URL", "https://"),
        ("LABEL_STUDIO_URL", "http://["),
        ("LABEL_STUDIO_URL", "http://host:99999"),
        ("LABEL_STUDIO_URL", "http://host:0"),
        ("LABEL_STUDIO_URL", "http://me:secret@host"),
        ("LABEL_STUDIO_URL", "http://host/?next=/"),
        ("LABEL_STUDIO_PUBLIC_URL", "localhost:8080"),
        ("LABEL_STUDIO_PUBLIC_URL", "http://me@host"),
        ("LABEL_STUDIO_API_KEY", "two words"),
        ("LABEL_STUDIO_API_KEY", "ключ"),
        ("KDAL_URL", "ftp://kdal"),
        ("KDAL_DATABASE_URL", "not a database"),
        ("KDAL_DATABASE_URL", "postgresql://host:port/db"),
        ("KDAL_ASSETS", "s3://"),
        ("KDAL_ASSETS", "gs://bucket/prefix"),
        ("KDAL_WEBHOOK_SECRET", "line\nbreak"),
        ("KDAL_DEVICE", "tpu"),
        ("KDAL_DEVICE", "cuda:"),
        ("KDAL_THREADS", "-1"),
        ("KDAL_THREADS", "many"),
        ("KDAL_RECONCILE_SECONDS", "0"),
        ("KDAL_RECONCILE_SECONDS", "nan"),
        ("KDAL_RECONCILE_SECONDS", "inf"),
        ("KDAL_CACHE_BYTES", "2GB"),
        ("KDAL_MAX_IMAGE_BYTES", "0"),
        ("KDAL_MAX_IMAGE_PIXELS", "1000000000"),
        ("KDAL_IMAGE_SOURCES", "http://images.lan/"),
        ("KDAL_IMAGE_SOURCES", "images.lan, gs://bucket"),
        ("KDAL_AUTH_USER", "a user without a password"),
        ("KDAL_AUTH_PASSWORD", "a-password-without-a-user"),
    ],
)
def test_a_wrong_value_is_a_config_error_that_names_the_variable(env, variable, value):
    env.setenv(variable, value)
    with pytest.raises(ConfigError, match=variable):
        Settings.load()


def test_all_wrong_values_are_named_at_once(env):
    env.setenv("KDAL_THREADS", "many")
    env.setenv("KDAL_URL", "kdal")
    with pytest.raises(ConfigError, match=r"(?s)(?=.*KDAL_THREADS)(?=.*KDAL_URL)"):
        Settings.load()


def test_secrets_never_show_in_the_text_of_the_settings(env):
    env.setenv("KDAL_AUTH_USER", "me")
    for name, value in SECRETS.items():
        env.setenv(name, value)
    settings = Settings.load()
    shown = repr(settings) + str(settings)
    assert [value for value in SECRETS.values() if value in shown] == []
    assert "password-of-the-database" not in shown


def test_a_wrong_secret_is_not_repeated_in_the_message(env):
    env.setenv("KDAL_DATABASE_URL", "postgresql://kdal:hunter2@host:port/kdal")
    env.setenv("LABEL_STUDIO_API_KEY", "hunter2 hunter2")
    with pytest.raises(ConfigError) as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)


def test_addresses_lose_their_trailing_slashes(env):
    env.setenv("LABEL_STUDIO_URL", "http://ls.example.com/label-studio//")
    env.setenv("KDAL_URL", "http://kdal:9090/")
    settings = Settings.load()
    assert (settings.label_studio_url, settings.url) == ("http://ls.example.com/label-studio", "http://kdal:9090")


def test_a_token_pasted_with_a_line_break_works(env):
    env.setenv("LABEL_STUDIO_API_KEY", " abcdef\n")
    assert Settings.load().label_studio_api_key == "abcdef"


@pytest.mark.parametrize(
    ("given", "root"),
    [("s3://bucket/prefix/", "s3://bucket/prefix"), ("s3://bucket", "s3://bucket"), ("/srv/assets", "/srv/assets")],
)
def test_assets_are_a_bucket_or_an_absolute_folder(env, given, root):
    env.setenv("KDAL_ASSETS", given)
    assert Settings.load().assets_root == root


def test_a_relative_folder_of_assets_is_below_the_working_folder(env, tmp_path):
    env.setenv("KDAL_ASSETS", "data/assets")
    assert Settings.load().assets_root == str(tmp_path / "data" / "assets")


def test_workflows_share_a_postgresql_with_the_tables(env):
    env.setenv("KDAL_DATABASE_URL", "postgresql://db/kdal")
    assert Settings.load().dbos_url == "postgresql://db/kdal"


def test_a_home_that_cannot_be_made_is_a_config_error(env, tmp_path):
    (tmp_path / "file").write_text("")
    env.setenv("KDAL_HOME", str(tmp_path / "file" / "kdal"))
    with pytest.raises(ConfigError, match="KDAL_HOME"):
        _ = Settings.load().home_folder


# ---------------------------------------------------------------------- the webhook's secret


def test_the_secret_is_made_once_and_read_by_later_starts(env):
    first = Settings.load().secret
    assert len(first) >= 32
    assert Settings.load().secret == first


def test_the_secret_that_was_set_is_used_and_not_written(env, tmp_path):
    env.setenv("KDAL_WEBHOOK_SECRET", "mine")
    assert Settings.load().secret == "mine"
    assert not (tmp_path / ".kdal" / "webhook-secret").exists()


def test_only_the_owner_may_read_the_secrets_file(env, tmp_path):
    _ = Settings.load().secret
    assert (tmp_path / ".kdal" / "webhook-secret").stat().st_mode & 0o777 == 0o600


def test_an_empty_secrets_file_is_a_config_error_that_says_what_to_do(env, tmp_path):
    (tmp_path / ".kdal").mkdir()
    (tmp_path / ".kdal" / "webhook-secret").write_text("\n")
    with pytest.raises(ConfigError, match="delete it"):
        _ = Settings.load().secret


def test_processes_that_start_at_once_agree_on_one_secret(env, tmp_path):
    """All wait for the same file, so that they look for the secret in the same moment."""
    program = (
        "import pathlib, time\n"
        "from kdal.settings import Settings\n"
        "settings = Settings.load()\n"
        "print('ready', flush=True)\n"
        "while not pathlib.Path('go').exists(): pass\n"
        "print(settings.secret)\n"
    )
    env.setenv("PYTHONPATH", PYTHONPATH)
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    found = {child.communicate(timeout=60)[0].strip() for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(found) == 1
    assert len(found.pop()) >= 32
    assert [path.name for path in (tmp_path / ".kdal").iterdir()] == ["webhook-secret"]
