"""The first page a browser sees: what this is, whether it is ready, and a request to try. Nothing from elsewhere."""

from collections.abc import Mapping
from html import escape

from api.schemas import Root

_STYLE = """
:root { color-scheme: light dark; } body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto;
padding: 0 1rem; } code, pre { background: color-mix(in srgb, currentColor 8%, transparent); border-radius: 6px; }
code { padding: .1em .3em; } pre { padding: 1rem; overflow-x: auto; } small { opacity: .7; }
"""


def welcome(root: Root, base_url: str, cities: Mapping[int, str]) -> str:
    """A self-contained HTML page.

    Args:
        root: what the JSON answer says.
        base_url: where the browser found us, with a slash at its end.
        cities: name by id.
    """
    version = (
        f"model version <code>{escape(root.model_version)}</code>" if root.model_version else "nothing published yet"
    )
    links = " · ".join(f'<a href="{escape(path)}">{escape(name)}</a>' for name, path in root.links.items())
    named = ", ".join(f"{city} {escape(name)}" for city, name in sorted(cities.items()))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>recsys</title>
<style>{_STYLE}</style>
<h1>Places to go, and people to go with</h1>
<p>recsys {escape(root.version)}, {version}.</p>
<p>{links}</p>
<pre>curl -s {escape(base_url)}recommend/places -H 'content-type: application/json' \\
  -d '{{"user_id": 42, "top_k": 3}}'</pre>
<p><small>Cities: {named or "none yet"}</small></p>
</html>"""
