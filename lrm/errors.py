"""The errors raised on purpose. Each message says what is wrong, what was seen, and what to do."""


class LrmError(Exception):
    """Any error this project raises on purpose: its message is meant for the person at the keyboard."""


class DataError(LrmError):
    """A data file is missing, damaged, or says something impossible."""


class SchemaError(LrmError):
    """The declarations in the feature repo and the data do not fit together."""


class ConfigError(LrmError):
    """A configuration asks for what these data do not allow."""


class PolicyError(LrmError):
    """A policy file, which says what a promotion needs, cannot be read or asks for what does not exist."""


class ValidationFailed(LrmError):  # noqa: N818 - says what happened
    """A critical expectation broke; training must not start on this data."""


class TrainingDiverged(LrmError):  # noqa: N818 - says what happened
    """A loss or gradient is not finite; the optimizer has not moved on it."""


class RegistryError(LrmError):
    """The model registry does not hold what was asked for, or another promoter came first."""


class ServingError(LrmError):
    """The server could not start, or answers differently from the offline model."""


class StoreError(ServingError):
    """The online store does not answer."""


class DamagedError(StoreError):
    """The online store answers with a value that cannot be read."""


class UploadError(LrmError):
    """A copy of a run in a bucket is not whole, or cannot be made."""
