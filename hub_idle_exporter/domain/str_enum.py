"""An enum of strings, as `enum.StrEnum`, which Python has from 3.11 on."""

from enum import Enum


class StrEnum(str, Enum):
    """An enum whose values are strings, and are written as they are."""

    __str__ = str.__str__

    def __format__(self, form: str) -> str:
        return str(self).__format__(form)
