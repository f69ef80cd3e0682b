"""The environment variables that hold secrets: an operator may give them to the process that starts all others, which
passes each on to the roles that need it and to no others. PURE."""

from __future__ import annotations

MASTER_KEY_VARIABLE = "FROSTBYTE_MASTER_KEY"
PREVIOUS_VARIABLE = "FROSTBYTE_MASTER_KEY_PREVIOUS"
SECRET_KEY_VARIABLE = "FROSTBYTE_ROOT_SECRET_ACCESS_KEY"  # noqa: S105 - a variable's name

SECRET_VARIABLES = frozenset({MASTER_KEY_VARIABLE, PREVIOUS_VARIABLE, SECRET_KEY_VARIABLE})
