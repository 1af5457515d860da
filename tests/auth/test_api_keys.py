from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from router_server.auth.api_keys import KeyRing, hash_of, new_key
from router_server.auth.key_set import Adding, Keys, KeysError, Revoking, Rotating
from router_server.config.callers import KeyConfig
from router_server.core.errors import Reason, RouterError
from router_server.core.principal import Principal, Quota

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def key(name: str, secret: str, **changes: object) -> KeyConfig:
    return KeyConfig.model_validate({"name": name, "sha256": hash_of(secret), **changes})


def problem_of(ring: KeyRing, shown: str) -> str:
    with pytest.raises(RouterError) as raised:
        ring.find(shown)
    assert raised.value.reason is Reason.UNAUTHENTICATED
    return raised.value.metadata["problem"]


def test_a_new_key_is_long_recognisable_and_never_the_same() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(one.startswith("mr-") and len(one) == 3 + 43 and one.isascii() for one in keys)


def test_whose_key_it_is() -> None:
    ring = KeyRing(
        [
            key("search", "one", routes=["chat*"], limits={"max_concurrency": 2}, labels={"team": "a"}),
            key("other", "two"),
        ]
    )
    assert ring.find("one") == Principal("key", "search", ("chat*",), Quota(max_concurrency=2), {"team": "a"})
    assert ring.find("two") == Principal("key", "other")
    assert ring.find("two").subject == "key/other"
    for shown in ("", "three", "One", "one ", hash_of("one")):
        assert problem_of(ring, shown) == "invalid"


def test_a_hash_that_is_like_another_in_its_first_bytes_is_another() -> None:
    good = hash_of("one")
    ring = KeyRing([KeyConfig(name="near", sha256=good[:16] + "0" * 48), key("search", "one")])
    assert ring.find("one").name == "search"
    assert problem_of(KeyRing([KeyConfig(name="near", sha256=good[:16] + "0" * 48)]), "one") == "invalid"


def test_a_key_ends_at_its_moment() -> None:
    now = NOW.timestamp()
    ring = KeyRing([key("search", "one", expires=NOW + timedelta(seconds=10))], lambda: now)
    assert ring.find("one").name == "search"
    now += 10
    assert problem_of(ring, "one") == "expired"


def test_routes_are_patterns() -> None:
    limited = Principal("key", "a", ("chat", "team-a/*"))
    assert [limited.may_call(r) for r in ("chat", "chat2", "team-a/x", "Chat", "embed")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert Principal("key", "a").may_call("anything")
    assert not Principal("key", "a", ()).may_call("anything")


def test_adding_and_revoking() -> None:
    keys: Keys = tuple(Adding(key("a", "1"))(()))
    keys = tuple(Adding(key("b", "2"))(keys))
    with pytest.raises(KeysError, match="a has a key already"):
        Adding(key("a", "3"))(keys)
    assert [one.name for one in Revoking("a")(keys)] == ["b"]
    with pytest.raises(KeysError, match="nobody called c"):
        Revoking("c")(keys)


def test_rotating_keeps_what_the_key_may_and_ends_the_one_before() -> None:
    keys: Keys = (key("a", "1", routes=["chat"], labels={"x": "y"}), key("b", "2"))
    ends = NOW + timedelta(hours=1)
    other, old, new = Rotating("a", hash_of("3"), NOW, ends)(keys)
    assert (other.name, old.expires, old.sha256) == ("b", ends, hash_of("1"))
    assert (new.sha256, new.routes, new.labels, new.expires) == (hash_of("3"), ("chat",), {"x": "y"}, None)
    # A second rotation leaves two: the oldest goes.
    _other, old, new = Rotating("a", hash_of("4"), NOW, ends)((other, old, new))
    assert (old.sha256, new.sha256) == (hash_of("3"), hash_of("4"))
    (only,) = Rotating("a", hash_of("5"), NOW, NOW)((new,))
    assert only.sha256 == hash_of("5")
    with pytest.raises(KeysError, match="nobody called c"):
        Rotating("c", hash_of("6"), NOW, ends)(keys)


def test_rotating_lengthens_no_life() -> None:
    soon = NOW + timedelta(minutes=1)
    old, new = Rotating("a", hash_of("2"), NOW, NOW + timedelta(days=1))((key("a", "1", expires=soon),))
    assert (old.expires, new.expires) == (soon, soon)
