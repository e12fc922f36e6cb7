"""Where things are and how long to wait, from the environment (`RECSYS_*`) or a `.env` file.

Only `jobs/` and `api/` import this module: everything below takes what it needs as arguments.
"""

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from recsys.address import Address

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Every setting, with its default and unit."""

    model_config = SettingsConfigDict(env_prefix="RECSYS_", env_file=".env", extra="ignore")

    data_dir: Path = Field(default=ROOT / "data", description="tables, features, artifacts, index, reports")
    feature_repo: Path = Field(default=ROOT / "feature_repo", description="the Feast repository")
    redis_url: str = Field(
        default="redis://127.0.0.1:6399/0",
        description="online store, a server or redis+cluster://HOST:PORT,HOST:PORT; a loopback address without a "
        "server gets the embedded one from `recsys up`",
    )
    qdrant_url: str | None = Field(default=None, description="a Qdrant server; unset: the embedded engine")
    qdrant_api_key: str | None = Field(default=None, description="key of that server", repr=False)
    qdrant_by_city: bool = Field(
        default=False, description="publish every city as a shard of its own, on a cluster of Qdrant servers"
    )
    qdrant_replicas: int | None = Field(
        default=None, ge=1, le=100, description="copies of every shard that is published; unset: as the server has it"
    )
    qdrant_write_consistency: int | None = Field(
        default=None, ge=1, le=100, description="copies that must have a write before it counts; unset: likewise"
    )

    engine: Literal["duckdb", "spark"] = Field(
        default="duckdb", description="what runs the SQL of features and of the gate, and joins history"
    )
    spark_master: str | None = Field(
        default=None, description="where Spark runs: local[N] or a cluster's address; unset: local[RECSYS_THREADS]"
    )
    feature_store_yaml: str | None = Field(
        default=None,
        description="Feast's configuration in the repository; unset: feature_store.yaml, or with Spark "
        "feature_store.cluster.yaml",
    )

    # the synthetic world
    preset: str = Field(default="city", description="world preset: city or seed")
    users: int = Field(default=10_000, ge=1, description="users of the world")
    places: int = Field(default=10_000, ge=1, description="places of the world")
    seed: int = Field(default=42, ge=0, description="one seed for the world and for training")

    # training
    epochs: int = Field(default=12, ge=1, le=1_000)
    threads: int = Field(default=2, ge=1, le=256, description="torch and DuckDB threads")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where vectors learn; auto: a GPU where there is one"
    )
    memory_limit_gb: float = Field(default=6.0, gt=0, description="DuckDB memory limit, GB")

    # serving
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65_535)
    api_keys: str = Field(
        default="",
        repr=False,
        description="NAME:SHA256 or NAME:SHA256:operator, with commas between; unset: everybody may ask",
    )
    api_keys_file: Path | None = Field(default=None, description="a file with more of them, one a line")
    rate_limit: float | None = Field(default=None, gt=0, description="requests a second for each API key; unset: any")
    rate_burst: int = Field(default=20, ge=1, le=100_000, description="requests of one API key at once")
    max_in_flight: int = Field(
        default=24, ge=1, le=10_000, description="requests at work at once, the last third in a hurry; more get 503"
    )
    request_timeout_s: float = Field(
        default=10.0, gt=0, le=600, description="how long a request may take to arrive, head and body"
    )
    keep_alive_s: int = Field(
        default=75, ge=1, le=3_600, description="how long a connection stays open between requests"
    )
    cors_origins: str = Field(
        default="", description="origins of web pages that may ask, with commas between, or *; unset: none"
    )
    online_timeout_ms: float = Field(default=50.0, gt=0, description="deadline of one online read")
    index_timeout_ms: float = Field(default=100.0, gt=0, description="deadline of one call of the index")
    feature_cache_s: float = Field(
        default=1.0,
        ge=0,
        le=60,
        description="how long an answer may use features of a candidate; 0: never",
    )
    candidates: int = Field(default=200, ge=10, le=1_000, description="retrieved before ranking")
    k_anonymity: int = Field(
        default=3, ge=1, le=1_000, description="what friends did is told only where at least so many did"
    )
    split: str | None = Field(
        default=None, description="VERSION:SHARE: this share of the users is answered by that version; unset: none"
    )
    shadow: str | None = Field(
        default=None, description="a version that computes every answer too, after it was sent; unset: none"
    )
    impression_days: int = Field(default=90, ge=1, description="how long it is kept what was shown to whom, days")
    now: datetime | None = Field(
        default=None,
        description="the moment the service believes in; unset: the end of a synthetic world's data, else the clock",
    )

    @field_validator("redis_url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        Address.parse(url)
        return url

    @field_validator("qdrant_write_consistency")
    @classmethod
    def _at_most_all(cls, wanted: int | None, info: ValidationInfo) -> int | None:
        if wanted is not None and wanted > (info.data.get("qdrant_replicas") or wanted):
            raise ValueError(f"must be at most RECSYS_QDRANT_REPLICAS, {info.data['qdrant_replicas']}")
        return wanted

    @property
    def feast(self) -> dict[str, Any]:
        """What every opening of the feature store is told."""
        yaml = self.feature_store_yaml or (
            "feature_store.cluster.yaml" if self.engine == "spark" else "feature_store.yaml"
        )
        return {"repo": self.feature_repo, "data_dir": self.data_dir, "redis_url": self.redis_url, "yaml": yaml}

    @property
    def landing(self) -> Path:
        """Tables as they arrived."""
        return self.data_dir / "landing"

    @property
    def lake(self) -> Path:
        """Tables that passed the gate."""
        return self.data_dir / "lake"

    @property
    def quarantine(self) -> Path:
        """Rejected rows with their reasons."""
        return self.data_dir / "quarantine"

    @property
    def features(self) -> Path:
        """One parquet file a feature view."""
        return self.data_dir / "features"

    @property
    def events(self) -> Path:
        """Logs of what the API was told, a folder a data set."""
        return self.data_dir / "events"

    @property
    def impressions(self) -> Path:
        """What was shown to whom, a folder a data set."""
        return self.data_dir / "impressions"

    @property
    def safety(self) -> Path:
        """Blocks and hidden places, a folder a data set."""
        return self.data_dir / "safety"

    @property
    def artifacts(self) -> Path:
        """One folder a model version."""
        return self.data_dir / "artifacts"

    @property
    def embeddings(self) -> Path:
        """What `recsys embed` made, a folder a version."""
        return self.data_dir / "embeddings"

    @property
    def index(self) -> Path:
        """The embedded vector index."""
        return self.data_dir / "index"

    @property
    def redis(self) -> Path:
        """Files of the embedded online store."""
        return self.data_dir / "redis"

    @property
    def reports(self) -> Path:
        """What each job did last."""
        return self.data_dir / "reports"
