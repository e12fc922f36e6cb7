"""What several jobs open: the lake and the feature store, a version's network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recsys.artifacts import Artifact
from recsys.errors import ArtifactError, ConfigError
from recsys.features import FeatureStore
from recsys.lake import Lake
from recsys.models.config import ModelConfig
from recsys.models.model import RecModel
from recsys.models.ranker import MODEL
from recsys.settings import Settings

if TYPE_CHECKING:
    from recsys.spark import Spark


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[Lake, FeatureStore]]:
    """The lake and the feature store, closed at the end."""
    with Lake(settings.data_dir, threads=settings.threads, memory_limit_gb=settings.memory_limit_gb) as lake:
        widths = lake.taxonomy().widths
        with engine(settings, lake):
            store = FeatureStore(**settings.feast, widths=widths)
            try:
                yield lake, store
            finally:
                store.close()


@contextmanager
def engine(settings: Settings, lake: Lake) -> Iterator["Lake | Spark"]:
    """What runs the project's SQL, by the settings; Feast's Spark store shares the session of ours.

    Raises:
        ConfigError: Spark is asked for, and pyspark or Java is missing.
    """
    if settings.engine == "duckdb":
        yield lake
        return
    from recsys.spark import Spark

    spark = Spark(
        lake.sources,
        master=settings.spark_master or f"local[{settings.threads}]",
        memory_limit_gb=settings.memory_limit_gb,
        scratch=settings.data_dir / ".spark",
    )
    try:
        yield spark
    finally:
        spark.close()


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
