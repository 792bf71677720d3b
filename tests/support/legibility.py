"""Whether everybody can read a page, and what a browser complains about while it shows one."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

# Gives what is written with too little contrast.
CONTRAST = """() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => {
    const [r, g, b] = parse(c).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (parse(c).length < 4 || parse(c)[3] > 0) return c;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const e of document.body.querySelectorAll("*")) {
    const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const style = getComputedStyle(e);
    if (says && ratio(style.color, ground(e)) < 4.5)
      found.push([e.className, e.textContent.slice(0, 30), ratio(style.color, ground(e))]);
    if (e.tagName === "rect" && ratio(style.fill, ground(e.closest("section"))) < 3)
      found.push([e.className.baseVal, "bar", ratio(style.fill, ground(e.closest("section")))]);
  }
  return found;
}"""


def violations(page: Page) -> list[str]:
    """Say what axe-core finds, in all its rules."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


def listen_to(page: Page) -> tuple[list[str], list[str]]:
    """Collect what the console, or a dialogue of a script, says, and what is asked for."""
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialogue: complaints.append(dialogue.message))
    page.on("request", lambda wanted: asked.append(wanted.url))
    return complaints, asked
