"""`--mode=recipes`: the recipes there are, with what each of them is."""

from resnet_jax import recipes
from resnet_jax.commands import Arguments, Verb


def main(arguments: Arguments) -> None:
    known = recipes.shipped()
    width = max(map(len, known), default=0)
    for name, path in known.items():
        print(f"{name:<{width}}  {recipes.headline(path)}")


VERB = Verb(
    "lists the recipes; --config takes their names",
    main,
    lambda values: None,
    several_processes=False,
)
