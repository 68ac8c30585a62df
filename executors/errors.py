"""The errors that a user may cause, each with the exit code of the command that meets it.

    ApprenticeError                 1  something failed; the message says what, with what, and what to try
    ├── ConfigError (ValueError)    2  a config, an option or a path that cannot work
    ├── DataError (ValueError)      3  a dataset, a checkpoint or a record that cannot be used
    ├── ToolError                      raised by a tool: becomes an observation, never ends a run
    │   ├── UnknownToolError               status bad_call
    │   ├── BadCallError                   status bad_call
    │   ├── BlockedError                   status blocked
    │   └── TransientError                 retried where the tool allows it, then status unavailable
    └── others                      1  each beside what raises it: a budget that is spent (``budget``), an endpoint that
                                       refuses a request (``endpoint``), an address that is taken (``listening``), no
                                       sandbox that holds (``sandbox.types``), processes that are gone (``remote``):
                                       a run tells these by their cause, with codes 4 to 7 (``rl.failure``)

Anything else that escapes is a bug. Every error carries one string, so it survives pickling between processes.
"""


class ApprenticeError(Exception):
    """Root of the errors that are shown to a user as one paragraph, without a traceback."""

    exit_code = 1


class ConfigError(ApprenticeError, ValueError):
    """A config, an option or a path that cannot work; found before any process starts."""

    exit_code = 2


class DataError(ApprenticeError, ValueError):
    """A dataset, a checkpoint or a record that cannot be used."""

    exit_code = 3


class ToolError(ApprenticeError):
    """What a tool raises to tell the policy that its call failed; the message is what the policy reads."""


class UnknownToolError(ToolError, LookupError):
    """A call names a tool that the catalog lacks."""


class BadCallError(ToolError):
    """The arguments are of no use to the tool, though its schema lets them pass."""


class BlockedError(ToolError):
    """A guard or the sandbox refused what the call set out to do."""


class TransientError(ToolError):
    """The infrastructure behind a tool failed for now: tried again, and never scored as the policy's fault."""
