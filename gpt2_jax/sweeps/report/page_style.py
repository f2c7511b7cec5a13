"""The style sheet of a report: light and dark, wide and narrow."""

from __future__ import annotations

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#3a9bd9", "#444444", "#b2182b")
"""The colors of curves on white, after the palette of Okabe and Ito (2008, "Color Universal
Design"), which color-blind people can tell apart."""
_DARK = ("#56b4e9", "#ff9d4d", "#3ddbaa", "#f0a6cf", "#f0e442", "#8fb8ff", "#d0d0d0", "#ff7b7b")


def _colors(values: tuple[str, ...]) -> str:
    return "".join(f"--c{index}:{value};" for index, value in enumerate(values))


_CURVES = "".join(f".c{index}{{--c:var(--c{index})}}" for index in range(len(LIGHT)))

STYLE = f"""
:root{{color-scheme:light dark;--ink:#1b1f24;--dim:#59636e;--page:#fff;--soft:#f3f5f7;
--rule:#d5dae0;--good:#0a7a4b;--bad:#b3261e;--same:#0b5cad;--warn:#fff4d6;{_colors(LIGHT)}}}
@media (prefers-color-scheme:dark){{:root{{--ink:#e6e9ed;--dim:#a0aab5;--page:#14181d;
--soft:#1d232a;--rule:#39424d;--good:#4fd69c;--bad:#ff8a80;--same:#7db7ff;--warn:#3a3013;
{_colors(_DARK)}}}}}
{_CURVES}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}}
main{{max-width:1280px;margin:0 auto;padding:16px 20px 48px}}
h1{{font-size:1.6rem;line-height:1.25;overflow-wrap:anywhere}}
h2{{font-size:1.25rem;margin-top:2.2rem;border-bottom:1px solid var(--rule)}}
h3{{font-size:1.05rem;margin-top:1.8rem}}
p,li{{max-width:80ch;overflow-wrap:anywhere}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}}
th,td{{padding:6px 8px;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}}
th{{color:var(--dim);font-weight:600;background:var(--soft)}}
td:first-child{{font-weight:600;min-width:8em}}
tr.better [data-label=verdict]{{color:var(--good);font-weight:600}}
tr.worse [data-label=verdict]{{color:var(--bad);font-weight:600}}
tr.equivalent [data-label=verdict]{{color:var(--same);font-weight:600}}
.caution{{background:var(--warn);border-radius:8px;padding:10px 16px;margin:16px 0}}
.caution ul{{margin:.3em 0}}
.charts{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:20px}}
figure{{margin:8px 0;max-width:580px}}
figcaption{{color:var(--dim);font-size:.875rem;text-align:center}}
figure svg{{width:100%;height:auto;display:block}}
svg text{{font:13px system-ui,sans-serif;fill:var(--dim)}}
svg .label,svg .arm{{fill:var(--ink)}}
.grid{{stroke:var(--rule);stroke-width:.7}}
.axis{{stroke:var(--dim);fill:none}}
.line{{stroke:var(--c);stroke-width:2;fill:none;stroke-linejoin:round}}
.line.dashed{{stroke-dasharray:6 4}}
.band{{fill:var(--c);opacity:.16}}
.dot{{fill:var(--c)}}
.delta{{fill:var(--same);opacity:.16}}
.interval{{stroke:var(--dim);stroke-width:2;fill:none}}
.estimate{{fill:var(--dim)}}
.interval.better{{stroke:var(--good)}}.estimate.better{{fill:var(--good)}}
.interval.worse{{stroke:var(--bad)}}.estimate.worse{{fill:var(--bad)}}
.interval.equivalent{{stroke:var(--same)}}.estimate.equivalent{{fill:var(--same)}}
.legend{{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.875rem}}
.legend li{{display:flex;align-items:center;gap:7px}}
.swatch{{width:24px;height:8px;flex:none}}
pre{{background:var(--soft);padding:12px;overflow-x:auto;font-size:.8rem;border-radius:6px}}
summary{{cursor:pointer;margin-top:1.2rem}}
@media (max-width:720px){{
main{{padding:8px 14px 40px}}
thead{{display:none}}
table,tbody,tr,td{{display:block;width:100%}}
tr{{border:1px solid var(--rule);border-radius:8px;margin:10px 0;overflow:hidden}}
td{{display:flex;justify-content:space-between;gap:14px;padding:5px 12px}}
td::before{{content:attr(data-label);color:var(--dim);font-weight:400;flex:none;max-width:45%}}
td span{{text-align:right;overflow-wrap:anywhere;min-width:0}}
td:first-child{{background:var(--soft)}}
tr td:last-child{{border-bottom:0}}
td.none{{display:none}}
svg text{{font-size:17px}}
}}
"""
