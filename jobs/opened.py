"""What several jobs open: the lake and the feature store, a version's network."""

from collections.abc import Iterator
from contextlib import contextmanager

from jobs.engine import engine
from recsys.artifacts import Artifact
from recsys.errors import ArtifactError, ConfigError
from recsys.features import FeatureStore
from recsys.heap import reused
from recsys.lake import Lake
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.models.ranker import MODEL
from recsys.settings import Settings


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Lake, FeatureStore]]:
    """The lake and the feature store, closed at the end; what is freed until then is used again."""
    folder, threads, limit_gb = settings.data_dir, settings.threads, settings.memory_limit_gb
    with reused(), Lake(folder, threads=threads, memory_limit_gb=limit_gb) as lake:
        widths = lake.taxonomy().widths
        with engine(settings, lake):
            store = FeatureStore(**settings.feast, widths=widths)
            try:
                yield lake, store
            finally:
                store.close()


def load_model(artifact: Artifact) -> RecModel:
    """The network of a version, in eval mode.

    Raises:
        ArtifactError: the version's config or tensors do not fit this code.
    """
    try:
        model = RecModel(ModelConfig.from_dict(artifact.manifest["config"]["model"]))
        model.load_state_dict(artifact.tensors(MODEL))
    except (KeyError, TypeError, ConfigError, RuntimeError) as error:
        raise ArtifactError(f"version {artifact.version} does not fit this code's model: {error}") from error
    return model.eval()
