"""What every figure owes its reader: no text over another or cut off, and contrast to the paper."""

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from matplotlib.typing import ColorType

# Of the two texts' smaller area; boxes of letters have room around them.
_SHARED = 0.12


def texts_of(figure: Figure) -> list[tuple[str, Bbox, Text]]:
    """What can be read in a figure, with its place in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found, hidden = [], unseen(figure)
    for artist in figure.findobj(Text):
        assert isinstance(artist, Text)
        if artist.get_visible() and artist.get_text().strip() and artist not in hidden:
            box = artist.get_window_extent(canvas.get_renderer())
            # A tick beyond the end of a scale of colours has no place.
            if np.isfinite(box.extents).all():
                found.append((artist.get_text(), box, artist))
    return found


def unseen(figure: Figure) -> set[Text]:
    """Texts of axes that are switched off and of ticks out of view: matplotlib keeps them."""
    hidden: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.majorTicks, *axis.minorTicks):
                if not (low <= tick.get_loc() <= high and axes.axison):
                    hidden |= {tick.label1, tick.label2}
            if not axes.axison:
                hidden |= {axis.label, axis.offsetText}
    return hidden


def check_readable(figure: Figure) -> None:
    """No two texts overlap, none is cut off, and all have a contrast of 4.5 : 1 to the paper."""
    texts = texts_of(figure)
    assert texts
    page = figure.bbox
    for text, box, artist in texts:
        inside = box.x0 >= -2 and box.y0 >= -2 and box.x1 <= page.x1 + 2 and box.y1 <= page.y1 + 2
        assert inside, f"{text!r} is cut off: {box} on {page}"
        behind = artist.get_bbox_patch()
        paper = figure.get_facecolor() if behind is None else behind.get_facecolor()
        assert contrast(artist.get_color(), paper) >= 4.5, f"{text!r} is pale"
    for (one, a, _), (other, b, _) in combinations(texts, 2):
        shared = Bbox.intersection(a, b)
        area = 0.0 if shared is None else shared.width * shared.height
        smaller = min(a.width * a.height, b.width * b.height)
        assert area <= _SHARED * smaller, f"{one!r} lies over {other!r}"


def contrast(one: ColorType, other: ColorType) -> float:
    """The contrast of two colours, by WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: ColorType) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
