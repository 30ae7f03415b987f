"""Pictures of products on a table, drawn with Pillow: no photograph of anybody is used."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFilter

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

_SIZES = (
    (320, 320), (400, 300), (360, 480), (512, 512), (640, 480), (480, 640), (600, 600), (768, 576),
    (800, 600), (576, 768), (1024, 768),
)  # fmt: skip
_PNG_LONGEST_SIDE = 512  # PNG keeps every pixel, so only the smaller pictures are worth their size in it
_JPEG_QUALITY = 82


def picture(rng: random.Random, shape: str, color: Color) -> tuple[bytes, str]:
    """The file of a picture, PNG or JPEG, of a thing in this color, and its extension."""
    size = rng.choice(_SIZES)
    image = _scene(rng, shape, color, size)
    as_png = max(size) <= _PNG_LONGEST_SIDE and rng.random() < 0.4
    file = io.BytesIO()
    if as_png:
        image.quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return file.getvalue(), "png" if as_png else "jpg"


def _scene(rng: random.Random, shape: str, main: Color, size: tuple[int, int]) -> Image.Image:
    width, height = size
    wall, table, trim = (_color(rng, low, high) for low, high in ((170, 245), (90, 190), (20, 140)))
    horizon = height * rng.uniform(0.6, 0.75)
    image = Image.new("RGB", size, wall)
    draw = ImageDraw.Draw(image)
    for y in range(height):
        base = wall if y < horizon else table
        draw.line((0, y, width, y), fill=_shade(base, 1.06 - 0.22 * y / height))
    for _ in range(rng.randint(4, 14)):
        grain = rng.uniform(horizon, height)  # of the table's wood
        draw.line(
            (0, grain, width, grain + rng.uniform(-6, 6)), fill=_shade(table, rng.uniform(0.8, 0.95)), width=1
        )

    side = min(width, height) * rng.uniform(0.5, 0.68)
    left = (width - side) / 2 + rng.uniform(-0.08, 0.08) * width
    bottom = horizon + (height - horizon) * rng.uniform(0.25, 0.6)
    box = (left, bottom - side, left + side, bottom)
    shadow = Image.new("L", size, 0)
    ImageDraw.Draw(shadow).ellipse(
        (left, bottom - side * 0.09, left + side * 1.15, bottom + side * 0.07), fill=110
    )
    image.paste((20, 20, 25), mask=shadow.filter(ImageFilter.GaussianBlur(side * 0.03)))
    _SHAPES[shape](ImageDraw.Draw(image), box, main, trim, rng)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 0.9)))


def _color(rng: random.Random, low: int, high: int) -> Color:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _shade(color: Color, factor: float) -> Color:
    red, green, blue = (max(0, min(255, round(part * factor))) for part in color)
    return red, green, blue


def _part(box: Box, x0: float, y0: float, x1: float, y1: float) -> Box:
    """A part of a box, in fractions of its sides."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return left + x0 * width, top + y0 * height, left + x1 * width, top + y1 * height


def _at(box: Box, *points: tuple[float, float]) -> list[tuple[float, float]]:
    return [_part(box, x, y, x, y)[:2] for x, y in points]


def _barrel(draw: ImageDraw.ImageDraw, box: Box, color: Color) -> None:
    """A round body, lit from the left: darker stripe by stripe towards the right."""
    left, top, right, bottom = box
    for step in range(round(right - left) + 1):
        across = step / (right - left)
        draw.line((left + step, top, left + step, bottom), fill=_shade(color, 1.15 - 0.55 * across**1.5))


def _mug(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    draw.arc(
        _part(box, 0.6, 0.3, 1.0, 0.8), 270, 90, fill=_shade(main, 0.7), width=round((box[2] - box[0]) * 0.06)
    )
    draw.ellipse(_part(box, 0.1, 0.88, 0.75, 1.0), fill=_shade(main, 0.8))
    _barrel(draw, _part(box, 0.1, 0.2, 0.75, 0.94), main)
    draw.ellipse(_part(box, 0.1, 0.13, 0.75, 0.27), fill=_shade(main, 1.1), outline=trim)
    draw.ellipse(
        _part(box, 0.14, 0.15, 0.71, 0.25), fill=rng.choice(((70, 40, 20), (160, 110, 50), (40, 30, 30)))
    )
    draw.rectangle(_part(box, 0.1, 0.6, 0.75, 0.66), fill=trim)


def _lamp(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    draw.ellipse(_part(box, 0.25, 0.9, 0.75, 1.0), fill=trim)
    draw.rectangle(_part(box, 0.48, 0.4, 0.52, 0.95), fill=_shade(trim, 1.4))
    spread = rng.uniform(0.0, 0.15)
    draw.polygon(_at(box, (0.35, 0.05), (0.65, 0.05), (0.9 - spread, 0.45), (0.1 + spread, 0.45)), fill=main)
    draw.ellipse(_part(box, 0.1 + spread, 0.41, 0.9 - spread, 0.5), fill=(255, 236, 180))


def _chair(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    for x in (0.18, 0.76):
        draw.rectangle(_part(box, x, 0.0, x + 0.06, 1.0), fill=_shade(main, 0.8))
    for x in (0.3, 0.64):
        draw.rectangle(_part(box, x, 0.55, x + 0.05, 0.92), fill=_shade(main, 0.6))
    for slat in range(rng.randint(2, 4)):
        draw.rectangle(_part(box, 0.2, 0.05 + slat * 0.12, 0.8, 0.1 + slat * 0.12), fill=main)
    draw.polygon(_at(box, (0.15, 0.6), (0.85, 0.6), (0.78, 0.5), (0.22, 0.5)), fill=trim)


def _shirt(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    outline = ((0.3, 0.05), (0.7, 0.05), (1.0, 0.28), (0.88, 0.42), (0.76, 0.34), (0.76, 1.0), (0.24, 1.0),
               (0.24, 0.34), (0.12, 0.42), (0.0, 0.28))  # fmt: skip
    draw.polygon(_at(box, *outline), fill=main, outline=_shade(main, 0.6))
    for stripe in range(rng.randint(0, 6)):
        draw.rectangle(_part(box, 0.25, 0.4 + stripe * 0.09, 0.75, 0.43 + stripe * 0.09), fill=trim)
    draw.pieslice(_part(box, 0.38, -0.06, 0.62, 0.16), 0, 180, fill=_shade(main, 0.5))


def _bottle(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    _barrel(draw, _part(box, 0.34, 0.3, 0.66, 0.98), main)
    draw.pieslice(_part(box, 0.34, 0.16, 0.66, 0.46), 180, 360, fill=_shade(main, 1.05))
    _barrel(draw, _part(box, 0.44, 0.05, 0.56, 0.2), trim)
    draw.rectangle(_part(box, 0.34, 0.55, 0.66, 0.55 + rng.uniform(0.08, 0.25)), fill=_shade(trim, 1.5))


def _book(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    lean = rng.uniform(0.0, 0.12)
    draw.polygon(
        _at(box, (0.86 - lean, 0.1), (0.93 - lean, 0.06), (0.93, 0.95), (0.86, 1.0)), fill=(240, 236, 225)
    )
    draw.polygon(_at(box, (0.15 + lean, 0.1), (0.86 - lean, 0.1), (0.86, 1.0), (0.15, 1.0)), fill=main)
    draw.rectangle(_part(box, 0.28, 0.28, 0.72, 0.42), fill=trim)
    for line in range(rng.randint(1, 4)):
        draw.line(
            _part(box, 0.34, 0.55 + line * 0.06, 0.66, 0.55 + line * 0.06), fill=_shade(main, 0.6), width=2
        )


def _clock(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    draw.ellipse(
        _part(box, 0.05, 0.05, 0.95, 0.95), fill=main, outline=trim, width=round((box[2] - box[0]) * 0.03)
    )
    draw.ellipse(_part(box, 0.13, 0.13, 0.87, 0.87), fill=(248, 246, 240))

    def point(turn: float, radius: float) -> tuple[float, float]:
        angle = 2 * math.pi * turn
        return 0.5 + radius * math.sin(angle), 0.5 - radius * math.cos(angle)

    for hour in range(12):
        draw.line(_at(box, point(hour / 12, 0.29), point(hour / 12, 0.34)), fill=trim, width=3)
    for radius, width in ((0.19, 6), (0.29, 4)):
        draw.line(_at(box, (0.5, 0.5), point(rng.random(), radius)), fill=trim, width=width)


def _bag(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    draw.arc(_part(box, 0.28, 0.02, 0.72, 0.75), 180, 360, fill=trim, width=round((box[2] - box[0]) * 0.04))
    draw.rounded_rectangle(_part(box, 0.02, 0.38, 0.98, 1.0), radius=(box[2] - box[0]) * 0.1, fill=main)
    draw.rectangle(_part(box, 0.02, 0.5, 0.98, 0.53), fill=trim)
    for x in (0.22, 0.72):
        draw.rectangle(_part(box, x, 0.38, x + 0.06, 1.0), fill=_shade(main, rng.uniform(0.6, 0.8)))


def _plant(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    for _ in range(rng.randint(7, 14)):
        tip = rng.uniform(0.05, 0.95), rng.uniform(0.0, 0.4)
        green = (rng.randint(30, 90), rng.randint(110, 180), rng.randint(40, 100))
        draw.polygon(_at(box, (0.44, 0.6), tip, (0.56, 0.6)), fill=green, outline=_shade(green, 0.7))
    draw.polygon(_at(box, (0.2, 0.58), (0.8, 0.58), (0.7, 1.0), (0.3, 1.0)), fill=main)
    draw.rectangle(_part(box, 0.17, 0.54, 0.83, 0.63), fill=_shade(main, 1.15), outline=trim)


def _ball(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    for step in range(24):
        inset = step / 24 * 0.36
        draw.ellipse(_part(box, 0.05 + inset, 0.05 + inset * 0.8, 0.95 - inset * 1.2, 0.95 - inset * 1.3),
                     fill=_shade(main, 0.75 + step / 55))  # fmt: skip
    start = rng.randint(0, 90)
    for turn in range(3):
        draw.arc(
            _part(box, 0.05 + turn * 0.2, 0.05, 0.95 - turn * 0.2, 0.95),
            start,
            start + 180,
            fill=trim,
            width=5,
        )


def _shoe(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    upper = ((0.05, 0.45), (0.35, 0.4), (0.55, 0.62), (0.9, 0.72), (1.0, 0.88), (0.02, 0.88))
    draw.polygon(_at(box, *upper), fill=main, outline=_shade(main, 0.6))
    draw.rounded_rectangle(_part(box, 0.0, 0.86, 1.02, 1.0), radius=8, fill=trim)
    for lace in range(rng.randint(3, 5)):
        x, y = 0.34 + lace * 0.06, 0.47 + lace * 0.06
        draw.line(_at(box, (x, y), (x + 0.1, y - 0.02)), fill=(245, 245, 240), width=4)


def _speaker(draw: ImageDraw.ImageDraw, box: Box, main: Color, trim: Color, rng: random.Random) -> None:
    draw.rounded_rectangle(_part(box, 0.2, 0.0, 0.8, 1.0), radius=(box[2] - box[0]) * 0.05, fill=main)
    for top, radius in ((0.1, 0.14), (0.48, 0.22)):
        for ring in range(4):
            shrink = radius * ring / 5
            ring_box = _part(
                box, 0.5 - radius + shrink, top + shrink, 0.5 + radius - shrink, top + 2 * radius - shrink
            )
            draw.ellipse(ring_box, fill=_shade(trim, 0.6 + ring * 0.25))
    draw.ellipse(_part(box, 0.72, 0.94, 0.75, 0.97), fill=rng.choice(((90, 220, 120), (240, 90, 80))))


_SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, Box, Color, Color, random.Random], None]] = {
    "mug": _mug, "lamp": _lamp, "chair": _chair, "shirt": _shirt, "bottle": _bottle, "book": _book,
    "clock": _clock, "bag": _bag, "plant": _plant, "ball": _ball, "shoe": _shoe, "speaker": _speaker,
}  # fmt: skip
