"""Pictures for the documents: bars, as SVG, readable on light and on dark pages."""

import html

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP = 760, 24, 190, 110, 44
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1")
_STYLE = """<style>
text { font: 13px sans-serif; fill: #24292f }
.title { font-weight: bold }
.goal { stroke: #24292f; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .goal { stroke: #e6edf3 } }
</style>"""


def _picture(path, title, rows, height):
    text = html.escape(title)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
                    f'aria-label="{text}">\n{_STYLE}\n<text class="title" x="8" y="22">{text}</text>\n'
                    + "\n".join(rows) + "\n</svg>\n")


def _row(y, name, x, width, colour, words):
    return (f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>\n'
            f'<rect x="{x:.1f}" y="{y + 2}" width="{max(width, 1):.1f}" height="{_ROW - 6}" fill="{colour}"/>\n'
            f'<text x="{x + max(width, 1) + 6:.1f}" y="{y + 14}">{html.escape(words)}</text>')


def steps(path, title, seconds):
    """One after the other, each from where the one before ends; seconds is name -> how long."""
    scale = (_WIDTH - _LEFT - _RIGHT) / sum(seconds.values())
    rows, y, at = [], _TOP, 0.0
    for number, (name, took) in enumerate(seconds.items()):
        rows.append(_row(y, name, _LEFT + at * scale, took * scale, _COLOURS[number % len(_COLOURS)], f"{took:.1f} s"))
        y, at = y + _ROW, at + took
    _picture(path, f"{title} ({at:.0f} s)", rows, y + 8)


def groups(path, title, values, goals):
    """values is group -> name -> bytes; goals the same, drawn as a line across the bar."""
    longest = max(size for group in (*values.values(), *goals.values()) for size in group.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    rows, y = [], _TOP
    for group, sizes in values.items():
        rows.append(f'<text class="title" x="8" y="{y + 14}">{html.escape(group)}</text>')
        y += _ROW
        for number, (name, size) in enumerate(sizes.items()):
            rows.append(_row(y, name, _LEFT, size * scale, _COLOURS[number % len(_COLOURS)], f"{size:,}"))
            goal = _LEFT + goals[group][name] * scale
            rows.append(f'<line class="goal" x1="{goal:.1f}" x2="{goal:.1f}" y1="{y}" y2="{y + _ROW - 2}"/>')
            y += _ROW
    _picture(path, title, rows, y + 8)
