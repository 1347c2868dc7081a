"""The rating page as text, for a rater without a browser, such as a language model.

    python -m transcoders rate --scale laptop --rater NAME --language-model WHICH
    python examples/rate_as_text.py show 1 10 --page http://127.0.0.1:8765
    python examples/rate_as_text.py rate said.json --page http://127.0.0.1:8765
    python examples/rate_as_text.py finish --page http://127.0.0.1:8765

The first command serves the page that people use. The others read items from it and press its
buttons. said.json is a list of {"item": 1, "verdict": "interpretable", "context_free": false,
"note": "..."}.
"""

import argparse
import json
import re
import urllib.parse
import urllib.request
from html import unescape
from pathlib import Path


def read(address: str) -> str:
    with urllib.request.urlopen(address) as page:
        return page.read().decode()


def press(address: str, fields: dict[str, str]) -> None:
    """Press a button as the page's own form does."""
    site = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(address))
    sent = urllib.parse.urlencode(fields).encode()
    urllib.request.urlopen(urllib.request.Request(address, sent, {"Origin": site})).close()


def as_text(html: str) -> str:
    """The title, what to do, and all examples of an item, with [ ] around the marked token."""
    html = html[html.index("<body>") : html.index("<aside>")]
    lines = re.sub(r"<[^>]+>", "", html.replace("<li>", "- ")).splitlines()
    return unescape("\n".join(line for line in lines if line.strip()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["show", "rate", "finish"])
    parser.add_argument("arguments", nargs="*", help="first and last item, or a JSON file")
    parser.add_argument("--page", default="http://127.0.0.1:8765")
    given = parser.parse_args()
    if given.what == "show":
        first, last = map(int, given.arguments)
        for item in range(first, last + 1):
            text = as_text(read(f"{given.page}/item/{item}"))
            begins = text.index("Strongest examples")
            print(text if item == first else f"Item {item}\n{text[begins:]}", end="\n\n")
    elif given.what == "rate":
        for said in json.loads(Path(given.arguments[0]).read_text()):
            fields = {"verdict": said["verdict"], "note": said.get("note", "")}
            if said["context_free"]:
                fields["context_free"] = "yes"
            press(f"{given.page}/item/{said['item']}", fields)
        print(re.findall(r"\d+ of \d+ rated", read(f"{given.page}/item/1"))[0])
    else:
        press(f"{given.page}/finish", {"sure": "yes"})
        print("Finished. These ratings can no longer be changed.")


if __name__ == "__main__":
    main()
