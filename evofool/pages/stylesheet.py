"""The style sheet of pages: for light and dark, wide and narrow screens, and for print."""

from evofool.pages.palette import variables

STYLE = f"""
:root {{ color-scheme: light dark; {variables()} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(dark=True)} }} }}
body {{ margin: 0 auto; padding: 2rem 1.25rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.8rem; line-height: 1.25; margin: 0 0 .7rem; overflow-wrap: anywhere; text-wrap: balance; }}
h2 {{ font-size: 1.25rem; line-height: 1.3; margin: 0 0 .5rem; overflow-wrap: anywhere; }}
h3 {{ font-size: 1rem; margin: 1.6rem 0 .3rem; overflow-wrap: anywhere; }}
section {{ margin-top: 2.2rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }}
a {{ color: var(--blue); overflow-wrap: anywhere; }}
p {{ max-width: 48rem; margin: .5rem 0; overflow-wrap: anywhere; }}
.up {{ margin: 0 0 .6rem; font-size: .9rem; }}
.source, footer, figcaption span {{ color: var(--faint); font-size: .875rem; }}
.fault {{ color: var(--fault); font-weight: 600; }}
.caution {{ color: var(--caution); font-weight: 600; }}
.lead {{ font-size: 1.125rem; max-width: 52rem; }}
header .lead {{ font-size: 1.3rem; line-height: 1.4; font-weight: 600; margin: .2rem 0 .9rem; }}
.figures {{ display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.1rem 0; }}
.figures div {{ display: flex; flex-direction: column-reverse; justify-content: flex-end; flex: 1 1 13rem; max-width: 20rem;
  background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }}
.figures dt {{ font-size: .9rem; color: var(--faint); line-height: 1.35; }}
.figures dd {{ margin: 0 0 .2rem; font-size: 1.7rem; line-height: 1.2; font-weight: 650; }}
.figures i {{ font-style: normal; font-size: .875rem; font-weight: 400; color: var(--faint); white-space: nowrap; }}
.beside > nav {{ font-size: .9rem; }}
nav ol {{ list-style: none; margin: 0; padding: 0; }}
nav a {{ text-decoration: none; }} nav a:hover {{ text-decoration: underline; }}
@media (min-width: 64rem) {{
  .beside {{ display: grid; grid-template-columns: 12.5rem minmax(0, 1fr); column-gap: 2.2rem; }}
  .beside > nav {{ position: sticky; top: 0; align-self: start; max-height: 100vh; overflow-y: auto; box-sizing: border-box;
    margin-top: 2.2rem; padding: 1.2rem 0; }}
  nav li {{ margin: 0 0 .45rem; line-height: 1.3; }}
}}
@media (max-width: 63.99rem) {{
  .beside > nav {{ position: sticky; top: 0; z-index: 2; background: var(--paper); border-bottom: 1px solid var(--line);
    margin: 1.2rem -1.25rem 0; padding: 0 1.25rem; overflow-x: auto; }}
  nav ol {{ display: flex; gap: 1.2rem; }} nav a {{ display: block; padding: .6rem 0; white-space: nowrap; }}
  [id^="at-"] {{ scroll-margin-top: 3.5rem; }}
}}
.pictures {{ display: flex; flex-wrap: wrap; gap: 1.1rem; margin: .9rem 0; align-items: flex-start; }}
figure {{ margin: 0; width: var(--wide, min-content); min-width: 9rem; max-width: 100%; break-inside: avoid; }}
figure.thumb {{ min-width: 5.25rem; }} .thumb figcaption {{ font-size: .85rem; }}
.pictures:has(.thumb) {{ gap: .9rem; }}
img {{ display: block; max-width: 100%; height: auto; border: 1px solid var(--line); box-sizing: border-box; }}
img.small {{ image-rendering: pixelated; }}
figcaption {{ margin-top: .35rem; font-size: .9rem; line-height: 1.35; overflow-wrap: anywhere; }}
figcaption span {{ display: block; }}
figure.plot {{ width: auto; max-width: 62rem; margin: 1.1rem 0; }}
.plot svg, .plot img {{ display: block; width: 100%; min-width: 38rem; height: auto; border: 0; max-width: none; }}
.plot svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
.plot figcaption span {{ max-width: 48rem; }}
details {{ margin: .9rem 0; }} summary {{ cursor: pointer; color: var(--faint); font-size: .9rem; }}
section:has(> details > summary > h2) {{ margin-top: .8rem; padding-top: .8rem; }} section > details {{ margin: 0; }}
section > details > summary {{ color: var(--ink); }}
summary h2 {{ display: inline; }} details[open] > summary h2 {{ margin-bottom: .5rem; }}
.wide {{ overflow-x: auto; margin: .9rem 0; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; padding-bottom: .3rem; }}
caption, .under {{ font-size: .875rem; color: var(--faint); }}
th, td {{ text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }}
thead th {{ vertical-align: bottom; line-height: 1.3; text-wrap: balance; }}
th.group {{ padding-top: .8rem; color: var(--faint); font-weight: 600; }}
th.number, td.number {{ text-align: right; }} td.number {{ white-space: nowrap; }}
td i {{ color: var(--faint); font-style: normal; font-size: .85em; white-space: nowrap; }}
.dense {{ font-size: .85rem; }} .dense th, .dense td {{ padding-right: .65rem; }}
.dense td i {{ display: block; line-height: 1.2; }}
td b {{ font-weight: 650; border: 1px solid; border-radius: .3em; padding: 0 .35em; font-size: .85em; white-space: nowrap; }}
.good {{ color: var(--good); }} td b.fault, td b.caution {{ font-weight: 650; }}
footer {{ margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .8rem; overflow-wrap: anywhere; }}
@media (max-width: 40rem) {{
  body {{ padding: 1.25rem .9rem; }} h1 {{ font-size: 1.5rem; }} header .lead {{ font-size: 1.15rem; }}
  .beside > nav {{ margin-left: -.9rem; margin-right: -.9rem; padding: 0 .9rem; }}
  td i {{ display: block; line-height: 1.2; }} .figures div {{ flex-basis: 100%; max-width: none; }}
  thead th:first-child, td:first-child:not([colspan]) {{ position: sticky; left: 0; background: var(--paper);
    max-width: 8.5rem; overflow-wrap: break-word; }}
  td:first-child i {{ white-space: normal; }}
  .pictures {{ gap: .8rem; }} .pictures:has(.thumb) {{ gap: .7rem; }}
  figure.thumb {{ min-width: 0; width: calc((100% - 2.1rem) / 4); }} .thumb figcaption span {{ font-size: .78rem; }}
}}
@media print {{
  :root {{ {variables()} --paper: #fff; --panel: #fff; --ink: #000; --faint: #444; --line: #bbb; --fault: #a00; }}
  body {{ max-width: none; padding: 0; font-size: 11pt; }} h2, h3 {{ break-after: avoid; }} tr {{ break-inside: avoid; }}
  .beside {{ display: block; }} .beside > nav, .up {{ display: none; }}
  .wide {{ overflow: visible; }} .plot svg {{ min-width: 0; }} table {{ font-size: 8pt; }}
  details::details-content {{ content-visibility: visible; block-size: auto; }}
}}
"""
