"""Options that name something of torch's."""

from __future__ import annotations

from typing import TypeAlias

from pydantic import ConfigDict

from demiglace.passes import Config

OptionValue: TypeAlias = bool | int | float | str | list[bool | int | float]


class Named(Config):
    """Something of torch's by its name, with that thing's own options beside it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OptionValue]

    name: str
    """The name in torch, such as `Adam`."""

    @property
    def options(self) -> dict[str, OptionValue]:
        """Everything beside the name."""
        return dict(self.__pydantic_extra__)

    def words(self) -> str:
        options = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name


def named(value: str | Named) -> Named:
    """A bare name is one without options."""
    return Named(name=value) if isinstance(value, str) else value
