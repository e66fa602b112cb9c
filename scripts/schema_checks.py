"""What scripts/schema adds to the checks of Schemathesis, which loads this file."""

import os

import schemathesis

# What others have, and what is the token's own; nothing where anybody may ask.
CANARY, OWN = (os.environ.get(f"WATCHKEEP_{name}", "").encode() for name in ("CANARY", "OWN"))


@schemathesis.check
class StrangersStayHidden:
    """Nothing that is of another namespace stands in any answer; what is of one's own does in some."""

    def __init__(self):
        self.has_seen = False

    def after_response(self, ctx, response, case):
        head = [response.message, *response.headers, *(value for values in response.headers.values() for value in values)]
        told = "\n".join(head).encode() + b"\n" + (response.content or b"")
        assert not CANARY or CANARY not in told.lower(), f"something of another namespace was told: {told[:500]}"
        self.has_seen = self.has_seen or OWN in told

    def after_run(self, ctx):
        # Otherwise nothing that could have been told was asked for.
        if not self.has_seen:
            raise AssertionError("not even what is of its own namespace was told")
