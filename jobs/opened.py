"""What several jobs open: the lake and the feature store, a version's network, a day of the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from recsys.artifacts import Artifact
from recsys.errors import ConfigError
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.models.ranker import MODEL
from recsys.settings import Settings


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Lake, FeatureStore]]:
    """The lake and the feature store, closed at the end."""
    store = FeatureStore(settings.feature_repo, data_dir=settings.data_dir, redis_url=settings.redis_url)
    with Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake:
        try:
            yield lake, store
        finally:
            store.close()


def load_model(artifact: Artifact) -> RecModel:
    """The network of a version, in eval mode."""
    model = RecModel(ModelConfig.from_dict(artifact.manifest["config"]["model"]))
    model.load_state_dict(artifact.tensors(MODEL))
    return model.eval()


def midnight(option: str, moment: datetime, low: datetime, high: datetime) -> datetime:
    """A moment given on the command line as a midnight in UTC, in (low, high].

    Raises:
        ConfigError: names the option and what was given.
    """
    utc = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if utc.time() != datetime.min.time() or not low < utc <= high:
        raise ConfigError(
            f"{option} must be a midnight, UTC, after {low:%Y-%m-%d} and up to {high:%Y-%m-%d} (got {utc})"
        )
    return utc
