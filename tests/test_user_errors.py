"""The form of every message for a user: what it is about, what is wrong, what to do."""

import re

import pytest
from user_errors import messages

# How a message says what to do: after what is wrong, or by saying what is allowed.
REMEDY = re.compile(
    r"; |must |needs|takes|give either|together|leave it out|flags have|by the same command|this one stops|name the |\{[^}]*(remedy|fault|why|hint|nearest|"
    r"reason|explain|str)[^}]*\}|: (give|use|take|train|make|set|try|name|leave|start|see|restore|"
    r"pip|run|write|put|wait|create_model|check|the table)"
)
# What a message begins with: a flag, a field, a file, or a thing that the user gave.
SUBJECT = re.compile(
    r"\{|--|-:|config\.|model\.|[a-z_]+ = |images of |checkpoint |a damaged checkpoint|the recipe "
    r"|the splits |the processes |the last checkpoint|another recipe|loss or gradients |give either|stopped"
)
MESSAGES = list(messages())


def written(message):
    """Returns the part of a message that is not computed."""
    return re.sub(r"\{[^{}]*\}", "", message.text)


def without_literals(message):
    """Returns a message without the strings in what is computed."""
    return re.sub(r"\{[^{}]*\}", lambda hole: re.sub(r"'[^']*'", "", hole[0]), message.text)


@pytest.mark.parametrize("part", sorted({message.file.split("/")[0] for message in MESSAGES}))
def test_messages_are_one_line_with_the_thing_and_the_remedy(part):
    for message in (each for each in MESSAGES if each.file.split("/")[0] == part):
        words = written(message)
        assert SUBJECT.match(message.text), message
        assert REMEDY.search(without_literals(message)), message
        # Arrays that do not fit are a table.
        assert "\n" not in message.text or "arrays do not fit" in message.text, message
        assert message.text == message.text.rstrip(" .!;"), message
        assert "  " not in message.text, message
        assert not re.search(r"\b(please|invalid|illegal|error:|failed to)", words, re.I), message
        assert len(words) <= 360, message
