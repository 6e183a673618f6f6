"""Errors a user can cause and a user can mend: the command line prints each as one line, without a traceback.

A message says what was given, what was expected and what to do. Anything that is not an `E3DGEError` is a bug.
"""


class E3DGEError(Exception):
    """Base of every error that the user can do something about."""


class InputError(E3DGEError):
    """A file or value from the user cannot be used (missing, unreadable, no video, no face)."""


class ConfigError(E3DGEError):
    """An option is unknown, out of range or contradicts another one."""


class ModelError(E3DGEError):
    """A model bundle or checkpoint is missing, damaged or does not fit."""


class BackendError(E3DGEError):
    """An optional part (landmark back end, codec, weights) is asked for but does not work on this machine."""
