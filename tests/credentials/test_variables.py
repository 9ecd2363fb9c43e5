import pytest

from app.credentials import MASK, is_credential, shown_value


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "hf_token", "Hf_Token", "TOKEN", "WANDB_API_KEY", "wandb_api_key"),
        *("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "SSH_PRIVATE_KEY"),
        *("DB_PASSWORD", "PGPASSWORD", "PASSWORD", "PASSWORD_OF_DB", "MYSQL_PWD", "DB_PASS"),
        *("PASSWD", "GOOGLE_APPLICATION_CREDENTIALS", "GIT_CREDENTIAL", "SENTRY_DSN"),
        *("CLIENT_SECRET", "SECRET_NAME", "OPENAI_API_KEY_2", "HF_TOKEN2", "APIKEY", "SSHKEY"),
        *("apiKey", "accessToken", "clientSecret", "AUTHTOKEN", "KEY_PASSPHRASE", "GITHUB_PAT"),
        *("AZURE_STORAGE_CONNECTION_STRING", "SLACK_WEBHOOK_URL", "REDIS_AUTH", "_TOKEN_"),
    ],
)
def test_names_of_credentials(name: str) -> None:
    assert is_credential(name, "x")


@pytest.mark.parametrize(
    "name",
    [
        *("TOKENIZER_PATH", "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "TOKEN_LIMIT", "KEYBOARD"),
        *("MONKEY", "TURKEY", "KEY_COUNT", "PASSES", "COMPASS", "BYPASS_CACHE", "PATH", "PWD"),
        *("OLDPWD", "PYTHONPATH", "PATIENCE", "AUTHOR", "DATABASE_URL", "SECRETARY", "_", "X", "1"),
        *("OMP_NUM_THREADS", "NCCL_DEBUG", "HF_HOME", "WANDB_PROJECT", "DSNAME"),
    ],
)
def test_names_that_only_look_so_from_afar(name: str) -> None:
    assert not is_credential(name, "x")


@pytest.mark.parametrize(
    "value",
    [
        *("postgresql://me:pw@db/x", "redis://:pw@cache:6379", "https://ghp_abc@github.com/a/b"),
        *("see mongodb+srv://u:p@host", "-----BEGIN RSA PRIVATE KEY-----\nabc"),
    ],
)
def test_values_that_are_credentials_whatever_their_name(value: str) -> None:
    assert is_credential("DATABASE_URL", value)


@pytest.mark.parametrize(
    "value", ["postgresql://db/x", "https://a.example/b?to=me@a.example", "me@a.example", ""]
)
def test_values_that_are_none(value: str) -> None:
    assert not is_credential("DATABASE_URL", value)


def test_what_is_shown_stays_as_it_is_shown() -> None:
    assert shown_value("HF_TOKEN", "hf_1") == MASK
    assert shown_value("DATABASE_URL", "db://u:p@h") == MASK
    assert shown_value("HF_TOKEN", MASK) == shown_value("DATABASE_URL", MASK) == MASK
    assert shown_value("EPOCHS", "3") == "3"
