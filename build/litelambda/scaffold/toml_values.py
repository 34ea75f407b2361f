"""Values as TOML writes them: no library that is installed does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_value(value: Any) -> str:
    """A value in TOML, of which JSON's texts, numbers and lists are a part.

    >>> toml_value({"name": "adam", "learning_rate": 0.003}), toml_value(["a b", 1, True])
    ('{ name = "adam", learning_rate = 0.003 }', '["a b", 1, true]')
    """
    if isinstance(value, Mapping):
        keys = [key if _BARE.fullmatch(key) else toml_value(key) for key in value]
        pairs = [f"{key} = {toml_value(each)}" for key, each in zip(keys, value.values(), strict=True)]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
