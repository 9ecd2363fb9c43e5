"""The signing keys on disk: made once, for their owner alone, replaced without breaking tokens."""

import json
import stat
from pathlib import Path

import pytest
from joserfc.jwk import RSAKey

from app.issuer.keys import KeysUnusable, SigningKeys

NOW = 1_800_000_000.0


def load(folder: Path, *, now: float = NOW, max_age: float = 1000.0) -> SigningKeys:
    return SigningKeys.load(folder, now=now, max_age=max_age, longest_lifetime=3600)


def kids(keys: SigningKeys) -> list[str]:
    return [each["kid"] for each in keys.public()["keys"]]


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "issuer"
    first = load(folder)
    assert kids(load(folder, now=NOW + 999)) == kids(first) == [first.kid]


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "issuer"
    load(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_served_is_public_and_named_by_its_thumbprint(tmp_path: Path) -> None:
    keys = load(tmp_path)
    (served,) = keys.public()["keys"]
    assert served.keys() == {"kty", "n", "e", "kid", "use", "alg"}
    assert (served["kty"], served["use"], served["alg"]) == ("RSA", "sig", "RS256")
    # RFC 7638, 3.2: of the required members alone.
    bare = RSAKey.import_key({name: served[name] for name in ("kty", "n", "e")})
    assert served["kid"] == bare.thumbprint() == keys.kid
    assert keys.current.public_key.key_size == 2048


def test_a_start_replaces_an_old_key_and_serves_it_while_its_tokens_live(tmp_path: Path) -> None:
    first = load(tmp_path)
    second = load(tmp_path, now=NOW + 1000)
    assert second.kid != first.kid
    assert kids(second) == [second.kid, first.kid]
    # 3600 s for the tokens, 600 s for clocks that differ.
    end = NOW + 1000 + 3600 + 600
    assert kids(load(tmp_path, now=end - 1, max_age=10_000)) == [second.kid, first.kid]
    assert kids(load(tmp_path, now=end, max_age=10_000)) == [second.kid]


def test_a_key_is_replaced_beside_an_issuer_that_goes_on_with_it(tmp_path: Path) -> None:
    first = load(tmp_path)
    rotated = SigningKeys.rotate(tmp_path, now=NOW + 1)
    # Who runs signs with the first one for days: it is served from the next start on.
    later = NOW + 500_000
    second = load(tmp_path, now=later, max_age=10**9)
    assert kids(second) == [rotated.kid, first.kid]
    assert kids(load(tmp_path, now=later + 4199, max_age=10**9)) == [rotated.kid, first.kid]
    assert kids(load(tmp_path, now=later + 4200, max_age=10**9)) == [rotated.kid]


def test_two_replacements_before_a_start(tmp_path: Path) -> None:
    first = load(tmp_path)
    second = SigningKeys.rotate(tmp_path, now=NOW)
    third = SigningKeys.rotate(tmp_path, now=NOW)
    assert kids(load(tmp_path)) == [third.kid, second.kid, first.kid]


def test_a_replacement_may_come_first(tmp_path: Path) -> None:
    made = SigningKeys.rotate(tmp_path / "new", now=NOW)
    assert kids(load(tmp_path / "new")) == [made.kid]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"current": {"kty": "oct", "k": "AA"}}'])
def test_a_file_that_holds_no_keys(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys.json").write_text(content)
    with pytest.raises(KeysUnusable, match="Remove it to create new ones"):
        load(tmp_path)


def test_a_key_of_another_kind(tmp_path: Path) -> None:
    load(tmp_path)
    file = tmp_path / "keys.json"
    held = json.loads(file.read_text())
    held["current"] = {"kty": "EC"}
    file.write_text(json.dumps(held))
    with pytest.raises(KeysUnusable):
        load(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeysUnusable):
        load(tmp_path / "file" / "issuer")
