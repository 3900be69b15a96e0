"""The look of the page: one column of text, cards for verdicts, light and dark, desk, phone and paper."""

CSS = """
:root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1b1d21;--soft:#5b6069;--line:#dcdee3;
--good:#006b4f;--bad:#8a5200;--same:#0b5cad;--unknown:#5b6069;--warn:#fff4dc;--warn-line:#d79a1e}
@media(prefers-color-scheme:dark){:root{--ground:#15171b;--card:#1d2026;--ink:#e7e8ea;--soft:#a3a8b1;--line:#363a43;
--good:#4fd1a5;--bad:#f0b35a;--same:#7bb8f5;--unknown:#a3a8b1;--warn:#33290f;--warn-line:#9a7420}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:1.7rem;line-height:1.2;margin:.15em 0 .35em;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2em 0 .3em;padding-top:.7em;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:0}
p{margin:.4em 0 .8em;max-width:78ch}
.soft,figcaption,caption{color:var(--soft);font-size:.87rem}
.lead{font-size:1.12rem}
.wrap{overflow-wrap:anywhere}
.cards{display:grid;gap:14px;grid-template-columns:repeat(auto-fit,minmax(min(320px,100%),1fr));margin:16px 0}
.card{background:var(--card);border:1px solid var(--line);border-left:6px solid var(--tone);border-radius:6px;
padding:14px 16px;break-inside:avoid;min-width:0;overflow-wrap:anywhere}
.card p{margin:.35em 0}
.supported{--tone:var(--good)}.not_supported{--tone:var(--bad)}.equivalent{--tone:var(--same)}
.not_testable{--tone:var(--unknown)}
.badge{color:var(--tone);font-weight:650;text-transform:uppercase;letter-spacing:.03em;font-size:.85rem}
.label{border:1px solid var(--line);border-radius:4px;padding:0 .4em;font-size:.78rem;color:var(--soft)}
.big{font-size:1.75rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.2}
.big small{font-size:.85rem;font-weight:400;color:var(--soft)}
.fifths{display:grid;grid-template-columns:repeat(5,1fr);gap:4px;margin:.3em 0;font-variant-numeric:tabular-nums}
.fifths span{background:var(--ground);border:1px solid var(--line);border-radius:3px;text-align:center;font-size:.85rem;
padding:2px 0;white-space:nowrap}
.note{background:var(--warn);border:1px solid var(--warn-line);border-radius:6px;padding:8px 14px;margin:12px 0}
.note ul,.limits{margin:.3em 0;padding-left:1.2em}
.note li,.limits li{overflow-wrap:anywhere;max-width:90ch}
.figures{display:grid;gap:18px;grid-template-columns:repeat(auto-fit,minmax(min(320px,100%),1fr));margin:14px 0;
align-items:start}
figure{margin:0;min-width:0;break-inside:avoid}
svg{display:block;width:100%;height:auto}
.scroll{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:.4em;caption-side:top}
th,td{text-align:left;padding:4px 14px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
td{max-width:34em}
td.long{overflow-wrap:anywhere;min-width:16em}
thead th{color:var(--soft);font-weight:600;white-space:nowrap}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.8rem;background:var(--card);border:1px solid var(--line);
border-radius:4px;padding:10px;max-height:28em;overflow-y:auto}
summary{cursor:pointer}
@media(max-width:560px){main{padding:14px 12px 40px}h1{font-size:1.35rem}.big{font-size:1.45rem}}
@media print{:root{--ground:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--warn:#fff}
body{font-size:11px}main{max-width:none;padding:0}pre{max-height:none}.scroll{overflow:visible}h2{break-after:avoid}}
"""
