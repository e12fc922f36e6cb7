"""A real Redis Cluster on loopback: three primaries, each with a replica where that is asked for."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import redis
from redis.cluster import ClusterNode

from recsys.address import Address
from recsys.services import COMPACT, _binary
from tests.conftest import free_port

PRIMARIES, SLOTS = 3, 16_384


def until(holds: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    """Wait for a condition; a server that is starting, or ends, is not there yet."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if holds():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, f"{what}: not within {within_s:g} s"
        time.sleep(0.01)


@dataclass
class Member:
    """One server."""

    port: int
    bus: int
    folder: Path
    options: tuple[str, ...]
    process: "subprocess.Popen[bytes]" = field(init=False)
    client: redis.Redis = field(init=False)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [str(_binary()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
             "--logfile", str(self.folder / "server.log"), "--cluster-enabled", "yes", "--cluster-port", str(self.bus),
             *COMPACT, *self.options],
        )  # fmt: skip
        self.client = redis.Redis(port=self.port, socket_timeout=5.0)

    def started(self) -> None:
        until(lambda: bool(self.client.ping()), f"the server at {self.port} answers")

    def kill(self) -> None:
        """At once, as a machine dies."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def says(self, name: str) -> str:
        """A line of what it knows of the cluster."""
        info: dict[str, str] = self.client.cluster("info")
        return info[name]

    def is_primary(self) -> bool:
        return self.client.info("replication")["role"] == "master"


@dataclass
class Cluster:
    """Members: the primaries, then a replica of each in the same order, where there are any."""

    members: list[Member]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{m.port}" for m in self.members[:PRIMARIES])

    @property
    def primaries(self) -> list[Member]:
        return self.members[:PRIMARIES]

    @property
    def replicas(self) -> list[Member]:
        return self.members[PRIMARIES:]

    def owner(self, key: bytes) -> Member:
        """The first primary's opinion of whose a key is, when all were made."""
        slot = int(self.members[0].client.cluster("keyslot", key))
        return self.members[slot * PRIMARIES // SLOTS]

    def whole(self) -> bool:
        """Whether everybody that lives says that every slot is served: the state is "ok" also before all are known."""
        alive = [m for m in self.members if m.process.poll() is None]
        said = ("cluster_state", "ok"), ("cluster_slots_ok", str(SLOTS))
        return all(m.says(name) == value for m in alive for name, value in said)


@contextmanager
def cluster(folder: Path, *, replicas: bool = False, timeout_ms: int = 1_000) -> Iterator[Cluster]:
    """Servers that have met, own all slots, and answer for their own where another one is away.

    Args:
        folder: of their files.
        replicas: whether each primary has one.
        timeout_ms: how long a server may be silent before the others take it for dead.
    """
    options = ("--cluster-node-timeout", str(timeout_ms), "--cluster-require-full-coverage", "no",
               "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")  # fmt: skip
    ports = range(PRIMARIES * 2 if replicas else PRIMARIES)
    made = Cluster([Member(free_port(), free_port(), folder / str(n), options) for n in ports])
    try:
        for member in made.members:
            member.start()
        for member in made.members:
            member.started()
        for n, member in enumerate(made.members[:PRIMARIES]):
            begin, end = (-(-SLOTS * k // PRIMARIES) for k in (n, n + 1))
            member.client.execute_command("CLUSTER ADDSLOTSRANGE", begin, end - 1)
            member.client.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
        for member, other in combinations(made.members, 2):  # gossip would take seconds
            member.client.execute_command("CLUSTER MEET", "127.0.0.1", other.port, other.bus)
        n = len(made.members)
        until(lambda: all(m.says("cluster_known_nodes") == str(n) for m in made.members), "all know each other")
        for primary, replica in zip(made.primaries, made.replicas, strict=False):
            replicate = "CLUSTER REPLICATE", str(primary.client.cluster("myid"), "ascii")
            until(lambda r=replica, asked=replicate: bool(r.client.execute_command(*asked)), "replicas know whose")
        until(lambda: made.whole(), "every slot is served")
        for replica in made.replicas:
            until(
                lambda r=replica: r.client.info("replication").get("master_link_status") == "up", "replicas are in step"
            )
        yield made
    finally:
        for member in made.members:
            if hasattr(member, "process"):
                member.kill()
                member.client.close()


def copy(single: str, many: str) -> None:
    """What one server holds, into a cluster."""
    nodes = [ClusterNode(*at) for at in Address.parse(many).nodes]
    with redis.Redis.from_url(single) as full, redis.RedisCluster(startup_nodes=nodes) as new:
        keys = list(full.scan_iter(count=10_000))
        dumped, restored = full.pipeline(transaction=False), new.pipeline()
        for key in keys:
            dumped.dump(key)
        for key, value in zip(keys, dumped.execute(), strict=True):
            restored.restore(key, 0, value)
        restored.execute()
