"""Why a result is wrong, and where."""
