"""Draws docs/operations.jpg: what each operation of the policies does to a photograph.

python docs/draw_operations.py
"""

from pathlib import Path

from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

from resnet_jax.data.images import operations

SIDE, CAPTION, COLUMNS = 112, 14, 6
SHOWN = (
    *(("identity", 0), ("shear_x", 0.3), ("shear_y", 0.3), ("translate_x", 32)),
    *(("translate_y", 32), ("rotate", 30), ("brightness", 1.6), ("color", 0.1)),
    *(("contrast", 1.8), ("sharpness", 1.9), ("hue", 0.1), ("posterize", 2)),
    *(("solarize", 128), ("solarize_add", 80), ("autocontrast", 0), ("equalize", 0)),
    ("invert", 0),
)


def main() -> None:
    photo = Image.fromarray(load_sample_images().images[0]).crop((100, 0, 527, 427))
    photo = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    rows = -(-len(SHOWN) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 2), rows * (SIDE + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (name, amount) in enumerate(SHOWN):
        left, top = number % COLUMNS * (SIDE + 2), number // COLUMNS * (SIDE + CAPTION)
        sheet.paste(operations.apply(photo, name, amount, fill=(0, 0, 0)), (left, top))
        caption = f"{name} {amount}" if amount else name
        pen.text((left + 1, top + SIDE + 1), caption, fill="black")
    sheet.save(Path(__file__).with_name("operations.jpg"), quality=75)


if __name__ == "__main__":
    main()
