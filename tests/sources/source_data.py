"""What tests of data sources share: images on disk, and what a source holds and promises."""

from PIL import Image


def sizes(source):
    return {name: split.examples() for name, split in source.splits().items()}


def promised(source):
    return {fact.removeprefix("data.") for fact in source.config.contract().gives if fact.startswith("data.")}


def write_images(root, counts, size=(6, 5)):
    for name, count in counts.items():
        folder = root / name
        folder.mkdir(parents=True)
        for one in range(count):
            Image.new("RGB", size, (one, len(name), 7)).save(folder / f"{one}.png")
