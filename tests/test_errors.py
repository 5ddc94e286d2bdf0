from __future__ import annotations

import pytest

from filters.config.filter import InputConfig
from filters.errors import InputError, as_shown, has_user, shown, without_secrets

SECRET = "S1gn4tureS1gn4ture"
SIGNED = [
    f"https://b.s3.amazonaws.com/in.jsonl?X-Amz-Algorithm=AWS4&X-Amz-Credential=AK%2F20260101&X-Amz-Signature={SECRET}",
    f"https://b.s3.amazonaws.com/in.jsonl?AWSAccessKeyId=AKID&Signature={SECRET}&Expires=17000000",
    f"https://storage.googleapis.com/b/in.jsonl?X-Goog-Signature={SECRET}&X-Goog-Date=20260101T000000Z",
    f"https://a.blob.core.windows.net/c/in.jsonl?sv=2024-01-01&se=2026-01-01&sr=b&sp=r&sig={SECRET}",
    f"https://cdn.example/in.jsonl?Policy=x&Key-Pair-Id=K1&Signature={SECRET}",
    f"https://h.example/in.jsonl?token={SECRET}",
    f"https://h.example/in.jsonl?access_token={SECRET}",
    f"https://h.example/in.jsonl?api_key={SECRET}",
    f"https://h.example/in.jsonl?t={SECRET}{SECRET}",
]


@pytest.mark.parametrize("address", SIGNED)
def test_what_signs_an_address_is_not_shown_and_renewing_it_changes_nothing(address: str) -> None:
    assert shown(address) == address.partition("?")[0]
    assert shown(address.replace(SECRET, "AnotherSignature12").replace("2026", "2027")) == shown(address)
    said = SECRET * (1 + address.count(SECRET * 2))
    message = str(InputError(f"{address}: gone (404, url='{address}'), server said {said}"))
    assert SECRET not in message
    assert "in.jsonl: gone" in message


def test_what_names_a_file_stays() -> None:
    for address in (
        "https://h.example/resolve/main/a.jsonl?download=true",
        "https://h.example/get?id=17&part=b/c.jsonl",
        "s3://bucket/a/*.parquet",
        "hf://datasets/owner/name@refs/convert/a.parquet",
        "abfs://container@account.dfs.core.windows.net/a",
        "pages?token=abc/a.jsonl",
    ):
        assert shown(address) == address
        assert not has_user(address)
    assert shown("https://h.example/get?id=17&sig=abc") == "https://h.example/get?id=17"
    assert shown("https://h.example/get?id=17;sig=abc;part=2") == "https://h.example/get?id=17;part=2"
    for address in ("http://h.example:8080/a@b", "http://[::1]:80/a@b", "s3://bucket/a:b@c", "http://h.example:80"):
        assert shown(address) == address
        assert not has_user(address)


@pytest.mark.parametrize(
    "address", ["s3://AKIA:{}@bucket/a", "http://user:{}@h.example/a", "simplecache::http://u:{}@h/a"]
)
def test_a_password_may_hold_slashes(address: str) -> None:
    address = address.format("S3/cr+et/7/8")
    assert has_user(address)
    assert "cr+et" not in shown(address)
    with pytest.raises(ValueError, match="no user name or password in an address") as error:
        InputConfig(kind="jsonl", paths=(address,))
    assert "S3/" not in str(error.value)


def test_users_and_passwords_are_seen_and_not_shown() -> None:
    for address in (
        "https://bob:secret@h.example/a",
        "http://secret@h.example:80/a?b=c",
        "s3://key:secret@bucket/a",
        "simplecache::https://bob:secret@h.example/a",
        "zip://a.jsonl::https://bob:secret@h.example/a.zip",
        "abfs://c:secret@account/a",
    ):
        assert has_user(address)
        assert "secret" not in shown(address)
        assert "secret" not in without_secrets(f"cannot read ({address}): {address}")


def test_every_address_in_a_config_is_shown_so() -> None:
    assert as_shown({"paths": [SIGNED[0], 7, None], "prefix": SIGNED[5]}) == {
        "paths": ["https://b.s3.amazonaws.com/in.jsonl", 7, None],
        "prefix": "https://h.example/in.jsonl",
    }
