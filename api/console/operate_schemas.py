"""Answers of the console's endpoints about operating."""

from typing import Annotated

from pydantic import BaseModel, Field

from api.fields import Strict
from recsys.artifacts import VERSION


class MethodOut(BaseModel):
    """What one method reaches."""

    method: str = Field(description="model, a simple method, or oracle")
    recall: float = Field(description="recall@10")
    ndcg: float = Field(description="NDCG@10")
    candidate_recall: float = Field(description="recall@200 of the candidates")


class MeasuredOut(BaseModel):
    """A version on the test weeks, beside simple methods and, in a synthetic world, the oracle."""

    test_from: str = Field(description="when the test weeks begin, ISO 8601")
    users: int = Field(description="on how many it was measured")
    rows: list[MethodOut] = Field(description="by method")


class EpochOut(BaseModel):
    """One epoch of training."""

    stage: str = Field(description="vectors or ranking")
    reads: str | None = Field(description="what the ranking reads, of a ranking epoch")
    epoch: int = Field(description="from 0 within its stage")
    ndcg: float | None = Field(description="on the validation weeks")


class VersionOut(BaseModel):
    """A version on disk."""

    version: str = Field(description="its name")
    created_at: str | None = Field(description="when it was trained, ISO 8601")
    until: str | None = Field(description="what it knows happened before")
    live: bool = Field(description="answers")
    loaded: bool = Field(description="can answer at once")
    looks_back: bool = Field(description="made by `recsys train --until`, for measuring")
    ndcg: float | None = Field(description="NDCG@10 on the test weeks, as it was measured; null: it was not")
    validation: list[MethodOut] = Field(description="on the validation weeks, when it was trained")
    people: dict[str, float] = Field(description="of the friend head on the validation weeks")
    history: list[EpochOut] = Field(description="epoch by epoch")
    tested: MeasuredOut | None = Field(description="of the version that `recsys evaluate` measured last")


class VersionsOut(BaseModel):
    """The newest versions first."""

    versions: list[VersionOut] = Field(description="the newest 20")
    split: str | None = Field(description="the version that a share of the users is answered by")
    share: float | None = Field(description="of the users, 0 to 1")
    shadow: str | None = Field(description="the version that computes answers nobody sees")


class FreshOut(BaseModel):
    """A table or view on disk, or a job, and how old it is."""

    name: str = Field(description="of the view, table or job")
    rows: int | None = Field(default=None, description="of a table or view")
    seconds: float | None = Field(default=None, description="of a job: how long it took")
    age_s: int | None = Field(default=None, description="how old it is; null: it is not there")
    error: str | None = Field(default=None, description="why it cannot be read")


class SuiteOut(BaseModel):
    """What the gate found in one table or feature view."""

    name: str = Field(description="of the table or feature view")
    severity: str = Field(description="ok, warning or critical")
    rows: int | None = Field(description="that were judged")
    rejected: int | None = Field(description="that went to quarantine")
    rules: int = Field(description="how many")
    broken: list[str] = Field(description="rules that were broken")
    drift: float | None = Field(
        description="the largest distance of a column's distribution from the batch before, beyond chance"
    )
    drifted: str | None = Field(description="which column's that is")


class OperationsOut(BaseModel):
    """How the service and its data are."""

    parts: dict[str, str] = Field(description="answers, loaded, or what is wrong")
    degradations: dict[str, int] = Field(description="answers of this process by what they had to do without")
    online_keys: int | None = Field(description="null: the online store does not answer")
    online_memory_mb: int | None = Field(description="of the online store")
    features: list[FreshOut] = Field(description="feature views")
    tables: list[FreshOut] = Field(description="of the lake")
    jobs: list[FreshOut] = Field(description="the last run of each")
    severity: str | None = Field(description="of the last batch; null: nothing was judged")
    refused: str | None = Field(description="why the last batch was refused; null: it was not")
    suites: list[SuiteOut] = Field(description="by table and feature view")
    reports: list[str] = Field(description="pages that are there, under /console/reports/")


class PublishRequest(Strict):
    """Which version is to answer."""

    version: Annotated[str, Field(strict=True, pattern=VERSION.pattern, description="one that lies in data/artifacts")]
    force: Annotated[bool, Field(strict=True)] = Field(default=False, description="also one that is worse")


class PublishedOut(BaseModel):
    """What is live now; a running API follows within a second."""

    version: str = Field(description="what is live now")
    sentence: str | None = Field(description="how it compares with the version that served")
