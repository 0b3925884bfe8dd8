import pytest

from resnet_jax.errors import UserError, nearest
from resnet_jax.fields import Field, check

TABLE = {
    "rate": Field(0.1, "the rate", above=0, at_most=1),
    "steps": Field(10, "how many", at_least=1),
    "kind": Field("a", "which", choices=("a", "b")),
    "on": Field(True, "whether"),
    "sizes": Field((1, 2), "sizes", type=tuple[int, ...], at_least=1),
    "limit": Field(None, "a limit", type=int),
    "scale": Field(2, "a scale", optional=True),
}


@pytest.mark.parametrize(
    "values",
    [
        {
            "rate": 1,
            "steps": 3,
            "kind": "b",
            "on": False,
            "sizes": [3],
            "limit": None,
            "scale": None,
        },
        {"limit": 7, "sizes": ()},
    ],
)
def test_legal_values_pass(values):
    check("room", values, TABLE)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("rate", 0, "must be above 0"),
        ("rate", 1.5, "must be at most 1"),
        ("rate", float("nan"), "must be finite"),
        ("rate", "fast", "must be a number"),
        ("rate", None, "must be a number, not None"),
        ("steps", 2.5, "must be a whole number"),
        ("steps", True, "must be a whole number"),
        ("kind", "c", "must be one of a, b"),
        ("on", 1, "must be True or False"),
        ("sizes", (1, 0), "must be at least 1"),
        ("sizes", (1, "2"), "must be a tuple of whole numbers"),
        ("sizes", 3, "must be a tuple of whole numbers"),
    ],
)
def test_an_illegal_value_is_named_with_its_field_and_remedy(name, value, fault):
    with pytest.raises(UserError) as error:
        check("room", {name: value}, TABLE)
    message = str(error.value)
    assert message.startswith(f"config.room.{name} = {value!r}: {fault}")
    assert "\n" not in message


def test_an_unknown_field_suggests_the_nearest():
    with pytest.raises(UserError, match=r"config\.step is not a field; did you mean 'steps'\?"):
        check("", {"step": 1}, TABLE)


def test_nearest_lists_everything_only_when_it_is_little():
    assert nearest("zzz", ["a", "b"]) == "known: a, b"
    assert nearest("zzz", map(str, range(100))) == ""
