// Reads the page again and changes in place what differs, so that focus, selection, scroll position,
// what is unfolded and what is chosen stay. Elements with data-keep belong to this script.
"use strict";
const pause = document.getElementById("pause");
const lost = document.getElementById("lost");
let paused = false;
let asked = 0; // how often; an older answer does not replace a newer one

function same(now, next) {
  return now && now.nodeName === next.nodeName && (now.id || "") === (next.id || "");
}

// Elements with an id come and go, and never change places; what has none is told by its place.
function morphChildren(now, next) {
  let place = now.firstChild;
  for (const fresh of [...next.childNodes]) {
    const found = fresh.id
      ? [...now.children].find((child) => same(child, fresh))
      : same(place, fresh) && place;
    if (!found) {
      now.insertBefore(fresh, place);
      continue;
    }
    while (place !== found) {
      const gone = place;
      place = place.nextSibling;
      gone.remove();
    }
    morph(found, fresh);
    place = found.nextSibling;
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

function morph(now, next) {
  if (now.nodeType !== Node.ELEMENT_NODE) {
    if (now.data !== next.data) now.data = next.data;
    return;
  }
  if (now.hasAttribute("data-keep")) return;
  const mine = (name) => name === "open" || name === "selected";
  for (const { name } of [...now.attributes])
    if (!next.hasAttribute(name) && !mine(name)) now.removeAttribute(name);
  for (const { name, value } of next.attributes)
    if (now.getAttribute(name) !== value && !mine(name)) now.setAttribute(name, value);
  const chosen = now.value;
  morphChildren(now, next);
  if (now.nodeName === "SELECT" && now.value !== chosen) {
    now.value = chosen;
    if (now.selectedIndex < 0) now.selectedIndex = 0; // that choice is gone
  }
}

function fold(part) {
  if (!matchMedia("(min-width: 48rem)").matches)
    part.querySelectorAll("details.spread").forEach((one) => one.removeAttribute("open"));
}

function wait() {
  return 1000 * Number(document.body.dataset.refresh);
}

function showLost() {
  lost.hidden = false;
  document.title = "Not refreshed · JupyterHub idle servers";
  const icon = document.querySelector("link[rel=icon]");
  icon.href = icon.href.replace(/fill='%23\w+'/, "fill='%23b3261e'");
}

async function refresh() {
  if (paused) return;
  const mine = ++asked;
  try {
    const signal = AbortSignal.timeout(wait());
    const answer = await fetch(location.href, { cache: "no-store", signal });
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (paused || mine !== asked) return;
    // A login page, or one that was cut off, is not this one.
    if (!answer.ok || !["lost", "pause", "end"].every((id) => next.getElementById(id)))
      throw new Error("this is another page");
    fold(next); // what is new on a phone
    morph(document.body, next.body);
    document.title = next.title;
    morph(document.querySelector("link[rel=icon]"), next.querySelector("link[rel=icon]"));
    lost.hidden = true;
  } catch {
    if (!paused && mine === asked) showLost();
  }
}

fold(document);
pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.textContent = paused ? "Resume" : "Pause";
  pause.setAttribute("aria-label", paused ? "Resume refreshing" : "Pause refreshing");
  refresh();
});
document.addEventListener("visibilitychange", refresh);
(function next() {
  setTimeout(() => refresh().finally(next), wait());
})();
