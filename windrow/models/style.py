"""The look that all pages of windrow share: colours for light and dark, text, tables, links and the mark of the focus."""

STYLE = (
    ":root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1c2330;--dim:#5b6577;--line:#dde1e8;--accent:#4338ca;--on:#fff;--good:#0f6b5f;--bad:#b42318}"
    "@media(prefers-color-scheme:dark){:root{--bg:#0f1318;--card:#181e26;--ink:#e4e8ef;--dim:#9aa5b8;--line:#2a323d;--accent:#a5b4fc;--on:#0f1318;--good:#5eead4;--bad:#fda29b}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}"
    "main{max-width:72rem;margin:0 auto;padding:1.2rem 1.2rem 4rem}"
    "h1{font-size:1.5rem;line-height:1.25;margin:.4rem 0 .2rem;letter-spacing:-.01em}h2{font-size:1.05rem;margin:0 0 .6rem}"
    "a{color:var(--accent)}code{font:.92em ui-monospace,Menlo,Consolas,monospace}small{color:var(--dim)}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line)}"
    "th{color:var(--dim);font-weight:550;font-size:.86em}td{font-variant-numeric:tabular-nums}"
    ":focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:3px}"
    ".passed,.ok{color:var(--good)}.failed,.drift,.missing{color:var(--bad);font-weight:600}"
)
