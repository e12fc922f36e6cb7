"""Answers of the console's endpoints about operating."""

from typing import Annotated

from pydantic import BaseModel, Field

from api.fields import Strict
from recsys.artifacts import VERSION


class MethodOut(BaseModel):
    """What one method reaches."""

    method: str
    recall: float = Field(description="recall@10")
    ndcg: float = Field(description="NDCG@10")
    candidate_recall: float = Field(description="recall@200 of the candidates")


class MeasuredOut(BaseModel):
    """A version on the test weeks, beside simple methods and, in a synthetic world, the oracle."""

    test_from: str
    users: int
    rows: list[MethodOut]


class EpochOut(BaseModel):
    """One epoch of training."""

    stage: str
    reads: str | None = Field(description="what the ranking reads, of a ranking epoch")
    epoch: int
    ndcg: float | None = Field(description="on the validation weeks")


class VersionOut(BaseModel):
    """A version on disk."""

    version: str
    created_at: str | None
    until: str | None = Field(description="what it knows happened before")
    live: bool
    loaded: bool = Field(description="can answer at once")
    looks_back: bool = Field(description="made by `recsys train --until`, for measuring")
    ndcg: float | None = Field(description="NDCG@10 on the test weeks, as it was measured; null: it was not")
    validation: list[MethodOut] = Field(description="on the validation weeks, when it was trained")
    people: dict[str, float] = Field(description="of the friend head on the validation weeks")
    history: list[EpochOut]
    tested: MeasuredOut | None = Field(description="of the version that `recsys evaluate` measured last")


class VersionsOut(BaseModel):
    """The newest versions first."""

    versions: list[VersionOut]
    split: str | None = Field(description="the version that a share of the users is answered by")
    share: float | None
    shadow: str | None


class FreshOut(BaseModel):
    """A table or view on disk, or a job, and how old it is."""

    name: str
    rows: int | None = None
    seconds: float | None = Field(default=None, description="of a job: how long it took")
    age_s: int | None = None
    error: str | None = None


class SuiteOut(BaseModel):
    """What the gate found in one table or feature view."""

    name: str
    severity: str
    rows: int | None
    rejected: int | None
    rules: int
    broken: list[str] = Field(description="rules that were broken")
    drift: float | None = Field(
        description="the largest distance of a column's distribution from the batch before, beyond chance"
    )
    drifted: str | None = Field(description="which column's that is")


class OperationsOut(BaseModel):
    """How the service and its data are."""

    parts: dict[str, str]
    degradations: dict[str, int] = Field(description="answers of this process by what they had to do without")
    online_keys: int | None = Field(description="null: the online store does not answer")
    online_memory_mb: int | None
    features: list[FreshOut]
    tables: list[FreshOut]
    jobs: list[FreshOut]
    severity: str | None = Field(description="of the last batch; null: nothing was judged")
    refused: str | None
    suites: list[SuiteOut]
    reports: list[str] = Field(description="pages that are there, under /console/reports/")


class PublishRequest(Strict):
    """Which version is to answer."""

    version: Annotated[str, Field(strict=True, pattern=VERSION.pattern)]
    force: Annotated[bool, Field(strict=True)] = Field(default=False, description="also one that is worse")


class PublishedOut(BaseModel):
    """What is live now; a running API follows within a second."""

    version: str
    sentence: str | None = Field(description="how it compares with the version that served")
