"""Who may do what with which model: the access policy of a function, and a caller's rights by it.

    {"rules": [{"callers": ["arn:aws:iam::111122223333:role/shop"], "actions": ["predict"], "models": ["fruit"]}]}

A caller is who API Gateway or a Function URL has verified: the ARN that signed the request, the claims of a token that
an authorizer checked, the identifier of an API key. Headers say nothing here. What no rule allows is refused.

Imported where ACCESS_POLICY is set. Knows events, and neither protocols nor models.
"""

from __future__ import annotations

from litelambda_serving.errors import AccessDeniedError, SettingsError
from litelambda_serving.json_codec import loads
from litelambda_serving.manifest import is_valid_name
from litelambda_serving.trust import packaged_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    Identity = tuple[str, ...]
    Grant = tuple[frozenset[str], frozenset[str]]

__all__ = ["ACTIONS", "MAX_POLICY_CHARACTERS", "Policy", "Rights"]

ACTIONS = ("predict", "explain", "metadata", "repository", "admin")
"""What a rule can allow. Each route names its own when it asks `Request.allow`."""

MAX_POLICY_CHARACTERS = 65536

_RULE_KEYS = {"callers", "actions", "models"}
_CALLER_FORMS = "'*', an ARN of IAM or STS, 'claim:NAME=VALUE', 'scope:NAME' or 'api-key:ID'"
_EVERYONE: Identity = ("*",)


class Policy:
    """The rules of a function."""

    def __init__(self, document: Any) -> None:
        """Check the rules.

        Args:
            document: `{"rules": [...]}`, each rule with its `callers`, `actions` and `models`.

        Raises:
            SettingsError: it is not such a document; the message says where.
        """
        rules = document.get("rules") if isinstance(document, dict) and set(document) == {"rules"} else None
        if not isinstance(rules, list):
            raise SettingsError("ACCESS_POLICY: expected an object with the key 'rules' alone, a list")
        self._grants: dict[Identity, list[Grant]] = {}
        for number, rule in enumerate(rules, 1):
            where = f"ACCESS_POLICY: rule {number}"
            if not isinstance(rule, dict) or set(rule) != _RULE_KEYS:
                raise SettingsError(f"{where}: expected an object with exactly the keys 'callers', 'actions', 'models'")
            grant = (
                frozenset(_texts(rule["actions"], f"{where}: 'actions'", _check_action)),
                frozenset(_texts(rule["models"], f"{where}: 'models'", _check_model, may_be_empty=True)),
            )
            for caller in _texts(rule["callers"], f"{where}: 'callers'"):
                self._grants.setdefault(_identity_of_rule(caller, where), []).append(grant)

    @classmethod
    def read(cls, setting: str) -> Policy:
        """Read the policy of a setting.

        Args:
            setting: the document itself, which begins with a brace; or its file, absolute or in the package.

        Raises:
            SettingsError: the file cannot be read, is too large, or is not a policy.
        """
        text = setting.strip()
        if not text.startswith("{"):
            path = packaged_path("ACCESS_POLICY", text)
            try:
                with open(path, encoding="utf-8") as file:
                    text = file.read(MAX_POLICY_CHARACTERS + 1)
            except (OSError, ValueError) as error:
                raise SettingsError(f"ACCESS_POLICY: {path} cannot be read: {error}") from error
        if len(text) > MAX_POLICY_CHARACTERS:
            raise SettingsError(f"ACCESS_POLICY takes more than {MAX_POLICY_CHARACTERS} characters: merge rules")
        try:
            document = loads(text)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"ACCESS_POLICY is not JSON: {error}") from error
        return cls(document)

    def rights_of(self, event: Mapping[str, Any]) -> Rights:
        """The rights of an event's caller; they may be none."""
        identities = list(_identities(event))
        return Rights(_shown(identities), [grant for each in identities for grant in self._grants.get(each, ())])


class Rights:
    """What one caller may do.

    Attributes:
        caller: who it is, for messages and records: an ARN, a token's subject or an API key's identifier.
        asked: whether a route has asked for a right, and got it.
    """

    __slots__ = ("_grants", "asked", "caller")

    def __init__(self, caller: str, grants: Sequence[Grant]) -> None:
        self.caller = caller
        self.asked = False
        self._grants = grants

    def __bool__(self) -> bool:
        """Whether there is any right."""
        return bool(self._grants)

    def has(self, action: str, model: str = "") -> bool:
        """Whether the caller may do this with a model; with "", with the server itself or with any model."""
        return any(
            (action in actions or "*" in actions) and (not model or model in models or "*" in models)
            for actions, models in self._grants
        )

    def check(self, action: str, model: str = "") -> None:
        """Refuse what the caller may not do.

        Raises:
            AccessDeniedError: no rule allows it.
        """
        if not self.has(action, model):
            raise self.denied(action, model)
        self.asked = True

    def denied(self, action: str = "", model: str = "") -> AccessDeniedError:
        """The refusal; without an action, of everything."""
        what = f"'{action}'" if action else "anything"
        target = f" of the model '{model[:200]}'" if model else ""
        return AccessDeniedError(
            f"{self.caller} is not allowed {what}{target}: ask the owner of this function for a rule in ACCESS_POLICY",
            self.caller,
            action,
            model,
        )


def _texts(value: Any, where: str, check: Any = None, *, may_be_empty: bool = False) -> list[str]:
    """A rule's list of texts, checked."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value) or not (value or may_be_empty):
        raise SettingsError(f"{where}: expected a list of texts" + ("" if may_be_empty else ", not empty"))
    for each in value if check else ():
        check(each, where)
    return value


def _check_action(action: str, where: str) -> None:
    if action not in (*ACTIONS, "*"):
        raise SettingsError(f"{where} has {action[:80]!r}, expected {', '.join(ACTIONS)} or '*'")


def _check_model(model: str, where: str) -> None:
    if model != "*" and not is_valid_name(model):
        raise SettingsError(f"{where} has {model[:80]!r}, expected names of models or '*': a name stands for itself")


def _identity_of_rule(caller: str, where: str) -> Identity:
    """What a rule's caller is compared by."""
    kind, _, rest = caller.partition(":")
    name, equals, value = rest.partition("=")
    if caller == "*":
        return _EVERYONE
    if kind == "arn" and "*" not in caller and (arn := _arn(caller)):
        return arn
    if kind == "claim" and name and equals and value:
        return ("claim", name, value)
    if kind in ("scope", "api-key") and rest and " " not in rest:
        return (kind, rest)
    raise SettingsError(f"{where}: the caller {caller[:200]!r} is not one, expected {_CALLER_FORMS}")


def _arn(text: str) -> Identity | None:
    """An ARN of IAM or STS; a role's without its path, which the ARN of a session does not have either."""
    parts = text.split(":", 5)
    if len(parts) != 6 or parts[2] not in ("iam", "sts") or not parts[4] or not parts[5]:
        return None
    kind, _, name = parts[5].partition("/")
    if parts[2] == "iam" and kind == "role":
        return ("role", parts[1], parts[4], name.rpartition("/")[2])
    return ("arn", text)


def _identities(event: Mapping[str, Any]) -> Iterator[Identity]:
    """All that a rule can know the event's caller by."""
    yield _EVERYONE
    context = _object(_object(event).get("requestContext"))
    authorizer, identity = _object(context.get("authorizer")), _object(context.get("identity"))
    if _object(event).get("version") == "2.0":
        yield from _of_arn(_object(authorizer.get("iam")).get("userArn"))
        yield from _of_claims(_object(_object(authorizer.get("jwt")).get("claims")))
        yield from _of_claims(_object(authorizer.get("lambda")))
    elif "elb" not in context:
        yield from _of_arn(identity.get("userArn"))
        if isinstance(identity.get("apiKeyId"), str):
            yield ("api-key", identity["apiKeyId"])
        # A Cognito or JWT authorizer's claims stand by themselves, a Lambda authorizer's values do not.
        yield from _of_claims(_object(authorizer.get("claims")) or authorizer)


def _of_arn(arn: Any) -> Iterator[Identity]:
    if not isinstance(arn, str) or not (found := _arn(arn)):
        return
    yield found
    parts = arn.split(":", 5)
    session = parts[5].split("/")
    if parts[2] == "sts" and session[0] == "assumed-role" and len(session) == 3:
        yield ("role", parts[1], parts[4], session[1])


def _of_claims(claims: Mapping[str, Any]) -> Iterator[Identity]:
    """Each claim's value; of a list, as the API hands it on (`[a b]`), each entry; each scope of a token.

    An event's own `scopes` are not read: they are those that the route asks for, of which the token needs one.
    """
    for name, value in claims.items():
        if not isinstance(value, str) or "=" in name:
            continue
        entries = value[1:-1].split() if value[:1] == "[" and value[-1:] == "]" else [value]
        for each in dict.fromkeys([value, *entries]):
            yield ("claim", name, each)
        if name in ("scope", "scp"):
            for each in " ".join(entries).split():
                yield ("scope", each)


def _shown(identities: Sequence[Identity]) -> str:
    """Who a caller is, in one text that tells no more of a token than its subject."""
    for identity in identities:
        if identity[0] == "arn":
            return identity[1][:300]
        if identity[0] == "api-key":
            return f"API key {identity[1][:100]}"
        if identity[0] == "claim" and identity[1] in ("sub", "principalId"):
            return f"subject {identity[2][:200]}"
    return "a token without a subject" if len(identities) > 1 else "an anonymous caller"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
