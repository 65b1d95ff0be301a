"""Colours and layout of the page, light and dark.

The colours of curves are Okabe and Ito's, which people with any colour vision can tell
apart; on a dark page they are lighter.
"""

LIGHT = {
    "page": "#ffffff",
    "panel": "#f5f7f9",
    "border": "#d5dbe1",
    "text": "#1c2126",
    "muted": "#57616c",
    "heat": "#0b66a8",
    "blue": "#0072b2",
    "vermilion": "#d55e00",
    "green": "#009e73",
    "purple": "#b4588c",
    "orange": "#c98a00",
    "sky": "#3d9fd8",
    "grey": "#7a8590",
}
DARK = {
    "page": "#111519",
    "panel": "#191f25",
    "border": "#35404a",
    "text": "#e8edf2",
    "muted": "#a3afba",
    "heat": "#7cc4f5",
    "blue": "#5cb1ea",
    "vermilion": "#ff9257",
    "green": "#3fcb9d",
    "purple": "#e59ac4",
    "orange": "#f2b93b",
    "sky": "#a5daf7",
    "grey": "#8f9ba6",
}
SERIES = ("blue", "vermilion", "green", "purple", "orange", "sky")


def _variables(colours: dict) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


_COLOURS = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
"""
_LAYOUT = """
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 76rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere;
}
h1 { margin: 0; color: var(--muted); font-size: 1.05rem; font-weight: 600; }
h2 {
  margin: 3rem 0 1rem; padding-bottom: .35rem; font-size: 1.25rem;
  border-bottom: 1px solid var(--border);
}
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 54rem; }
a, summary { color: var(--blue); }
code { font: .88em ui-monospace, Menlo, Consolas, monospace; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 1.25rem 0; }
details { margin: .75rem 0; }
summary { padding: .3rem 0; cursor: pointer; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--border); }
footer, .muted, caption, figcaption { color: var(--muted); font-size: .875rem; }
.result {
  margin: .25rem 0 .5rem; max-width: 60rem; font-weight: 650; line-height: 1.25;
  font-size: clamp(1.35rem, 4vw, 2rem); text-wrap: balance;
}
.note {
  padding: .6rem .9rem; border-left: 4px solid var(--orange); background: var(--panel);
}

.tiles, .charts, .samples { display: grid; gap: 1rem; margin: 1rem 0; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(8.2rem, 1fr)); gap: .6rem; }
.tiles div { padding: .7rem .9rem; border-radius: .5rem; background: var(--panel); }
.tiles dt { color: var(--muted); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.15rem; font-weight: 600; }

figure { margin: 0; min-width: 0; }
figure > svg, figure > img { display: block; width: 100%; height: auto; }
.charts {
  gap: 2rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr));
}
.charts figure { max-width: 30rem; }
.charts h3 { margin: 0 0 .3rem; }
.charts svg { stroke-linejoin: round; stroke-linecap: butt; }
.charts svg text { font-family: inherit !important; }
.key { display: inline-flex; align-items: center; gap: .4em; margin-right: 1em; }
.key svg { flex: none; width: 1.9em; height: .8em; }
.samples { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.samples img {
  aspect-ratio: 1; object-fit: contain; border-radius: .4rem; background: var(--panel);
}
.samples figcaption { margin-top: .3rem; line-height: 1.35; }
.samples b { color: var(--text); }
.kernels { max-width: 44rem; }
.kernels img { image-rendering: pixelated; border-radius: .4rem; }

.columns { display: flex; flex-wrap: wrap; gap: .5rem 4rem; align-items: flex-start; }
.columns > * { max-width: 100%; }
.columns .charts { width: 27rem; max-width: 100%; }
.scroll { overflow-x: auto; margin: .75rem 0; }
.scroll:focus-visible { outline: 2px solid var(--blue); }
table {
  border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
}
caption { padding-bottom: .4rem; text-align: left; }
th, td {
  padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--border);
  text-align: left; vertical-align: top;
}
thead th { color: var(--muted); font-weight: 600; white-space: nowrap; }
tbody th { min-width: 6.5rem; max-width: 22rem; font-weight: 500; }
th code { white-space: nowrap; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; }
.numbers td { white-space: nowrap; }
.texts td { min-width: 9rem; }
.matrix td { min-width: 3.4rem; border: 2px solid var(--page); }
.matrix td, .matrix thead th:not(:first-child) {
  padding: .35rem .5rem; text-align: center;
}
.matrix thead th { max-width: 9rem; white-space: normal; }
.many thead th:not(:first-child) {
  max-height: 11rem; writing-mode: vertical-rl; text-align: end;
}
.best { font-weight: 700; }
@media print { body { max-width: none; } figure, tr { break-inside: avoid; } }
"""
STYLE = _COLOURS + _LAYOUT
