"""Every error that this project raises on purpose. Nothing here knows HTTP: `api/errors.py` maps::

RecsysError
├── ConfigError                 a setting or an argument is out of range; names the field
├── DataError                   a table, file or feature set is not what its contract says
│   └── GateFailed              too few rows are good, or too much is other than last time
├── InvalidField                a request's field has a value that the live version does not know
├── NotReady                    a stage has not run yet; names the command that makes what is missing
├── NotFound                    an id that is nowhere in the data
│   ├── UnknownUser
│   ├── UnknownPlace
│   ├── UnknownCity
│   └── UnknownVersion
├── Unavailable                 a part did not answer within its deadline
│   ├── FeatureStoreUnavailable
│   ├── IndexUnavailable
│   ├── EventLogUnavailable
│   ├── JobTooSlow
│   └── SafetyUnavailable
├── ArtifactError               a model version is damaged or does not fit this code
├── WorseVersion                a model version finds less than the one that serves
├── JobRefused                  a command that was asked for over HTTP ended without having done it; its own sentence
└── ServiceError                the embedded server could not be started, found or stopped
"""


class RecsysError(Exception):
    """Root of the tree; the message says what, where and "(got …)"."""


class ConfigError(RecsysError):
    """A setting or an argument is out of range; the message names the field and the allowed range."""


class DataError(RecsysError):
    """A table, file or feature set is not what its contract says."""


class GateFailed(DataError):
    """The quality gate refused a batch, or a feature view: what was accepted before stays."""


class InvalidField(RecsysError):
    """A request's field has a value that the live version does not know."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


class NotReady(RecsysError):
    """A stage has not run yet; the message names the command that makes what is missing."""


class NotFound(RecsysError):
    """An id that is nowhere in the data."""


class UnknownUser(NotFound):
    """No such user."""


class UnknownPlace(NotFound):
    """No such place."""


class UnknownCity(NotFound):
    """No such city."""


class UnknownVersion(NotFound):
    """No such model version is loaded."""


class Unavailable(RecsysError):
    """A part did not answer within its deadline."""


class FeatureStoreUnavailable(Unavailable):
    """The online store did not answer."""


class IndexUnavailable(Unavailable):
    """The vector index did not answer."""


class EventLogUnavailable(Unavailable):
    """The event log could not be locked or written in time, or too many events wait for it."""


class JobTooSlow(Unavailable):
    """A command that was asked for over HTTP did not end in time."""


class SafetyUnavailable(Unavailable):
    """The list of blocks and hidden places could not be read, or not be locked or written in time."""


class ArtifactError(RecsysError):
    """A model version is damaged or does not fit this code."""


class WorseVersion(RecsysError):
    """A model version finds less than the one that serves; the message has both figures and says how to insist."""


class JobRefused(RecsysError):
    """A command that was asked for over HTTP ended without having done it; the message is its own sentence."""


class ServiceError(RecsysError):
    """The embedded server could not be started, found or stopped."""
