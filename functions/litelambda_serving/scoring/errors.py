"""What can go wrong with a job, by what is to be done about it.

    ServingError
    └── ScoringError
        ├── InputError                 permanent: reported next to the output, never retried
        │   ├── InputNotFoundError     there is no such object, or no such bucket
        │   ├── InputReplacedError     it was overwritten: the new object's own event scores it
        │   ├── InputRefusedError      S3 refuses to read it: archived, its key disabled, in another region
        │   ├── UnreadableInputError   damaged, cut short, or of no known format
        │   ├── SchemaError            readable, but not made for this model
        │   └── TooManyBadRowsError    more bad rows than the job tolerates
        ├── JobError                   what was asked for makes no sense
        ├── OutputExistsError          another job's output has that name
        └── WorkerError                a worker process died: worth another try

Everything else is not the input's fault: an output that cannot be written (where no report could be written either), a
store that cannot be read, a model that cannot be loaded. It is raised: whoever sent the event tries again, and at last
it ends in the dead-letter queue.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from litelambda_serving.errors import ObjectNotFoundError, ServingError, StoreLocationError
from litelambda_serving.objects.errors import ObjectRefusedError, ObjectReplacedError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    """There is an output of that name, and it is another job's."""


class WorkerError(ScoringError):
    """A worker process died, or could not be started."""


@contextmanager
def reading_input() -> Iterator[None]:
    """What goes wrong with an object in here is the input's fault."""
    try:
        yield
    except (ObjectNotFoundError, StoreLocationError) as error:
        raise InputNotFoundError(str(error)) from error
    except ObjectReplacedError as error:
        raise InputReplacedError(str(error)) from error
    except ObjectRefusedError as error:
        raise InputRefusedError(str(error)) from error
