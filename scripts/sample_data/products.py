"""Products as a shop describes them, with a picture each. Brands and wares are invented."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from sample_data.grammar import fill


class Product(NamedTuple):
    """A product. categories: full paths, among them the right one."""

    shape: str
    color: tuple[int, int, int]
    title: str
    description: str
    categories: list[str]
    category: str
    brand: str
    is_secondhand: bool


class _Ware(NamedTuple):
    shape: str  # a drawing in `pictures`
    names: tuple[str, ...]
    category: str
    materials: tuple[str, ...]
    features: tuple[str, ...]


_BRANDS = (
    "Nordhelm", "Calla & Finch", "Ovenbird", "Tresk", "Lumora", "Pinebarrel", "Quarry Lane", "Vasko",
    "Hearthline", "Sable Coast", "Mira Works", "Oldwick", "Fjordane", "Kestrel Supply", "Blue Anvil",
    "Tern & Tide",
)  # fmt: skip
_COLORS = {
    "slate": (112, 122, 138),
    "ivory": (238, 232, 214),
    "forest green": (38, 92, 56),
    "terracotta": (196, 98, 66),
    "navy": (34, 48, 98),
    "mustard": (214, 166, 50),
    "charcoal": (62, 64, 68),
    "sage": (146, 166, 132),
    "rust": (166, 74, 38),
    "sky blue": (122, 178, 222),
}

_WARES = (
    _Ware(
        "mug",
        ("Stoneware Mug", "Camp Mug", "Espresso Cup"),
        "Home & Garden > Kitchen & Dining > Tableware > Drinkware > Mugs",
        ("stoneware", "enamelled steel", "porcelain"),
        (
            "keeps a pot of tea warm through a long call",
            "stacks with its siblings",
            "has a handle for gloved hands",
        ),
    ),
    _Ware(
        "lamp",
        ("Desk Lamp", "Reading Lamp", "Bedside Light"),
        "Home & Garden > Lighting > Lamps > Table Lamps",
        ("brushed brass", "powder-coated steel", "turned oak"),
        ("dims in four steps", "turns on its base without a squeak", "takes any common bulb"),
    ),
    _Ware(
        "chair",
        ("Dining Chair", "Spindle Chair", "Workshop Stool"),
        "Furniture > Chairs > Kitchen & Dining Room Chairs",
        ("beech", "ash with a woven seat", "recycled plastic"),
        (
            "needs no tools to put together",
            "has felt under every leg",
            "carries a grown man without complaint",
        ),
    ),
    _Ware(
        "shirt",
        ("Linen Shirt", "Work Tee", "Striped Jersey"),
        "Apparel & Accessories > Clothing > Shirts & Tops",
        ("washed linen", "heavy cotton", "merino wool"),
        (
            "is cut straight and a little long",
            "keeps its shape after many washes",
            "has buttons made of corozo nut",
        ),
    ),
    _Ware(
        "bottle",
        ("Insulated Bottle", "Glass Carafe", "Cycling Bottle"),
        "Home & Garden > Kitchen & Dining > Food & Beverage Carriers > Water Bottles",
        ("steel with a double wall", "borosilicate glass", "soft plastic without softeners"),
        ("fits the holder of a car", "does not drip when it tips over", "can go into the dishwasher"),
    ),
    _Ware(
        "book",
        ("Field Guide", "Dotted Notebook", "Recipe Journal"),
        "Office Supplies > General Office Supplies > Paper Products > Notebooks & Notepads",
        ("thread-sewn paper", "recycled paper in linen", "stone paper"),
        (
            "lies flat on any page",
            "has a ribbon and a pocket at the back",
            "takes ink without bleeding through",
        ),
    ),
    _Ware(
        "clock",
        ("Wall Clock", "Station Clock", "Kitchen Timer Clock"),
        "Home & Garden > Decor > Clocks > Wall Clocks",
        ("spun aluminum", "birch plywood", "bakelite"),
        ("runs silently", "is read easily from across a room", "works a year on a single battery"),
    ),
    _Ware(
        "bag",
        ("Weekend Bag", "Market Tote", "Messenger Bag"),
        "Luggage & Bags > Duffel Bags",
        ("waxed canvas", "vegetable-tanned leather", "sailcloth"),
        ("fits under a seat", "has a strap that spares the shoulder", "stands up by itself when empty"),
    ),
    _Ware(
        "plant",
        ("Planter", "Herb Pot", "Hanging Planter"),
        "Home & Garden > Lawn & Garden > Gardening > Pots & Planters",
        ("fired clay", "fiber cement", "glazed ceramic"),
        ("has a hole and a saucer", "stands frost down to minus twenty", "weighs less than it seems to"),
    ),
    _Ware(
        "ball",
        ("Match Ball", "Beach Ball", "Training Ball"),
        "Sporting Goods > Athletics > Soccer > Soccer Balls",
        ("bonded panels", "natural rubber", "hand-stitched leather"),
        ("holds its pressure for weeks", "flies true in the wind", "comes with a needle and a net"),
    ),
    _Ware(
        "shoe",
        ("Trail Shoe", "Canvas Sneaker", "Garden Clog"),
        "Apparel & Accessories > Shoes > Sneakers",
        ("knitted yarn", "organic canvas", "natural rubber"),
        ("grips on wet stone", "dries overnight", "can be resoled by any cobbler"),
    ),
    _Ware(
        "speaker",
        ("Shelf Speaker", "Travel Speaker", "Kitchen Radio"),
        "Electronics > Audio > Audio Components > Speakers",
        ("walnut veneer", "fabric and aluminum", "bamboo"),
        (
            "fills a room without shouting",
            "plays eleven hours on a charge",
            "pairs with a second one for stereo",
        ),
    ),
)

_DISTRACTORS = (
    "Home & Garden > Decor > Vases",
    "Toys & Games > Puzzles > Jigsaw Puzzles",
    "Electronics > Computers > Keyboards",
    "Animals & Pet Supplies > Pet Supplies > Dog Supplies > Dog Beds",
    "Hardware > Tools > Hammers",
    "Sporting Goods > Outdoor Recreation > Camping & Hiking > Tents",
    "Furniture > Shelving > Bookcases",
    "Baby & Toddler > Nursing & Feeding > Bibs",
    "Arts & Entertainment > Hobbies > Musical Instruments > Ukuleles",
    "Health & Beauty > Personal Care > Cosmetics > Bath & Body > Bar Soap",
    "Office Supplies > Desk Organizers",
    "Vehicles & Parts > Vehicle Parts & Accessories > Bicycle Parts > Bells",
)

_CHOICES = {
    "praise": (
        "A quiet companion for every day, made to be used rather than looked at.",
        "Made in small batches, so that no two are exactly alike.",
        "The one that people borrow and forget to bring back.",
        "Designed after two years of living with prototypes.",
        "Simple at first sight, and thought through in every detail.",
    ),
    "care": (
        "Wipe with a damp cloth and let it dry in the air.",
        "Wash at thirty degrees with similar colors.",
        "Spare parts are available for at least ten years.",
        "Avoid long exposure to direct sunlight.",
        "Treat with a little oil once a year.",
    ),
    "shipping": (
        "Ships within two working days in packaging without plastic.",
        "Free returns within thirty days.",
        "Made to order; please allow three weeks.",
        "Ships flat, with everything that is needed to put it together.",
    ),
    "wear": (
        "Pre-owned, with light signs of use on the underside; see the photo.",
        "Second-hand, cleaned and checked by hand, one small scratch near the edge.",
        "Used for one season, works as it should, sold without the original box.",
    ),
}


def product(rng: random.Random) -> Product:
    """A new product; about one in eight is second-hand."""
    ware = rng.choice(_WARES)
    brand, color, material = rng.choice(_BRANDS), rng.choice(list(_COLORS)), rng.choice(ware.materials)
    name = rng.choice(ware.names)
    is_secondhand = rng.random() < 0.125
    fixed = {
        "brand": brand,
        "name": name,
        "lower": name.lower(),
        "color": color,
        "material": material,
        "one": ware.features[0],
        "two": ware.features[1],
        "three": ware.features[2],
    }
    title = "{brand} {name} in {color}" if rng.random() < 0.7 else "{name} - {color}, {material}"
    sentences = [
        "{praise}",
        "The {lower} by {brand} is made of {material}, {one} and {two}.",
        "It also {three}.",
        "Measures {n_8_60} by {n_6_45} by {n_4_40} centimeters and weighs {n_120_4800} grams.",
        "{care}",
        "{shipping}",
    ]
    kept = [sentence for sentence in sentences if rng.random() < 0.8] or sentences[1:2]
    if is_secondhand:
        kept.append("{wear}")
    description = " ".join(fill(sentence, rng, fixed, _CHOICES) for sentence in kept)
    return Product(
        ware.shape,
        _COLORS[color],
        fill(title, rng, fixed, _CHOICES),
        description,
        _candidates(rng, ware.category),
        ware.category,
        brand,
        is_secondhand,
    )


def _candidates(rng: random.Random, category: str) -> list[str]:
    """The right path, its parents, near misses and far ones, in no order."""
    parts = category.split(" > ")
    parents = [" > ".join(parts[:depth]) for depth in range(1, len(parts))]
    others: Sequence[str] = [*_DISTRACTORS, *(ware.category for ware in _WARES if ware.category != category)]
    candidates = [category, *parents, *rng.sample(others, rng.randint(4, 12))]
    rng.shuffle(candidates)
    return candidates
