"""What the console's endpoints share."""

from typing import Annotated

from fastapi import Depends, Request

from api.dataset import world_of
from api.state import State
from recsys.artifacts import Artifact
from recsys.directory import Directory
from recsys.settings import Settings


class Desk:
    """One app's. Where things are, and the directory of the data set that serves."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._directories: dict[str, Directory] = {}

    def directory(self, state: State) -> Directory:
        """Names and positions of the data set of a version."""
        artifact = artifact_of(state)
        world = "" if artifact is None else world_of(artifact)
        return self._directories.setdefault(world, Directory(self.settings.lake, world))


def artifact_of(state: State) -> Artifact | None:
    """The artifact of the version that serves; None: its parts were made by hand, or none serves."""
    return next((version.artifact for version in state.versions if version.engine is state.engine), None)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(_desk)]
