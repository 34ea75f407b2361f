"""CloudFormation's templates, read and evaluated: what becomes of a resource with given values of the parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Template = dict[str, Any]

_PSEUDO = {
    "AWS::StackName": "stack",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
}
_NO_VALUE = object()


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's tags: `!Ref x` reads as {"Ref": "x"}, `!GetAtt a.b` as {"Fn::GetAtt": "a.b"}."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Template:
    name = suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _intrinsic)


def load(path: Path) -> Template:
    """A template, its tags as the functions that they stand for."""
    loaded: Template = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a SafeLoader
    return loaded


class Evaluator:
    """The functions that the templates here use, for given parameters; other resources stay names in angle brackets."""

    def __init__(self, template: Template, values: Mapping[str, str]) -> None:
        """Take values for some parameters; the others have their defaults.

        Args:
            template: as `load` reads it.
            values: by parameter.
        """
        self._conditions = template.get("Conditions", {})
        self._values: dict[str, Any] = dict(_PSEUDO)
        for name, parameter in template["Parameters"].items():
            value = str(values.get(name, parameter.get("Default", "")))
            self._values[name] = value.split(",") if parameter["Type"] == "CommaDelimitedList" else value

    def resolve(self, value: Any) -> Any:
        """A value without functions; what is `AWS::NoValue` is left out."""
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            function = getattr(self, "_" + name.removeprefix("Fn::").lower(), None)
            if function is not None:
                return function(argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not _NO_VALUE}

    def _ref(self, name: str) -> Any:
        return _NO_VALUE if name == "AWS::NoValue" else self._values.get(name, f"<{name}>")

    def _getatt(self, name: str) -> str:
        return f"<{name}>"

    def _sub(self, argument: Any) -> str:
        text, local = (argument, {}) if isinstance(argument, str) else argument
        local = {name: self.resolve(value) for name, value in local.items()}
        return re.sub(r"\$\{([\w.:]+)\}", lambda match: str(local.get(match[1], self._ref(match[1]))), text)

    def _if(self, argument: list[Any]) -> Any:
        condition, then, otherwise = argument
        return self.resolve(then if self._condition(condition) else otherwise)

    def _condition(self, name: str) -> bool:
        return bool(self.resolve(self._conditions[name]))

    def _equals(self, argument: list[Any]) -> bool:
        left, right = map(self.resolve, argument)
        return str(left) == str(right)

    def _not(self, argument: list[Any]) -> bool:
        return not self.resolve(argument[0])

    def _and(self, argument: list[Any]) -> bool:
        return all(map(self.resolve, argument))

    def _or(self, argument: list[Any]) -> bool:
        return any(map(self.resolve, argument))

    def _select(self, argument: list[Any]) -> Any:
        return self.resolve(argument[1])[int(argument[0])]

    def _split(self, argument: list[Any]) -> list[str]:
        return str(self.resolve(argument[1])).split(argument[0])

    def _join(self, argument: list[Any]) -> str:
        return str(argument[0]).join(self.resolve(argument[1]))


def alternatives(value: Any) -> Iterator[Any]:
    """Every value that an expression can take, through !If and lists."""
    if isinstance(value, list):
        for item in value:
            yield from alternatives(item)
    elif isinstance(value, dict) and set(value) == {"Fn::If"}:
        yield from alternatives(value["Fn::If"][1:])
    elif value != {"Ref": "AWS::NoValue"}:
        yield value


def statements(template: Template) -> Iterator[tuple[str, Template]]:
    """Every policy statement with the name of its resource."""
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        documents = [
            policy["PolicyDocument"] for policy in properties.get("Policies", []) if "PolicyDocument" in policy
        ]
        documents += [properties[key] for key in ("PolicyDocument", "AssumeRolePolicyDocument") if key in properties]
        for document in documents:
            for statement in alternatives(document["Statement"]):
                yield name, statement
