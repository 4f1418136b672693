"""The fields of exports.yaml as questions: what each is about, what can be chosen, whether an answer is right."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from m3ter_dagster.config.exports_edit import Answer
from m3ter_dagster.config.fields import FileModel
from m3ter_dagster.config.names import ALL, ALL_AND_REFERENCES
from m3ter_dagster.config.wording import meant, refusals, schema_of, sentence


@dataclass(frozen=True)
class Question:
    """A field of one kind of item."""

    model: type[FileModel]
    name: str
    """As exports.yaml has it."""
    about: str
    is_list: bool
    is_needed: bool
    choices: tuple[str, ...]
    """Empty: anything that the field's rule allows."""
    takes_all: bool = False
    """Whether the word ALL stands for the whole list."""

    def answer(self, text: str) -> Answer:
        """What a person wrote, as exports.yaml has it: lists by commas, or as YAML; nothing: the field is left out."""
        text = text.strip()
        if self.is_list and text.startswith("["):
            with suppress(yaml.YAMLError):  # then it is refused as a text
                return yaml.BaseLoader(text).get_single_data()
            return text
        if self.is_list and text and text not in (ALL, ALL_AND_REFERENCES):
            return [one.strip() for one in text.split(",") if one.strip()]
        return text or None

    def refusal(self, answer: Answer) -> str | None:
        """What is wrong with the answer by itself, as a sentence that "it" begins; None: nothing."""
        if answer is None or "${" in str(answer):  # a variable is looked up when the whole file is checked
            return None
        try:
            self.model.model_validate({self.name: answer}, by_alias=True, by_name=False)
        except ValidationError as error:
            found = (one for one in refusals(error, self.model) if one.loc[0] == self.name)
            return next((sentence(one.words) for one in found), None)
        return None


def option_of(name: str) -> str:
    """The option of a command for the field: --schedule-type for scheduleType."""
    return f"--{to_snake(name).replace('_', '-')}"


def questions(model: type[FileModel]) -> dict[str, Question]:
    """The fields of the model by name, in its order."""
    schema = schema_of(model)
    found = {}
    for field in model.model_fields.values():
        name = str(field.alias)
        value = meant(schema["properties"][name], schema)
        is_list = value.get("type") == "array"
        choices = tuple(value.get("enum", ()))
        takes_all = any(ALL in (one.get("const"), *one.get("enum", ())) for one in value.get("anyOf", ()))
        found[name] = Question(model, name, field.description or "", is_list, field.is_required(), choices, takes_all)
    return found
