"""What panels share: sizes that stay, and frames that scroll."""

import ipywidgets as widgets


def fix_size(width: str, height: str = "32px") -> widgets.Layout:
    """
    Give a layout of fixed size, so that nothing jumps while a panel changes.

    Parameters
    ----------
    width, height : str
        As in CSS.

    Returns
    -------
    ipywidgets.Layout
        With a small margin.
    """
    return widgets.Layout(width=width, height=height, margin="2px 8px 2px 2px")


def frame(label: str, height_px: int, body: str) -> str:
    """
    Put HTML into a frame of fixed height that scrolls, by keyboard too.

    Parameters
    ----------
    label : str
        What a screen reader calls it.
    height_px : int
        In pixels.
    body : str
        HTML that was made safe before.

    Returns
    -------
    str
        HTML.
    """
    return (
        f'<div tabindex="0" role="region" aria-label="{label}" '
        f'style="height:{height_px}px;overflow:auto;line-height:1.5">{body}</div>'
    )
