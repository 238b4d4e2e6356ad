"""What the screen of a guest shows in large letters.

    guest = Guest(..., qemu_args=screen.ARGUMENTS, options="console=tty0 console=ttyS0")
    screen.read(guest)      # ("FLASH 12% 0:09", "white", [22, 23])
"""

import re
import tempfile

# A card that shows 80 columns of 25 rows.
ARGUMENTS = ["-vga", "std"]
COLUMNS, ROWS = 80, 25
# A digit for each row of a letter, a bit of it for each dot: as people draw letters of 3 by 5 dots.
LETTERS = dict(zip("0123456789:ABCDEFGHIJKLMNOPQRSTUVWXYZ% ", (
    "75557 26227 71747 71717 55711 74717 74757 71111 75757 75717 02020 25755 65656 34443 65556 74647 74644 34553 55755 "
    "72227 11152 55655 44447 57755 65555 25552 65644 25563 65655 34216 72222 55557 55552 55775 55255 55222 71247 51245 "
    "00000").split()))
COLOURS = {(True, True, True): "white", (True, False, False): "red", (False, True, False): "green"}


def read(guest):
    """The large letters and their colour, and which rows below them have anything on them."""
    with tempfile.NamedTemporaryFile(dir=guest.folder, suffix=".ppm") as file:
        guest.qmp("screendump", filename=file.name)
        picture = file.read()
    head = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", picture)
    width, height = int(head[1]), int(head[2])
    dots = picture[head.end():]

    def colour(row, column):
        # The first dot of a cell belongs to no letter of the card's own.
        place = 3 * (row * height // ROWS * width + column * width // COLUMNS + 1)
        return tuple(part > 100 for part in dots[place:place + 3])

    def is_used(row):
        start, end = (3 * edge * height // ROWS * width for edge in (row, row + 1))
        return any(part > 100 for part in dots[start:end])
    text, ink = letters([[colour(row, column) for column in range(COLUMNS)] for row in range(1, 6)])
    # In the last one is the cursor.
    return text, ink, [row for row in range(7, ROWS - 1) if is_used(row)]


def letters(rows):
    """The text that is in these rows of colours, and its colour; an empty one where there are no letters."""
    inks = {cell for row in rows for cell in row if any(cell)}
    for wide in (2, 1):
        letter = 4 * wide
        digits = [["".join(str(sum(4 >> dot for dot in range(3) if any(row[at + dot * wide])))) for row in rows]
                  for at in range(0, COLUMNS - letter + 1, letter)]
        names = {dots: name for name, dots in LETTERS.items()}
        text = "".join(names.get("".join(dots), "?") for dots in digits).rstrip()
        if "?" not in text:
            assert len(inks) <= 1, inks
            return text, COLOURS.get(next(iter(inks), None), "")
    raise AssertionError("\n".join("".join("#" if any(cell) else "." for cell in row) for row in rows))
