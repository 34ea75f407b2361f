"""What can go wrong with a job, by what is to be done about it.

    ServingError
    └── ScoringError
        ├── InputError                 permanent: reported beside the output, never retried
        │   ├── InputNotFoundError     there is no such object any more
        │   ├── InputReplacedError     it was overwritten: the new object's own event scores it
        │   ├── UnreadableInputError   damaged, cut short, or of no known format
        │   ├── SchemaError            readable, but not made for this model
        │   └── TooManyBadRowsError    more bad rows than the job tolerates
        ├── JobError                   what was asked for makes no sense
        ├── OutputExistsError          another run committed first
        ├── LostUploadError            what a checkpoint was to go on with is gone: the next try begins anew
        └── WorkerError                a worker process died: worth another try

Everything else (`StoreUnavailableError`, `StoreAccessError`, a model that cannot be loaded) is not the file's fault:
it is raised, retried by whoever sent the event, and ends in the dead-letter queue.
"""

from __future__ import annotations

from serving.errors import ServingError


class ScoringError(ServingError):
    """Base of all errors of batch scoring."""


class InputError(ScoringError):
    """The input cannot be scored, however often it is tried."""


class InputNotFoundError(InputError):
    """There is no such input."""


class InputReplacedError(InputError):
    """The input is no longer the one that was asked for."""


class UnreadableInputError(InputError):
    """The input's bytes are not what its format says."""


class SchemaError(InputError):
    """The input's rows are not made for this model."""


class TooManyBadRowsError(InputError):
    """More rows are bad than the job tolerates."""


class JobError(ScoringError):
    """The job itself makes no sense; the message says what it may be."""


class OutputExistsError(ScoringError):
    """The output is there already: another run committed it."""


class LostUploadError(ScoringError):
    """The upload that a checkpoint was to go on with is gone."""


class WorkerError(ScoringError):
    """A worker process died, or could not be started."""
