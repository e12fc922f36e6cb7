"""The embedded online store, up and down."""

from jobs.report import Report
from recsys import services
from recsys.settings import Settings


def up(settings: Settings, report: Report) -> None:
    """Start it, unless it runs already or the address is another machine's."""
    server = ensure(settings)
    report.update(url=server.url, pid=server.pid, started=server.started)


def down(settings: Settings, report: Report) -> None:
    """Stop it; its data stay."""
    report["stopped"] = services.stop(settings.redis_url, settings.redis)


def ensure(settings: Settings) -> services.Server:
    """The online store, started if it is the embedded one and does not run."""
    return services.start(settings.redis_url, settings.redis, named="redis_url" in settings.model_fields_set)
