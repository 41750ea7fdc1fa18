#include "puzzle/report/style.h"

namespace puzzle {

std::string_view report_style() {
  return R"(
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f5f7f9; --ink: #1a2027; --soft: #57616d; --rule: #dde2e8;
  --grid: #e8ecf0; --link: #0b5c9e; --ours: #eaf3fb; --good: #00734f; --void: #eef0f3;
  --s0: #0067a5; --s1: #cc5500; --s2: #00835d; --s3: #8a4f9e;
  --s4: #9a7000; --s5: #2f93cc; --s6: #b02a6f; --s7: #4d5661;
  --h0: #fff9ea; --h1: #ffefc9; --h2: #fee09c; --h3: #fdc86b; --h4: #fbab41;
  --h5: #ee8624; --h6: #d86411; --h7: #b54707; --h8: #8a3106; --h9: #5c1e05;
  --cell-low: #3a2205; --cell-high: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161b; --panel: #1b2027; --ink: #e5e9ee; --soft: #9da7b3; --rule: #2f3740;
    --grid: #242b33; --link: #74b8f2; --ours: #182a3b; --good: #4fcf9f; --void: #1f252c;
    --s0: #5aaeea; --s1: #f58f4c; --s2: #43c89c; --s3: #c996de;
    --s4: #dfb23f; --s5: #a2dcfa; --s6: #f283b8; --s7: #a7b1bd;
    --h0: #201b17; --h1: #31261c; --h2: #48321f; --h3: #633f1e; --h4: #82501d;
    --h5: #a5651f; --h6: #c57e2d; --h7: #de9b4b; --h8: #f0ba79; --h9: #fddfb3;
    --cell-low: #f3e4d2; --cell-high: #201206;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
    "Liberation Sans", Arial, sans-serif;
}
main, header > div, nav > div { max-width: 1112px; margin: 0 auto; padding: 0 36px; }
header { padding: 40px 0 20px; }
h1 { margin: 0; font-size: 30px; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; }
header p { margin: 8px 0 0; color: var(--soft); max-width: 780px; }
nav { background: var(--page); border-bottom: 1px solid var(--rule); }
@media (min-width: 700px) { nav { position: sticky; top: 0; z-index: 1; } }
nav > div { display: flex; flex-wrap: wrap; gap: 2px 20px; padding-top: 9px; padding-bottom: 9px; }
nav a { color: var(--soft); text-decoration: none; font-size: 13.5px; }
nav a:hover { color: var(--link); }
section { padding: 30px 0 14px; border-top: 1px solid var(--rule); scroll-margin-top: 40px; }
section:first-child { border-top: 0; }
h2 { margin: 0 0 6px; font-size: 20px; font-weight: 650; letter-spacing: -0.01em; }
h3 { margin: 22px 0 6px; font-size: 15px; font-weight: 650; }
p { margin: 0 0 12px; max-width: 780px; }
p.lead { color: var(--soft); }
p.nothing { color: var(--soft); font-style: italic; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(228px, 1fr)); gap: 14px;
  margin: 14px 0 18px; }
.tile { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px;
  padding: 15px 18px 14px; }
.tile .name { color: var(--soft); font-size: 13px; }
.tile .number { font-size: 34px; line-height: 1.2; font-weight: 650; letter-spacing: -0.02em;
  font-variant-numeric: tabular-nums; }
.tile .number small { font-size: 15px; font-weight: 400; letter-spacing: 0; color: var(--soft);
  white-space: nowrap; }
.tile .what { font-size: 13px; color: var(--soft); margin-top: 3px; }
.wide { overflow-x: auto; margin: 10px 0 18px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
.wide > table { min-width: 100%; }
th, td { padding: 6px 14px 6px 0; text-align: left; vertical-align: baseline;
  border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 8px; }
th:first-child, td:first-child { padding-left: 8px; }
thead th, thead td { color: var(--soft); font-weight: 500; border-bottom-color: var(--soft);
  white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
tbody th { font-weight: 500; }
tr.ours > * { background: var(--ours); font-weight: 600; }
td .pm { color: var(--soft); font-weight: 400; }
td.share { width: 45%; padding-left: 10px; }
td.share > div { height: 9px; border-radius: 2px; background: var(--s0); min-width: 1px; }
details { margin: 6px 0 14px; }
summary { cursor: pointer; color: var(--link); font-size: 13.5px; }
details[open] > summary { margin-bottom: 8px; }
pre { margin: 0; padding: 14px 16px; overflow-x: auto; background: var(--panel);
  border: 1px solid var(--rule); border-radius: 8px;
  font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 22px; margin: 8px 0 16px;
  font-size: 13.5px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
footer { max-width: 1112px; margin: 20px auto 0; padding: 16px 36px 44px; color: var(--soft);
  font-size: 13px; border-top: 1px solid var(--rule); }
figure.chart { margin: 16px 0 22px; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 8px; }
.scroll { overflow-x: auto; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 0 28px; }
svg { display: block; }
@media (min-width: 700px) { svg { max-width: 100%; height: auto; } }
svg text { fill: var(--ink); font-size: 12px; font-family: inherit; }
svg .middle { text-anchor: middle; }
svg .end { text-anchor: end; }
svg .axis text { fill: var(--soft); }
svg .axis .group, svg .group { fill: var(--ink); font-weight: 600; font-size: 12.5px; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .base { stroke: var(--soft); stroke-width: 1; opacity: 0.7; }
svg .strong { font-weight: 650; }
svg .line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
svg .dashed { stroke-dasharray: 5 4; }
svg .faint { stroke-width: 1.4; opacity: 0.45; }
svg .halo { fill: none; stroke: var(--page); stroke-width: 4; opacity: 0.8; }
svg .mark { fill: var(--c); stroke: var(--page); stroke-width: 1.2; }
svg .error { fill: none; stroke: var(--c); stroke-width: 1.5; }
svg .fill { fill: var(--c); }
svg .hatched { stroke: var(--c); stroke-width: 1.2; }
svg .outline { fill: none; stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 2;
  opacity: 0.75; }
svg .hover { fill: transparent; }
svg g:hover > .hover { fill: var(--grid); }
svg .cross { fill: none; stroke: var(--soft); stroke-width: 1.8; stroke-linecap: round; }
svg .sign { font-size: 11px; fill: var(--soft); }
svg .s0 { --c: var(--s0); } svg .s1 { --c: var(--s1); } svg .s2 { --c: var(--s2); }
svg .s3 { --c: var(--s3); } svg .s4 { --c: var(--s4); } svg .s5 { --c: var(--s5); }
svg .s6 { --c: var(--s6); } svg .s7 { --c: var(--s7); }
svg .h0 { fill: var(--h0); } svg .h1 { fill: var(--h1); } svg .h2 { fill: var(--h2); }
svg .h3 { fill: var(--h3); } svg .h4 { fill: var(--h4); } svg .h5 { fill: var(--h5); }
svg .h6 { fill: var(--h6); } svg .h7 { fill: var(--h7); } svg .h8 { fill: var(--h8); }
svg .h9 { fill: var(--h9); } svg .own { fill: var(--void); }
svg .void { fill: none; stroke: var(--grid); }
svg .chosen { fill: none; stroke: var(--s0); stroke-width: 2.6; }
svg text.cell { font-size: 11px; fill: var(--cell-low); }
svg text.cell.high { fill: var(--cell-high); }
@media print { nav { display: none; } section { break-inside: avoid; } }
)";
}

}  // namespace puzzle
