"""Clients of the online store: ours, of bytes, and the one of redis-py that Feast writes through."""

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from recsys.address import Address
from recsys.features.cluster import ClusterWire
from recsys.features.wire import Wire


def open_wire(address: Address, timeout_s: float | None) -> Wire | ClusterWire:
    """Connections that are made when they are needed; `timeout_s` of one round trip, None for jobs."""

    def connect(url: str) -> redis.Redis:
        # redis-py would try again for seconds against a dead or frozen server
        return redis.Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )

    if address.cluster:
        return ClusterWire(address, connect, timeout_s)
    return Wire(connect(address.node(*address.nodes[0])), timeout_s)


def open_client(address: Address, timeout_s: float | None) -> redis.Redis | redis.RedisCluster:
    """A client of redis-py; one of a cluster asks it at once who owns what.

    Raises:
        redis.RedisError: no node of the cluster answers.
    """
    waits: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    url = address.node(*address.nodes[0])
    if not address.cluster:
        return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **waits)
    try:
        others = [ClusterNode(*at) for at in address.nodes[1:]]  # type: ignore[no-untyped-call]
        return redis.RedisCluster(url=url, startup_nodes=others, **waits)
    except RedisClusterException as error:  # which is no RedisError
        raise redis.ConnectionError(str(error)) from error
