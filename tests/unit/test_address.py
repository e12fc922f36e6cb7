"""How an address is written, and what is said of one that is wrong."""

import pytest
from pydantic import ValidationError

from recsys.address import Address
from recsys.settings import Settings


def test_a_server():
    one = Address.parse("redis://10.0.0.7:6400/2")
    assert (one.nodes, one.cluster, one.where) == ((("10.0.0.7", 6400),), False, "10.0.0.7:6400")
    assert one.node(*one.nodes[0]) == "redis://10.0.0.7:6400/2"
    assert Address.parse("redis://redis").nodes == (("redis", 6379),)
    assert Address.parse("redis://[::1]:7/0").nodes == (("::1", 7),)
    assert (one.database, one.tls, one.login) == (2, False, {})
    assert Address.parse("redis://:p%40ss@a").login == {"password": "p@ss"}


def test_a_cluster_keeps_what_is_said_besides_for_every_node():
    one = Address.parse("rediss+cluster://feast:p%40ss@a:1,b:2,[::1]:3?ssl_cert_reqs=none")
    assert one.cluster
    assert one.nodes == (("a", 1), ("b", 2), ("::1", 3))
    assert one.where == "a:1, b:2, ::1:3"
    assert (one.database, one.tls, one.login) == (0, True, {"username": "feast", "password": "p@ss"})
    assert one.node("10.1.2.3", 7000) == "rediss://feast:p%40ss@10.1.2.3:7000?ssl_cert_reqs=none"
    assert one.node("::1", 3) == "rediss://feast:p%40ss@[::1]:3?ssl_cert_reqs=none"
    assert Address.parse("redis+cluster://config.example").nodes == (("config.example", 6379),)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:s3cret@a", "must be redis://HOST:PORT/DB or redis\\+cluster://HOST:PORT,HOST:PORT"),
        ("a:6379", "must be redis://"),
        ("redis://:s3cret@a:1,b:2", "a cluster is redis\\+cluster://a:1,b:2"),
        ("redis+cluster://a:1,b:2/3", "no databases but 0 \\(got /3\\)"),
        ("redis://a/first", "a database is a number \\(got /first\\)"),
        ("redis+cluster://a:1,:2", "every node needs a host"),
        ("redis+cluster://a:1,", "every node needs a host"),
        ("redis://a:port", "a port must be a number"),
        ("redis+cluster://a:1,b:70000", "a port must be a number"),
    ],
)
def test_what_is_none_is_refused_without_its_password(url: str, said: str):
    with pytest.raises(ValueError, match=said) as refused:
        Address.parse(url)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ValidationError, match=said):
        Settings(redis_url=url, _env_file=None)
