"""Changes to JSON documents, as hypothesis draws them: what a broken writer or an attacker makes of a valid one."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

JSON: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        [None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**70, 1e308, 0.5, "", "a", "../x", "\x00", "\ud800"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["", "a", "kind", "0"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def mutated(draw: st.DrawFn, documents: list[Any], most: int = 3) -> Any:
    """One of some documents, with up to `most` values replaced, removed, repeated or swapped with another place's."""
    document = [copy.deepcopy(draw(st.sampled_from(documents)))]
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(document))
        holder, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["replace", "remove", "repeat", "swap"]))
        if change == "remove" and holder is not document:
            del holder[key]
        elif change == "repeat" and isinstance(holder, list) and holder is not document:
            holder.append(copy.deepcopy(holder[key]))
        elif change == "swap":
            other, at = draw(st.sampled_from(places))
            holder[key] = copy.deepcopy(other[at])
        else:
            holder[key] = draw(JSON)
    return document[0]


def _places(node: Any) -> Any:
    """Every value within a document, as what holds it and its key there."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)
