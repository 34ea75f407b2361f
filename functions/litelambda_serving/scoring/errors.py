"""What can go wrong with a job, by what is to be done about it.

    ServingError
    └── ScoringError
        ├── InputError                 permanent: reported beside the output, never retried
        │   ├── InputNotFoundError     there is no such object any more
        │   ├── InputReplacedError     it was overwritten: the new object's own event scores it
        │   ├── InputRefusedError      S3 refuses to read it: archived, its key disabled, in another region
        │   ├── UnreadableInputError   damaged, cut short, or of no known format
        │   ├── SchemaError            readable, but not made for this model
        │   └── TooManyBadRowsError    more bad rows than the job tolerates
        ├── JobError                   what was asked for makes no sense
        ├── OutputExistsError          another run committed first
        ├── OutputNotFoundError        the output's bucket does not exist
        ├── OutputRefusedError         S3 refuses to write the output, however often it is tried
        ├── LostUploadError            what a checkpoint was to go on with is gone: the next try begins anew
        └── WorkerError                a worker process died: worth another try

What cannot be written is never reported beside the output, where no report can be written either. It is raised, as is
everything else (`StoreUnavailableError`, `StoreAccessError`, a model that cannot be loaded) is not the file's fault:
retried by whoever sent the event, it ends in the dead-letter queue.
"""

from __future__ import annotations

from litelambda_serving.errors import ServingError


class ScoringError(ServingError):
    """Base of all errors of batch scoring."""


class InputError(ScoringError):
    """The input cannot be scored, however often it is tried."""


class InputNotFoundError(InputError):
    """There is no such input."""


class InputReplacedError(InputError):
    """The input is no longer the one that was asked for."""


class InputRefusedError(InputError):
    """S3 refuses to read the input, for a reason that another try does not change."""


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


class OutputNotFoundError(ScoringError):
    """The place of the output does not exist."""


class OutputRefusedError(ScoringError):
    """S3 refuses to write the output, for a reason that another try does not change."""


class LostUploadError(ScoringError):
    """The upload that a checkpoint was to go on with is gone."""


class WorkerError(ScoringError):
    """A worker process died, or could not be started."""
