"""The style sheet of pages: for light and dark, wide and narrow screens, and for print."""

from evofool.pages.palette import variables

STYLE = f"""
:root {{ color-scheme: light dark; {variables()} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(dark=True)} }} }}
body {{ margin: 0 auto; padding: 2rem 1.25rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .4rem; border-top: 1px solid var(--line); padding-top: 1.2rem;
  overflow-wrap: anywhere; }}
h3 {{ font-size: 1rem; margin: 1.6rem 0 .3rem; overflow-wrap: anywhere; }}
p {{ max-width: 48rem; margin: .5rem 0; overflow-wrap: anywhere; }}
.source, footer, figcaption span {{ color: var(--faint); font-size: .875rem; }}
.fault {{ color: var(--fault); font-weight: 600; }}
.caution {{ color: var(--caution); font-weight: 600; }}
nav {{ margin: 1.4rem 0 0; font-size: .9rem; }}
nav ol {{ list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; }}
nav a {{ color: var(--blue); text-decoration: none; overflow-wrap: anywhere; }} nav a:hover {{ text-decoration: underline; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1.1rem; margin: .9rem 0; align-items: flex-start; }}
figure {{ margin: 0; width: min-content; min-width: 9rem; break-inside: avoid; }}
img {{ display: block; max-width: calc(100vw - 2.5rem); height: auto; border: 1px solid var(--line); }}
img.small {{ image-rendering: pixelated; }}
figcaption {{ margin-top: .35rem; font-size: .9rem; line-height: 1.35; overflow-wrap: anywhere; }}
figcaption span {{ display: block; }}
figure.plot {{ width: auto; max-width: 62rem; margin: 1.1rem 0; }}
.plot svg, .plot img {{ display: block; width: 100%; min-width: 38rem; height: auto; border: 0; max-width: none; }}
.plot svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
.plot figcaption span {{ max-width: 48rem; }}
details {{ margin: .9rem 0; }} summary {{ cursor: pointer; color: var(--faint); font-size: .9rem; }}
.wide {{ overflow-x: auto; margin: .9rem 0; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; padding-bottom: .3rem; }}
caption, .under {{ font-size: .875rem; color: var(--faint); }}
th, td {{ text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }}
th.group {{ padding-top: .8rem; color: var(--faint); font-weight: 600; }}
.number {{ text-align: right; }} td.number {{ white-space: nowrap; }}
.lead {{ font-size: 1.125rem; max-width: 52rem; }}
td i {{ color: var(--faint); font-style: normal; font-size: .85em; white-space: nowrap; }}
.dense {{ font-size: .85rem; }} .dense th, .dense td {{ padding-right: .65rem; }}
.dense td i {{ display: block; line-height: 1.2; }}
td b {{ font-weight: 650; border: 1px solid; border-radius: .3em; padding: 0 .35em; font-size: .85em; white-space: nowrap; }}
.good {{ color: var(--good); }} td b.fault, td b.caution {{ font-weight: 650; }}
footer {{ margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .8rem; overflow-wrap: anywhere; }}
@media (max-width: 40rem) {{ td i {{ display: block; line-height: 1.2; }} body {{ padding: 1.25rem .9rem; }} }}
@media print {{
  :root {{ {variables()} --paper: #fff; --panel: #fff; --ink: #000; --faint: #444; --line: #bbb; --fault: #a00; }}
  body {{ max-width: none; padding: 0; font-size: 11pt; }} h2, h3 {{ break-after: avoid; }} tr {{ break-inside: avoid; }}
  .wide {{ overflow: visible; }} .plot svg {{ min-width: 0; }} table {{ font-size: 8pt; }} nav {{ display: none; }}
  details::details-content {{ content-visibility: visible; block-size: auto; }}
}}
"""
