"""What stands after "there is no ...": the names that there are, and which of them was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def known_names(value: str, known: Iterable[str]) -> str:
    """What is allowed instead of `value`; of more than a handful of names the nearest one is suggested."""
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=0.6)
    meant = f" Did you mean {folded[near[0]]!r}?" if near and len(names) > 5 else ""
    return f"known are {', '.join(names)}.{meant}"
