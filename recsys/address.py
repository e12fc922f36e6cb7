"""Where the online store is: one server, or the nodes of a Redis Cluster.

`redis://host:port/db` is a server, `redis+cluster://host:port,host:port` a cluster, of which some nodes are named and
the others found by asking them; `rediss` instead of `redis` is TLS. A user, a password and options stand as in any URL.
"""

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, unquote, urlsplit

_PORT: Final = 6379
_SERVER: Final = ("redis", "rediss")
_CLUSTER: Final = ("redis+cluster", "rediss+cluster")


@dataclass(frozen=True)
class Address:
    """An address that is well formed.

    Attributes:
        nodes: (host, port) of the server, or of those nodes of the cluster that are named.
        cluster: whether it is one.
    """

    nodes: tuple[tuple[str, int], ...]
    cluster: bool
    _scheme: str
    _user: str
    _path: str
    _query: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address.

        Raises:
            ValueError: it is none; the message has no password.
        """
        parts = urlsplit(url)
        if parts.scheme not in (*_SERVER, *_CLUSTER):
            raise ValueError("must be redis://HOST:PORT/DB or redis+cluster://HOST:PORT,HOST:PORT (rediss… with TLS)")
        cluster = parts.scheme in _CLUSTER
        user, _, hosts = parts.netloc.rpartition("@")
        if not cluster and "," in hosts:
            raise ValueError(f"names several servers: a cluster is redis+cluster://{hosts}")
        if cluster and parts.path not in ("", "/", "/0"):
            raise ValueError(f"a cluster has no databases but 0 (got {parts.path})")
        if parts.path.strip("/") and not parts.path.strip("/").isdecimal():
            raise ValueError(f"a database is a number (got {parts.path})")
        nodes = tuple(_node(parts, host) for host in hosts.split(","))
        return cls(nodes, cluster, parts.scheme.removesuffix("+cluster"), user, parts.path, parts.query)

    @property
    def where(self) -> str:
        """Hosts and ports, for messages."""
        return ", ".join(f"{host}:{port}" for host, port in self.nodes)

    @property
    def database(self) -> int:
        """Its number; a cluster has only 0."""
        return int(self._path.strip("/") or 0)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._scheme == "rediss"

    @property
    def login(self) -> dict[str, str]:
        """`username` and `password`, those that it says."""
        name, _, password = self._user.partition(":")
        return {key: unquote(said) for key, said in (("username", name), ("password", password)) if said}

    def node(self, host: str, port: int) -> str:
        """The URL of one node, with what the address says besides."""
        at = f"[{host}]" if ":" in host else host
        user = f"{self._user}@" if self._user else ""
        query = f"?{self._query}" if self._query else ""
        return f"{self._scheme}://{user}{at}:{port}{self._path}{query}"


def _node(parts: SplitResult, host: str) -> tuple[str, int]:
    one = parts._replace(netloc=host)
    try:
        port = one.port
    except ValueError:
        raise ValueError(f"a port must be a number from 0 to 65535 (got {host!r})") from None
    if not one.hostname:
        if parts.scheme in _CLUSTER:
            raise ValueError(f"every node needs a host (got {host!r})")
        return "localhost", port or _PORT
    return one.hostname, _PORT if port is None else port
