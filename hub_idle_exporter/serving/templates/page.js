// Reads the page again and changes in place what differs, so that focus, selection, scroll position
// and what is unfolded stay. Elements with data-keep belong to this script or to the person.
"use strict";
const pause = document.getElementById("pause");
const lost = document.getElementById("lost");
const wait = 1000 * Number(document.body.dataset.refresh);
let paused = false;

function morph(now, next) {
  if (now.nodeName !== next.nodeName || now.id !== next.id) return now.replaceWith(next);
  if (now.nodeType !== Node.ELEMENT_NODE) {
    if (now.data !== next.data) now.data = next.data;
    return;
  }
  if (now.hasAttribute("data-keep")) return;
  for (const { name } of [...now.attributes])
    if (!next.hasAttribute(name) && name !== "open") now.removeAttribute(name);
  for (const { name, value } of next.attributes)
    if (now.getAttribute(name) !== value && name !== "open") now.setAttribute(name, value);
  const [old, fresh] = [[...now.childNodes], [...next.childNodes]];
  old.slice(fresh.length).forEach((node) => node.remove());
  fresh.forEach((node, place) => (place < old.length ? morph(old[place], node) : now.append(node)));
}

async function refresh() {
  if (paused || document.hidden) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(wait) });
    if (!answer.ok) throw new Error(answer.statusText);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (paused) return;
    morph(document.body, next.body);
    document.title = next.title;
    const icon = document.querySelector("link[rel=icon]");
    morph(icon, next.querySelector("link[rel=icon]"));
    lost.hidden = true;
  } catch {
    lost.hidden = false;
    document.title = "No answer · JupyterHub idle servers";
  }
}

if (!matchMedia("(min-width: 48rem)").matches)
  document.querySelectorAll("details.spread").forEach((part) => part.removeAttribute("open"));
pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Resume" : "Pause";
  pause.setAttribute("aria-label", paused ? "Resume refreshing" : "Pause refreshing");
  refresh();
});
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, wait);
